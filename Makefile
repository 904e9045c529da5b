PYTHON ?= python3
BIN := .venv/bin
SEED ?= 0
TESTERS ?= 2
DEMO := out/demo

.PHONY: install demo picture test bench faults lint

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

install: .venv/.installed

# K = 6 and, for comparison, K = 1: only motion tells the demo's classes apart
demo: install
	rm -rf $(DEMO)
	$(MAKE) --no-print-directory demo-K6 demo-K1
	$(BIN)/python -m tests.demo_figures $(DEMO)

demo-K%:
	$(BIN)/python -m pipeline build --dataset demo --root $(DEMO)/data --store $(DEMO)/store-K$* --clip-length $* --views 0
	$(BIN)/python -m trainer.run --store $(DEMO)/store-K$* --preset demo --seed $(SEED) --out $(DEMO)/run-K$*
	$(BIN)/python -m trainer.evaluate --store $(DEMO)/store-K$* --checkpoint $(DEMO)/run-K$*/checkpoints/last.pt \
		--out $(DEMO)/evaluation-K$* --json $(DEMO)/metrics-K$*.json --pictures 8

# the README's picture: two actors of one of the demo's test videos, after `make demo`
PICTURE := $(DEMO)/evaluation-K6/pictures/Rise/v_Rise_test_014.png
picture: $(PICTURE)
	$(BIN)/python -c "from PIL import Image; Image.open('$(PICTURE)').save('demo.jpg', quality=80, optimize=True)"

# processes of one thread each: more threads than cores only wait for one another; who is done takes over the others' tests
test: install
	$(BIN)/python -m pytest -n $(TESTERS) --dist worksteal

# litdata without its torchvision, which it imports for images and videos of its own only
bench: install
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/pip install --quiet --no-deps litdata==0.2.76
	$(BIN)/python -m tests.benchmarks

faults: install
	$(BIN)/python -m tests.benchmarks.faults
	$(BIN)/python -m tests.benchmarks.orders
	$(BIN)/python -m tests.benchmarks.kills

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
