"""The last step of `make demo`: prints the figures of K = 6 beside those of K = 1, and says where to look."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

LEAST = {"frame_map": 0.85, "video_map": 0.80}
LEAST_GAP = 0.20
"""In video-mAP@0.5, between K = 6 and K = 1: what motion is worth here."""


def main(demo: Path) -> int:
    """Copies the figures of K = 6 to metrics.json; 1 if the demo did not reach what it promises."""
    shutil.copyfile(demo / "metrics-K6.json", demo / "metrics.json")
    six, one = (json.loads((demo / f"metrics-K{K}.json").read_text()) for K in (6, 1))
    print("\nthe demo's test videos        K = 6    K = 1")
    for name, words in (("frame_map", "frame-mAP"), ("video_map", "video-mAP")):
        for threshold in six[name]:
            print(f"{words}@{threshold:<18} {six[name][threshold]:7.3f}  {one[name][threshold]:7.3f}")
    gap = six["video_map"]["0.5"] - one["video_map"]["0.5"]
    reached = all(six[name]["0.5"] >= least for name, least in LEAST.items()) and gap >= LEAST_GAP
    print(
        f"six frames are worth {100 * gap:.1f} points of video-mAP@0.5" + ("" if reached else " (LESS THAN PROMISED)")
    )
    print(f"look at the detections on test videos: {demo}/evaluation-K6/pictures, and the scores: {demo}/metrics.json")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
