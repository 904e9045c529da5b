"""An evaluation as one HTML page that needs no network and no other file."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_manifests.errors import InputError
from data_manifests.manifest import write_atomically
from trainer.data.cached import open_place
from trainer.data.reader import Store
from trainer.detection.overlap import tube_overlap
from trainer.detections_file import Origin, found_by, read_findings
from trainer.evaluation import truth_of
from trainer.metrics.average_precision import precision_recall
from trainer.metrics.figures import ERROR_OVERLAP, Evaluation
from trainer.metrics.frame import RIGHT, BoxFindings, Detections, judge_frames
from trainer.pictures import colour_of, draw_frame, shown_tubes
from trainer.place import Place, place_of
from trainer.report_page import PAGE

KINDS = {
    "AP": "#1a9850",
    "loc": "#fdae61",
    "cls": "#d73027",
    "time": "#7b3294",
    "other": "#878787",
    "missed": "#4575b4",
}
"""ACT's error split and its colours."""
SHOTS = 16


def read_evaluation(
    out: Path, place: Place | None, cache: Path | None = None, cache_gb: float = 0.0
) -> tuple[dict[str, Any], Evaluation, Store]:
    """What `trainer.evaluate` wrote to `out`, with the store it read.

    Raises:
        InputError: `out` is no evaluation, or the store is not the one that was scored.
    """
    try:
        metrics = json.loads((out / "metrics.json").read_text())
        store_of, split = metrics["store"], metrics["store"]["split"]
        fields = metrics["protocol"]["fields"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{out} is not an evaluation, nor a run that has begun",
            found=str(error),
            todo="give the --out of `python -m trainer.evaluate`, or of `python -m trainer.run`",
        ) from error
    store = open_place(place or place_of(store_of["path"], cache, cache_gb), split if "," not in split else None)
    if store.content_digest != store_of["digest"]:
        raise InputError(
            f"{place or store_of['path']} is not the store that was scored",
            found=store.content_digest[:12],
            wanted=store_of["digest"][:12],
            todo="give it with --store",
        )
    by = found_by(fields, amp=metrics.get("amp", False))
    origin = Origin(metrics["checkpoint"]["weights"], store_of["digest"], by)
    video_ids, findings = store.videos["video_id"].to_pylist(), []
    for video_id in video_ids:
        found = read_findings(out / "detections", video_id, origin)
        if found is None:
            raise InputError(f"the detections of {video_id} are not in {out}", todo="run its trainer.evaluate again")
        findings.append(found)
    return metrics, Evaluation(video_ids, metrics["classes"], metrics["K"], truth_of(store), findings), store


def video_score(evaluation: Evaluation, place: int) -> float | None:
    """Mean, over a video's annotated tubes, of the best space-time overlap of a shown tube of their class."""
    truth, tubes = evaluation.truth.of_video(place), evaluation.findings[place].tubes
    if not len(truth.label):
        return None
    best = []
    scratch = np.empty(max(1, int(truth.frames.max()), len(truth.boxes)), np.float32)
    for t in range(len(truth.label)):
        boxes = truth.boxes[truth.ptr[t] : truth.ptr[t + 1]]
        overlaps = [
            tube_overlap(truth.first[t], boxes, tubes.first[d], tubes.boxes[tubes.ptr[d] : tubes.ptr[d + 1]], scratch)
            for d in shown_tubes(tubes)
            if tubes.label[d] == truth.label[t]
        ]
        best.append(float(max(overlaps, default=0)))
    return float(np.mean(best))


def _curves(evaluation: Evaluation, metrics: dict[str, Any]) -> list[list[tuple[float, float]]]:
    detections = Detections.of([one.detections for one in evaluation.findings])
    fields = metrics["protocol"]["fields"]
    curves: list[list[tuple[float, float]]] = []
    for judged in judge_frames(
        detections,
        evaluation.truth,
        len(evaluation.classes),
        ERROR_OVERLAP,
        rule=fields["ap_rule"],
        frames=fields["frames"],
    ):
        if judged.positives == 0:
            curves.append([])
            continue
        precision, recall = precision_recall(judged.verdict == RIGHT, judged.positives)
        some = np.unique(np.searchsorted(recall, np.linspace(0, recall[-1], 150)).clip(0, len(recall) - 1))
        curves.append([(round(float(recall[i]), 4), round(float(precision[i]), 4)) for i in some])
    return curves


def _confusion(evaluation: Evaluation) -> list[list[int]]:
    boxes, classes = BoxFindings.of([one.boxes for one in evaluation.findings]), len(evaluation.classes)
    label = evaluation.truth.label[evaluation.truth.box_tube][boxes.inside].astype(int)
    told = np.where(boxes.seen, boxes.label, classes)[boxes.inside].astype(int)
    table = np.bincount(label * (classes + 1) + told, minlength=classes * (classes + 1))
    return table.reshape(classes, classes + 1).tolist()


def _strip(evaluation: Evaluation, store: Store, place: int) -> dict[str, Any]:
    """Some frames with their tubes side by side in one JPEG, as a data URI."""
    video_id, truth = evaluation.video_ids[place], evaluation.truth.of_video(place)
    frames = sorted({round(frame) for frame in np.linspace(0, int(truth.frames[0]) - 1, SHOTS)})
    shots = []
    for frame in frames:
        pixels = store.frames(video_id, frame, frame + 1)[0]
        scale = 300 / pixels.shape[1]
        shots.append(draw_frame(pixels, frame, truth, evaluation.findings[place].tubes, evaluation.classes, scale))
    width, height = shots[0].size
    sheet = Image.new("RGB", (width * len(shots), height))
    for i, shot in enumerate(shots):
        sheet.paste(shot, (i * width, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=72)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"strip": uri, "shots": len(shots), "aspect": f"{width} / {height}"}


def _video(evaluation: Evaluation, store: Store, place: int, score: float | None) -> dict[str, Any]:
    truth, tubes = evaluation.truth.of_video(place), evaluation.findings[place].tubes
    bars: list[tuple[int, int, int, float | None]] = [
        (int(truth.label[t]), int(truth.first[t]), int(truth.ptr[t + 1] - truth.ptr[t]), None)
        for t in range(len(truth.label))
    ]
    bars += [
        (
            int(tubes.label[t]),
            int(tubes.first[t]),
            int(tubes.ptr[t + 1] - tubes.ptr[t]),
            round(float(tubes.score[t]), 3),
        )
        for t in shown_tubes(tubes)
    ]
    return {
        "id": evaluation.video_ids[place],
        "frames": int(truth.frames[0]),
        "score": score,
        "labels": sorted({int(label) for label in truth.label}),
        "bars": bars,
    } | _strip(evaluation, store, place)


def report_data(metrics: dict[str, Any], evaluation: Evaluation, store: Store, videos: int) -> dict[str, Any]:
    """All that the page shows, for JSON: the figures, curves and confusion, and the best and worst `videos` videos."""
    classes = evaluation.classes
    scores = [video_score(evaluation, place) for place in range(len(evaluation.video_ids))]
    order = sorted((score, place) for place, score in enumerate(scores) if score is not None)
    chosen = [place for _, place in order]
    if len(chosen) > videos:
        chosen = chosen[: videos - videos // 2] + chosen[len(chosen) - videos // 2 :]
    columns = [("frame_ap", "0.5"), *(("video_ap", overlap) for overlap in metrics["video_map"])]
    errors = metrics["errors"]["per_class"]
    return {
        "classes": classes,
        "colours": ["#" + bytes(colour_of(label)).hex() for label in range(len(classes))],
        "headline": [("frame-mAP@0.5", metrics["frame_map"]["0.5"])]
        + [(f"video-mAP@{overlap}", value) for overlap, value in metrics["video_map"].items()],
        "about": [
            ("protocol", f"{metrics['protocol']['name']}. {metrics['protocol']['words']}"),
            ("store", f"{metrics['store']['path']} ({metrics['store']['split']}), {metrics['store']['digest']}"),
            ("checkpoint", f"{metrics['checkpoint']['path']}, step {metrics['checkpoint']['step']}"),
            ("weights", metrics["checkpoint"]["weights"]),
            ("code", f"{metrics['code']['name']} {metrics['code']['version']}"),
            ("scored", ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in metrics["counts"].items())),
        ]
        + [(name.replace("_", " "), ", ".join(values)) for name, values in metrics["left_out"].items() if values],
        "columns": [f"{kind[:5]}@{overlap}" for kind, overlap in columns],
        "table": [[metrics[kind][overlap][name] for kind, overlap in columns] for name in classes],
        "curves": _curves(evaluation, metrics),
        "kinds": list(KINDS.items()),
        "errors": [
            None if errors["AP"][name] is None else [max(0.0, errors[kind][name]) for kind in KINDS] for name in classes
        ],
        "confusion": _confusion(evaluation),
        "videos": [_video(evaluation, store, place, scores[place]) for place in chosen],
    }


def write_report(
    out: Path,
    place: Place | None = None,
    *,
    cache: Path | None = None,
    cache_gb: float = 0.0,
    videos: int = 12,
    page: Path | None = None,
) -> Path:
    """Writes `page`, or `out/report.html`, whole or not at all, and returns its path. See `read_evaluation` for what may
    be wrong.
    """
    metrics, evaluation, store = read_evaluation(out, place, cache, cache_gb)
    data = json.dumps(report_data(metrics, evaluation, store, videos), allow_nan=False).replace("<", "\\u003c")
    page = page or out / "report.html"
    write_atomically(page, PAGE.replace("@DATA@", data).encode())
    return page
