"""Annotation files of any format to the two tables, with every oddity repaired or refused by a named rule."""

from pipeline.annotations.read import counts_frames, read_annotations, read_ids
from pipeline.annotations.rules import Annotations, Oddity, RawTube, RawVideo

__all__ = ["Annotations", "Oddity", "RawTube", "RawVideo", "counts_frames", "read_annotations", "read_ids"]
