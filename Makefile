PYTHON ?= python3
BIN := .venv/bin
SEED ?= 0
DEMO := out/demo

.PHONY: install demo test bench faults lint

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

install: .venv/.installed

demo: install
	$(BIN)/python -m tests.demo --seed $(SEED) --out $(DEMO)

test: install
	$(BIN)/python -m pytest -n 2

bench: install
	$(BIN)/python -m tests.benchmarks

faults: install
	$(BIN)/python -m tests.benchmarks.faults

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
