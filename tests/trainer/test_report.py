from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_manifests.errors import InputError
from tests.trainer.evaluation_ranks import LENGTHS, model_and_store
from tests.trainer.memory_store import MemoryStore
from trainer.data.reader import Store
from trainer.evaluation import evaluate_store, write_json
from trainer.report import main, read_evaluation, video_score, write_report


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


def test_videos_are_the_worst_and_the_best(evaluated):
    data = _data(write_report(evaluated, videos=2))
    _, evaluation, _ = read_evaluation(evaluated, None)
    scores = sorted(s for s in (video_score(evaluation, i) for i in range(len(LENGTHS))) if s is not None)
    assert [video["score"] for video in data["videos"]] == [scores[0], scores[-1]]


def test_what_is_no_evaluation_is_refused(evaluated, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not an evaluation"):
        write_report(tmp_path)
    other = MemoryStore([3], [[0]])
    monkeypatch.setattr(Store, "open", classmethod(lambda cls, path, split=None: other))
    with pytest.raises(InputError, match="not the store that was scored"):
        write_report(evaluated)


_PROBE = """
<script>window.onerror=m=>{document.documentElement.dataset.broken=m}</script>
"""
_EXERCISE = """
<script>
const said={};
said.classes=document.querySelectorAll("#classes tr").length-1;
said.videos=document.querySelectorAll("#videos article").length;
document.querySelector("#filters button").focus();document.activeElement.click();
said.fewer=document.querySelectorAll("#classes tr").length-1;
said.pressed=document.querySelector("#filters button").getAttribute("aria-pressed");
document.querySelector("#filters button:last-child").click();
said.again=document.querySelectorAll("#classes tr").length-1;
const order=document.querySelector("#order"),first=()=>document.querySelector("#videos b").textContent,worst=first();
order.value="-1";order.onchange();said.reordered=worst!==first();
const strip=document.querySelector(".strip"),slider=document.querySelector("input[type=range]");
slider.value=slider.max;slider.oninput();said.moved=strip.style.backgroundPosition;
document.querySelector(".play button").click();said.playing=document.querySelector(".play button").textContent;
said.fits=document.documentElement.scrollWidth<=window.innerWidth;
said.controls=[...document.querySelectorAll("button,select,input")].every(e=>e.tabIndex>=0);
document.documentElement.dataset.said=JSON.stringify(said);
</script>
"""


@pytest.mark.parametrize("size", ["1100,900", "500,800"])
def test_the_page_works_in_a_browser(evaluated, tmp_path, size):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    text = write_report(evaluated).read_text()
    page = tmp_path / "page.html"
    page.write_text(text.replace("<body>", "<body>" + _PROBE).replace("</body>", _EXERCISE + "</body>"))
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={size}", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", f"file://{page}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert "data-broken" not in done.stdout[:500]
    said = json.loads(re.search(r'data-said="(.*?)"', done.stdout)[1].replace("&quot;", '"'))
    assert said == {
        "classes": 2,
        "videos": 5,
        "fewer": 1,
        "pressed": "false",
        "again": 2,
        "reordered": said["reordered"],
        "moved": "100% 0px",
        "playing": "pause",
        "fits": True,
        "controls": True,
    }
