"""The page of training runs: what it holds, what it refuses, and that it works in a browser."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import sys
from pathlib import Path

import pytest

from data_manifests.errors import InputError
from tests.browser import Browser
from trainer.config import load_config
from trainer.report import main
from trainer.run_record import read_run
from trainer.run_report import MOST_POINTS, report_data, series, spread, write_run_report


def _run(
    folder: Path,
    *,
    seed: int = 0,
    steps: int = 10,
    restarted: int = 99,
    starting: float = 5,
    preset: str = "demo",
    **changed,
) -> Path:
    """A run as trainer.run leaves it: a line every 20 steps of 10 seconds; resumed before line `restarted` by a process
    that takes `starting` seconds to begin.
    """
    folder.mkdir(parents=True)
    config = dataclasses.asdict(load_config("demo", {"seed": seed, **changed}))
    record = {"preset": preset, "config": config, "K": 6, "store_digest": "d", "store": "</script><b>"}
    (folder / "run.json").write_text(json.dumps(record))
    with open(folder / "metrics.jsonl", "w") as log:
        for i in range(1, steps + 1):
            done, late = (i, 0.0) if i < restarted else (i + 1 - restarted, starting)
            seconds = 10.0 * done + late
            line = {"step": 20 * i, "loss": (5 + seed) / i, "loc": 1 / i, "conf": 4 / i, "positives": 80.0 + seed}
            line |= {"base_lr": 0.02, "clips_per_second": 4 * 20 * done / seconds, "seconds": seconds}
            log.write(json.dumps(line) + "\n")
            if i % 5 == 0:
                log.write(json.dumps({"step": 20 * i, "val_frame_map": 0.5 + i / 100, "val_video_map": 0.4}) + "\n")
    return folder


def test_a_run_of_before_parts_were_recorded_had_the_default_in_one(tmp_path: Path) -> None:
    new, old, other = (
        _run(tmp_path / "new"),
        _run(tmp_path / "old", accumulate=1),
        _run(tmp_path / "other", accumulate=2),
    )
    assert read_run(old).config == read_run(old).preset
    assert read_run(old).key == read_run(new).key != read_run(other).key
    record = json.loads((old / "run.json").read_text())
    (old / "run.json").write_text(json.dumps(record | {"parts": 1}))
    assert read_run(old).config["accumulate"] == 1


def _data(page: Path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)[1])


def _report(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    main()


def test_one_run_shows_its_curves_settings_and_profile(tmp_path, monkeypatch, capsys):
    run = _run(tmp_path / "run", base_lr=0.01)
    (run / "profile.json").write_text(json.dumps({"seconds_a_step": {"forward": 0.25}, "verdict": "It waited."}))
    (run / "checkpoints/evaluation-1").mkdir(parents=True)
    scores = {"frame_map": {"0.5": 0.9}, "video_map": {"0.5": None}}
    metrics = {**scores, "checkpoint": {"step": 200}, "protocol": {"name": "act, all frames"}}
    metrics["store"] = {"path": "stores/own", "split": "test"}
    (run / "checkpoints/evaluation-1/metrics.json").write_text(json.dumps(metrics))
    _report(monkeypatch, run)
    assert str(run / "report.html") in capsys.readouterr().out
    text = (run / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    data = _data(run / "report.html")
    (shown,) = data["runs"]
    assert shown["curves"]["loss"][1] == [40, 2.5]
    assert shown["curves"]["positives"][0] == [20, 20.0], "84 positives a step of 4 clips are 21 a clip"
    assert shown["curves"]["speed"][3] == [80, 8.0]
    assert shown["curves"]["val_frame_map"] == [[100, 0.55], [200, 0.6]]
    assert shown["verdict"] == "It waited."
    assert shown["stages"] == [["forward", 250.0]]
    assert shown["evaluations"][0]["frame"] == 0.9
    assert dict(shown["about"])["store"] == "</script><b>"
    assert dict(shown["about"])["steps"] == "200 of 900"
    differing = [row for row in data["settings"] if row["differs"]]
    assert [(row["name"], row["values"], row["presets"]) for row in differing] == [("base_lr", ["0.01"], ["0.02"])]
    assert len(data["settings"]) == len(dataclasses.fields(load_config("demo", {})))


def test_runs_that_differ_in_the_seed_alone_are_one_group_with_its_spread(tmp_path):
    folders = [_run(tmp_path / f"s{seed}", seed=seed, steps=10 - seed) for seed in range(3)]
    folders.append(_run(tmp_path / "other", base_lr=0.01))
    data = report_data([read_run(folder) for folder in folders])
    assert [group["runs"] for group in data["groups"]] == [[0, 1, 2], [3]]
    group = data["groups"][0]
    assert group["bands"]["loss"][0] == (20, 6.0, 5.0, 7.0)
    assert group["bands"]["loss"][-1][0] == 160, "the last step that all three have"
    assert group["last"]["loss"]["deviation"] == pytest.approx(statistics.stdev([5 / 8, 6 / 8, 7 / 8]))
    assert data["groups"][1]["bands"] == {}
    assert [row["name"] for row in data["settings"] if row["differs"]] == ["base_lr", "seed"]


@pytest.mark.parametrize(("restarted", "starting"), [(6, 6.0), (2, 6.0), (2, 0.0), (3, 22.0)])
def test_the_speed_of_a_resumed_runs_first_line_is_since_its_process_began(restarted, starting, tmp_path):
    run = read_run(_run(tmp_path / "run", restarted=restarted, starting=starting))
    speeds = [value for _, value in series(run)["speed"]]
    expected = [8.0] * (restarted - 1) + [80 / (10 + starting)] + [8.0] * (10 - restarted)
    assert speeds == pytest.approx(expected)


def test_evaluations_of_other_videos_and_protocols_are_told_apart(tmp_path):
    run = _run(tmp_path / "run")
    for number, (split, protocols, amp) in enumerate([("test", ("act", "voc"), False), ("train", (), True)], start=1):
        folder = run / f"checkpoints/evaluation-{number}"
        folder.mkdir(parents=True)
        metrics = {"frame_map": {"0.5": 0.9}, "video_map": {"0.5": None}, "checkpoint": {"step": 200}, "amp": amp}
        metrics["store"] = {"path": "/stores/own", "split": split}
        for name in (*(f"metrics-{rule}-all-frames.json" for rule in protocols), "metrics.json"):
            rule = name.split("-")[1] if "-" in name else "act"
            (folder / name).write_text(json.dumps(metrics | {"protocol": {"name": f"{rule}, all frames"}}))
    shown = report_data([read_run(run)])["runs"][0]["evaluations"]
    assert [(one["videos"], one["protocol"]) for one in shown] == [
        ("test, /stores/own", "act, all frames"),
        ("test, /stores/own", "voc, all frames"),
        ("train, /stores/own", "act, all frames, bfloat16"),
    ]


def test_long_curves_are_thinned_to_means_and_keep_their_end(tmp_path):
    curve = report_data([read_run(_run(tmp_path / "run", steps=1001))])["runs"][0]["curves"]["loss"]
    assert len(curve) <= MOST_POINTS
    assert curve[-1][0] == 20020
    assert curve[-1][1] == pytest.approx(statistics.fmean(5 / i for i in (999, 1000, 1001)), rel=1e-4)


def test_curves_without_a_shared_step_have_no_spread():
    assert spread([[(1, 1.0)], [(2, 2.0)]]) == []


def test_a_live_run_is_read_up_to_its_last_whole_line(tmp_path):
    run = _run(tmp_path / "run", steps=3)
    (run / "metrics.jsonl").open("a").write('{"step": 80, "lo')
    assert [line["step"] for line in read_run(run).lines] == [20, 40, 60]


def test_a_run_without_its_presets_name_is_compared_with_the_nearest(tmp_path):
    run = read_run(_run(tmp_path / "run", preset=""))
    assert dict(run.about)["preset"] == "not recorded; nearest: demo"
    assert run.preset["width"] == 0.125


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "metrics.jsonl").unlink(), "is not an evaluation, nor a run"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "has not logged a step yet"),
        (lambda run: (run / "metrics.jsonl").write_text('{"step": 1}\n[1]\n'), r"line 2, is damaged"),
        (lambda run: (run / "run.json").write_text("{"), r"run\.json is damaged"),
        (lambda run: (run / "run.json").write_text("{}"), "the record of the run"),
        (lambda run: (run / "run.json").unlink(), "settings of the run .* are unknown"),
        (lambda run: (run / "profile.json").write_text("[]"), "the record of the run"),
    ],
)
def test_what_is_damaged_is_named(spoil, message, tmp_path, monkeypatch):
    run = _run(tmp_path / "run")
    spoil(run)
    before = sorted(run.iterdir())
    with pytest.raises(InputError, match=message):
        _report(monkeypatch, run)
    assert sorted(run.iterdir()) == before, "nothing half-written is left"


def test_a_run_and_something_else_make_no_page(tmp_path, monkeypatch):
    run = _run(tmp_path / "run")
    with pytest.raises(InputError, match="only if all are runs"):
        _report(monkeypatch, run, tmp_path)
    with pytest.raises(InputError, match="given twice"):
        _report(monkeypatch, run, run)


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (380, True)])
def test_the_page_works_in_a_browser(browser: Browser, tmp_path, width, dark):
    folders = [_run(tmp_path / f"s{seed}", seed=seed) for seed in range(2)] + [_run(tmp_path / "x", base_lr=0.01)]
    browser.open(write_run_report(folders, tmp_path / "runs.html"), width=width, dark=dark)
    assert browser.ask("document.querySelectorAll('#charts svg').length") == 8
    assert browser.ask("document.querySelectorAll('polyline.run').length") == 3 * 8
    assert browser.ask("document.querySelectorAll('polygon.band').length") == 8
    browser.tab_to("document.querySelector('#filters button')")
    browser.press(" ")
    assert browser.ask("document.activeElement.getAttribute('aria-pressed')") == "false"
    assert browser.ask("document.querySelectorAll('polyline.run').length") == 2 * 8
    assert browser.ask("document.querySelectorAll('polygon.band').length") == 0, "no band of one run"
    browser.press("Enter")
    assert browser.ask("document.querySelectorAll('polyline.run').length") == 3 * 8
    browser.tab_to("document.querySelector('#log')")
    flat = browser.ask("document.querySelector('polyline.run').getAttribute('points')")
    browser.press("Enter")
    assert browser.ask("document.querySelector('polyline.run').getAttribute('points')") != flat
    browser.tab_to("document.querySelector('#at')")
    there = browser.ask("document.querySelector('#step').textContent")
    browser.press("ArrowDown")
    assert int(browser.ask("document.querySelector('#step').textContent")) < int(there)
    browser.tab_to("document.querySelector('summary')")
    browser.press("Enter")
    assert browser.ask("document.querySelector('details').open")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.too_faint() == []
    assert browser.complaints == []
