"""Names of the rules that a figure can be scored by."""

from typing import Literal

ApRule = Literal["act", "voc", "coco"]
"""How detections are matched and average precision is taken."""
FrameRule = Literal["all", "annotated"]
"""Which frames frame-AP counts."""
