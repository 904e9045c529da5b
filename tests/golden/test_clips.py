"""The clip list of the original: video, first frame, number of tubes."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from data_manifests.tables import TUBES, VIDEOS, box_column
from pipeline.clips import index_clips

K = 6


def test_the_clip_list_is_the_originals(golden: Path) -> None:
    data = dict(np.load(golden / "annots_index.npz", allow_pickle=False))
    count = len(data["video"])
    columns = [
        pa.array(data["video"].tolist()),
        pa.array(np.where(data["is_test"], "test", "train").tolist()),
        pa.array(data["nframes"].astype(np.int32)),
        pa.array(np.full(count, 320, np.int32)),
        pa.array(np.full(count, 240, np.int32)),
        pa.array([""] * count),
    ]
    videos = pa.Table.from_arrays(columns, schema=VIDEOS)
    cuts = np.cumsum(data["tube_len"])[:-1]
    tubes = pa.Table.from_arrays(
        [
            pa.array(data["video"][data["tube_video"]].tolist()),
            pa.array(np.arange(len(data["tube_video"]), dtype=np.int32)),
            pa.array(data["tube_label"].astype(np.int32)),
            pa.array(data["tube_start"].astype(np.int32) - 1),
            box_column([boxes.astype(np.float32) for boxes in np.split(data["boxes"], cuts)]),
        ],
        schema=TUBES,
    )
    clips = index_clips(videos, tubes, K)
    train = ~data["is_test"][clips.video]
    theirs = np.repeat(np.arange(count), np.diff(data["clip_ptr"]))
    np.testing.assert_array_equal(clips.video[train], theirs)
    np.testing.assert_array_equal(clips.first_frame[train], data["clip_start"].astype(np.int64) - 1)
    np.testing.assert_array_equal(clips.tubes[train], data["clip_ngt"])
