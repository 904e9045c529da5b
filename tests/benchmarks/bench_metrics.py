"""Frame NMS and AP, video-AP, and the whole of UCF101-24 in time and memory."""

from __future__ import annotations

import time

import numpy as np

from tests.benchmarks.harness import Row, compare, machine
from tests.oracles import frame_metrics, video_metrics
from tests.trainer.detection.tubelet_cases import class_starts_of, random_tubelets
from trainer.detection.link import link
from trainer.detection.tubelets import frame_detections
from trainer.metrics.frame import Detections, judge_frames
from trainer.metrics.truth import Truth
from trainer.metrics.video import STRICT_TO_LOOSE, TubeDetections, overlap_tubes, video_ap

CLASSES = 24
UCF_VIDEOS, UCF_FRAMES = 910, 187


def _videos(videos: int, frames: int, a_start: int) -> tuple[list, list, Truth]:
    random = np.random.default_rng(0)
    tubelets = [random_tubelets(i, frames=frames, classes=CLASSES, a_start=a_start) for i in range(videos)]
    tubes = []
    for video in range(videos):
        corner = random.uniform(20, 150, 2) + random.uniform(-1, 1, 2) * np.arange(frames)[:, None]
        tubes.append((video, video % CLASSES, 0, np.concatenate((corner, corner + 60), 1).astype(np.float32)))
    return tubelets, tubes, Truth.of([frames] * videos, tubes)


def bench() -> list[Row]:
    """Against the plain ports; the last row's peer is the two minutes that the issue grants."""
    tubelets, tubes, truth = _videos(6, 40, 60)
    starts = [class_starts_of(one) for one in tubelets]

    def frames_and_ap() -> None:
        detections = Detections.of([frame_detections(one) for one in tubelets])
        for judged in judge_frames(detections, truth, CLASSES, 0.5):
            judged.ap("act")

    def plain_frames_and_ap() -> None:
        rows = [frame_metrics.frame_detections(40, one, CLASSES) for one in starts]
        joined = np.concatenate([np.insert(one, 0, i, 1) for i, one in enumerate(rows)])
        for label in range(CLASSES):
            kinds, positives = frame_metrics.verdicts(joined, tubes, label, 0.5)
            if positives:
                curve = frame_metrics.curve(kinds, positives)
                frame_metrics.area_under(curve[:, 0], curve[:, 1])

    found = TubeDetections.of([link(one) for one in tubelets])
    flat = [
        (int(found.video[t]), int(found.label[t]), found.score[t], int(found.first[t]),
         found.boxes[found.ptr[t] : found.ptr[t + 1]])
        for t in range(len(found.label))
    ]  # fmt: skip

    def plain_video_ap() -> None:
        for threshold in STRICT_TO_LOOSE:
            for label in range(CLASSES):
                video_metrics.video_right(flat, tubes, label, threshold)

    return [
        compare(
            "frame NMS and frame-AP",
            frames_and_ap,
            plain_frames_and_ap,
            peer_name="plain load_frame_detections and frameAP",
            samples=3,
            subject_repeat=3,
            wanted=30,
        ),
        compare(
            "video-AP at ten overlaps",
            lambda: video_ap(overlap_tubes(found, truth, CLASSES), STRICT_TO_LOOSE),
            plain_video_ap,
            peer_name="plain videoAP",
            samples=3,
            subject_repeat=5,
            wanted=10,
        ),
        _ucf(),
    ]


def _ucf() -> Row:
    """Frame-mAP of 910 videos of 187 frames, 300 class tubelets a start (made once for 10 videos, and used again)."""
    patterns = [random_tubelets(i, frames=UCF_FRAMES, classes=CLASSES, actors=6, a_start=300) for i in range(10)]
    _, _, truth = _videos(UCF_VIDEOS, UCF_FRAMES, 1)
    begun = time.perf_counter()
    detections = Detections.of([frame_detections(patterns[video % 10]) for video in range(UCF_VIDEOS)])
    for judged in judge_frames(detections, truth, CLASSES, 0.5):
        judged.ap("act")
    seconds = time.perf_counter() - begun
    return Row(
        name=f"frame-mAP of {UCF_VIDEOS} videos, {UCF_VIDEOS * UCF_FRAMES} frames, 300 tubelets a start",
        subject=f"{seconds:.1f} s, {len(detections.label)} detections",
        peer="120 s",
        ratio=120 / seconds,
        spread=(120 / seconds, 120 / seconds),
        samples=1,
        machine=machine(),
        wanted=1,
    )
