from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from data_manifests.errors import InputError
from data_manifests.prior_spec import ACT300
from tests.browser import Browser
from tests.trainer.evaluation_ranks import LENGTHS, model_and_store
from tests.trainer.memory_store import MemoryStore
from trainer.data.reader import Store
from trainer.evaluation import evaluate_store, write_json
from trainer.evaluation_report import read_evaluation, video_score, write_report
from trainer.report import cli, main


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[Path, MemoryStore]:
    out = tmp_path_factory.mktemp("scored")
    model, store = model_and_store()
    metrics = evaluate_store(model, store, device=torch.device("cpu"), out=out)
    metrics["store"] |= {"path": "noise", "split": "test"}
    metrics["checkpoint"] |= {"path": "</script><b>", "step": 3}
    write_json(out / "metrics.json", metrics)
    return out, store


@pytest.fixture
def evaluated(scored, monkeypatch) -> Path:
    """An evaluation's folder; its store is found under any name."""
    monkeypatch.setattr(MemoryStore, "path", Path("noise"), raising=False)
    monkeypatch.setattr(Store, "open", classmethod(lambda cls, path, split=None: scored[1]))
    return scored[0]


def _data(page: Path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)[1])


def test_the_page_holds_everything_and_asks_for_nothing(evaluated, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", str(evaluated)])
    main()
    page = evaluated / "report.html"
    assert str(page) in capsys.readouterr().out
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    data = _data(page)
    metrics = json.loads((evaluated / "metrics.json").read_text())
    about = dict(data["about"])
    assert metrics["protocol"]["words"] in about["protocol"]
    assert about["weights"] == metrics["checkpoint"]["weights"]
    assert [value for _, value in data["headline"]] == [
        metrics["frame_map"]["0.5"],
        *metrics["video_map"].values(),
    ]
    assert sum(map(sum, data["confusion"])) == metrics["counts"]["ground_truth_boxes"]
    assert len(data["videos"]) == len(LENGTHS) - 1, "the video without annotations has no score"
    assert all(video["strip"].startswith("data:image/jpeg") for video in data["videos"])


def test_the_page_may_lie_elsewhere(evaluated, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["report", str(evaluated), "--videos", "0", "--out", str(tmp_path / "a/page.html")]
    )
    main()
    assert f"report: {tmp_path / 'a/page.html'}" in capsys.readouterr().out
    assert _data(tmp_path / "a/page.html")["videos"] == []


def test_videos_are_the_worst_and_the_best(evaluated):
    data = _data(write_report(evaluated, videos=2))
    _, evaluation, _ = read_evaluation(evaluated, None)
    scores = sorted(s for s in (video_score(evaluation, i) for i in range(len(LENGTHS))) if s is not None)
    assert [video["score"] for video in data["videos"]] == [scores[0], scores[-1]]


def test_an_evaluation_that_found_nothing_has_a_page(evaluated, tmp_path, browser: Browser):
    model, store = model_and_store()
    with torch.no_grad():
        for head, layer in zip(model.conf, ACT300.layers, strict=True):
            head.bias.view(layer.priors_per_cell, -1)[:, 0] = 1e4
    metrics = evaluate_store(model, store, device=torch.device("cpu"), out=tmp_path)
    metrics["store"] |= {"path": "noise", "split": "test"}
    metrics["checkpoint"] |= {"path": "last.pt", "step": 3}
    write_json(tmp_path / "metrics.json", metrics)
    browser.open(write_report(tmp_path))
    assert browser.ask("document.querySelector('#big b').textContent") == "0.0"
    assert browser.ask("document.querySelectorAll('#videos article').length") == len(LENGTHS) - 1
    assert browser.complaints == []


def test_what_is_no_evaluation_is_refused(evaluated, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not an evaluation"):
        write_report(tmp_path)
    with pytest.raises(InputError, match=r"nowhere is not there\n  wanted: the --out of trainer\.evaluate"):
        cli([str(tmp_path / "nowhere")], standalone_mode=False)
    other = MemoryStore([3], [[0]])
    monkeypatch.setattr(Store, "open", classmethod(lambda cls, path, split=None: other))
    with pytest.raises(InputError, match="not the store that was scored"):
        write_report(evaluated)


@pytest.mark.parametrize(("width", "dark"), [(1100, True), (380, False)])
def test_the_page_works_in_a_browser(browser: Browser, evaluated, width, dark):
    browser.open(write_report(evaluated), width=width, dark=dark)
    rows = "document.querySelectorAll('#classes tr').length - 1"
    assert browser.ask(rows) == 2
    assert browser.ask("document.querySelectorAll('#videos article').length") == len(LENGTHS) - 1
    browser.tab_to("document.querySelector('#filters button')")
    browser.press(" ")
    assert browser.ask("document.activeElement.getAttribute('aria-pressed')") == "false"
    assert browser.ask(rows) == 1
    browser.tab_to("document.querySelector('#filters button:last-child')")
    browser.press("Enter")
    assert browser.ask(rows) == 2
    assert browser.ask("document.querySelectorAll('#filters [aria-pressed=true]').length") == 2
    scores = "[...document.querySelectorAll('#videos small')].map(e => parseFloat(e.textContent.slice(6)))"
    worst_first = browser.ask(scores)
    assert worst_first == sorted(worst_first)
    browser.tab_to("document.querySelector('#order')")
    browser.press("ArrowDown")
    assert browser.ask(scores) == sorted(worst_first, reverse=True)
    browser.tab_to("document.querySelector('.play button')")
    browser.press("Enter")
    assert browser.ask("document.activeElement.textContent") == "pause"
    browser.press("Enter", "Tab", "End")
    assert browser.ask("document.activeElement.type") == "range"
    assert browser.ask("document.querySelector('.strip').style.backgroundPosition") == "100% 0px"
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("Math.max(...[...document.querySelectorAll('tr')].map(e => e.clientHeight))") < 80, "on one line"
    assert browser.too_faint() == []
    assert browser.complaints == []
