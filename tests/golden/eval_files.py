"""Reads the golden evaluation files (schemas in golden/README.md) as this project's types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.detection.tubelets import VideoTubelets
from trainer.metrics.truth import Truth


@dataclass(frozen=True)
class EvalFiles:
    """Tubelets of each video, their ground truth, and what the original made of them."""

    tubelets: list[VideoTubelets]
    truth: Truth
    expected: dict
    frame_detections: dict[str, np.ndarray]
    tubes: dict[str, np.ndarray]

    @property
    def classes(self) -> int:
        return len(self.expected["labels"])


def read_eval_files(golden: Path) -> EvalFiles:
    """Everything of `eval_inputs.npz`, `eval_expected*` and the videos' tubes from `annots_index.npz`."""
    inputs = dict(np.load(golden / "eval_inputs.npz"))
    annotations = dict(np.load(golden / "annots_index.npz"))
    K = inputs["all_boxes4"].shape[1] // 4
    tubelets, tubes = [], []
    names = {name: place for place, name in enumerate(annotations["video"])}
    bounds = np.append(0, np.cumsum(annotations["tube_len"]))
    for video, name in enumerate(inputs["video"]):
        starts = np.flatnonzero(inputs["start_video"] == video)
        begun = int((inputs["start_video"] < video).sum())  # a video shorter than K has no start
        any_begin, class_begin = inputs["all_ptr"][begun], inputs["det_ptr"][begun]
        any_ptr = np.append(any_begin, inputs["all_ptr"][starts + 1]).astype(np.int64)
        class_ptr = np.append(class_begin, inputs["det_ptr"][starts + 1]).astype(np.int64)
        boxes = (inputs["all_boxes4"][any_begin : any_ptr[-1]] / np.float32(4)).astype(np.float32).reshape(-1, K, 4)
        scores = inputs["all_scores"][any_begin : any_ptr[-1]]
        rows = inputs["det_row"][class_begin : class_ptr[-1]] + np.repeat(any_ptr[:-1] - any_begin, np.diff(class_ptr))
        labels = inputs["det_label"][class_begin : class_ptr[-1]].astype(np.int16)
        tubelets.append(
            VideoTubelets(
                int(inputs["nframes"][video]),
                class_ptr - class_begin,
                labels,
                scores[rows, 1 + labels],
                boxes[rows],
                any_ptr - any_begin,
                scores,
                boxes,
            )
        )
        for tube in np.flatnonzero(annotations["tube_video"] == names[name]):
            tubes.append(
                (
                    video,
                    int(annotations["tube_label"][tube]),
                    int(annotations["tube_start"][tube]) - 1,
                    annotations["boxes"][bounds[tube] : bounds[tube + 1]].astype(np.float32),
                )
            )
    return EvalFiles(
        tubelets,
        Truth.of(inputs["nframes"].tolist(), tubes),
        json.loads((golden / "eval_expected.json").read_text()),
        dict(np.load(golden / "eval_expected_frame_dets.npz")),
        dict(np.load(golden / "eval_expected_tubes.npz")),
    )
