"""Annotation files of any format to the two tables, with every oddity repaired or refused by a named rule."""

from pipeline.annotations.read import read_annotations, read_ids
from pipeline.annotations.rules import Annotations, Oddity, RawTube, RawVideo

__all__ = ["Annotations", "Oddity", "RawTube", "RawVideo", "read_annotations", "read_ids"]
