"""The protocol that a figure was scored by, as fields and in words: without it the figure means nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trainer.detection.clip_output import ACT_RULE, DetectionRule
from trainer.detection.link import ACT_LINKS, LinkRule
from trainer.metrics.rules import ApRule, FrameRule

_AP_WORDS = {
    "act": "trapezoids under the raw precision-recall curve from (1, 0); "
    "a detection takes the free ground truth it overlaps most",
    "voc": "PASCAL VOC 2010: area under the monotone envelope; a second detection of a ground truth is wrong",
    "coco": "COCO: mean precision at 101 recalls of the envelope; "
    "a detection takes the free ground truth it overlaps most",
}
_FRAME_WORDS = {
    "all": "every frame of the test videos counts, also those that show no actor",
    "annotated": "only frames with ground truth count; detections elsewhere are left out",
}


@dataclass(frozen=True)
class Protocol:
    """All that decides a figure besides the network and the data. The defaults are ACT's (Kalogeiton et al., ICCV
    2017).

    Args:
        ap_rule: matching and average precision, of frames and of videos.
        frames: which frames frame-AP counts.
        link: how tubelets become tubes.
        frame_overlap: box NMS among a frame's detections of one class.
        detection: choice of tubelets in a clip.
        links: constants of the linking.
    """

    ap_rule: ApRule = "act"
    frames: FrameRule = "all"
    link: Literal["act"] = "act"
    frame_overlap: float = 0.3
    detection: DetectionRule = field(default=ACT_RULE)
    links: LinkRule = field(default=ACT_LINKS)

    @property
    def name(self) -> str:
        """In a few words."""
        return f"{self.ap_rule}, {self.frames} frames, {self.link} links"

    @property
    def file_name(self) -> str:
        """Of its figures beside the detections."""
        return f"metrics-{self.ap_rule}-{self.frames}-frames.json"

    def fields(self) -> dict[str, Any]:
        """Every setting, for JSON."""
        return asdict(self) | {"pixels": "inclusive", "means": "over classes with ground truth"}

    def words(self) -> str:
        """The protocol in a paragraph."""
        found, links = self.detection, self.links
        return (
            f"AP: {_AP_WORDS[self.ap_rule]}. Frames: {_FRAME_WORDS[self.frames]}. "
            "Boxes are in pixels of the decoded frame, and pixels are inclusive (+1 in widths, heights and areas). "
            f"Tubelets: class scores above {found.score_above:g}, NMS {found.class_overlap:g} per class on mean IoU, "
            f"best {found.keep} a clip; each lends its score to its frames, where boxes pass NMS "
            f"{self.frame_overlap:g}. Tubes ({self.link}): from the best {found.candidates} tubelets a clip after NMS "
            f"{found.candidate_overlap:g}, per class NMS {links.start_overlap:g} and best {links.start_top} a start, "
            f"linked at mean IoU >= {links.link_overlap:g}, ended after {links.misses} starts, at least "
            f"{links.least_frames} frames, mean score >= {links.least_score:g}, NMS {links.tube_overlap:g} on "
            "space-time IoU. Means are over the classes with ground truth."
        )


ACT = Protocol()
ALL_PROTOCOLS = tuple(
    Protocol(ap_rule=ap_rule, frames=frames) for frames in ("all", "annotated") for ap_rule in ("act", "voc", "coco")
)
"""The published protocols that the same detections can be scored by."""
