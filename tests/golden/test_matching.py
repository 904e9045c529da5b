"""Every row of the original's matching: the same priors, tubes, labels, overlaps and offsets, bit for bit."""

from pathlib import Path

import numpy as np

from data_manifests.prior_spec import ACT300
from pipeline.matching import MatchRule, match_clip, prior_grid


def test_every_clip_is_matched_and_encoded_as_the_original_does(golden: Path) -> None:
    data = dict(np.load(golden / "matching.npz", allow_pickle=False))
    grid, rule = prior_grid(ACT300), MatchRule()
    for row in range(len(data["name"])):
        case = f"row {row}: {data['kind'][row]} {data['name'][row]} {data['frame'][row]}"
        tubes = slice(data["gt_ptr"][row], data["gt_ptr"][row + 1])
        expected = slice(data["m_ptr"][row], data["m_ptr"][row + 1])
        boxes, labels = data["gt_boxes"][tubes], data["gt_labels"][tubes]
        match = match_clip(boxes, grid, rule)
        np.testing.assert_array_equal(match.prior, data["m_prior"][expected], err_msg=case)
        np.testing.assert_array_equal(match.tube, data["m_gt"][expected], err_msg=case)
        np.testing.assert_array_equal(match.overlap, data["m_overlap"][expected], err_msg=case)
        np.testing.assert_array_equal(match.loc.reshape(-1, 24), data["m_enc"][expected], err_msg=case)
        dense = np.zeros(len(grid.boxes), np.uint8)
        dense[match.prior] = labels[match.tube]
        np.testing.assert_array_equal(dense, data["prior_label"][row], err_msg=case)
