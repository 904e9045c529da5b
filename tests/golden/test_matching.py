"""Every row of the original's matching: the same priors, tubes, labels, overlaps and offsets, bit for bit."""

from pathlib import Path

import numpy as np
import pytest

from data_manifests.prior_spec import ACT300
from pipeline.matching import Match, MatchRule, encode_rows, match_clip, prior_grid
from pipeline.prior_search import mean_iou
from tests.oracles import matching as plain

GRID, RULE = prior_grid(ACT300), MatchRule()


@pytest.fixture(scope="module")
def data(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "matching.npz", allow_pickle=False))


def _check(data: dict[str, np.ndarray], row: int, match: Match) -> None:
    case = f"row {row}: {data['kind'][row]} {data['name'][row]} {data['frame'][row]}"
    expected = slice(data["m_ptr"][row], data["m_ptr"][row + 1])
    np.testing.assert_array_equal(match.prior, data["m_prior"][expected], err_msg=case)
    np.testing.assert_array_equal(match.tube, data["m_gt"][expected], err_msg=case)
    for ours, theirs in ((match.overlap, data["m_overlap"]), (match.loc.reshape(-1, 24), data["m_enc"])):
        np.testing.assert_array_equal(ours.view(np.uint32), theirs[expected].view(np.uint32), err_msg=case)
    labels = data["gt_labels"][data["gt_ptr"][row] : data["gt_ptr"][row + 1]]
    dense = np.zeros(len(GRID.boxes), np.uint8)
    dense[match.prior] = labels[match.tube]
    np.testing.assert_array_equal(dense, data["prior_label"][row], err_msg=case)


def test_every_clip_is_matched_and_encoded_as_the_original_does(data: dict[str, np.ndarray]) -> None:
    for row in range(len(data["name"])):
        boxes = data["gt_boxes"][data["gt_ptr"][row] : data["gt_ptr"][row + 1]]
        _check(data, row, match_clip(boxes, GRID, RULE))


def test_plain_numpy_matches_as_the_original_too(data: dict[str, np.ndarray]) -> None:
    for row in range(0, len(data["name"]), 5):
        boxes = data["gt_boxes"][data["gt_ptr"][row] : data["gt_ptr"][row + 1]]
        prior, tube, overlap = plain.match(boxes, GRID.boxes)
        loc = np.zeros((len(prior), *boxes.shape[1:]), np.float32)
        encode_rows(boxes, GRID.boxes, prior, tube, np.array(RULE.variances, np.float32), loc)
        _check(data, row, Match(prior, tube, overlap, loc))


def test_overlaps_of_all_priors_are_the_originals(data: dict[str, np.ndarray]) -> None:
    for row, theirs in zip(data["full_overlap_clip"], data["full_overlap"], strict=True):
        boxes = data["gt_boxes"][data["gt_ptr"][row] : data["gt_ptr"][row + 1]]
        ours = plain.overlaps(boxes, GRID.boxes).max(1, initial=0)
        ours[ours <= np.float32(plain.LEAST_OVERLAP)] = 0
        matched = slice(data["m_ptr"][row], data["m_ptr"][row + 1])
        ours[data["m_prior"][matched]] = data["m_overlap"][matched]  # with the prior's tube, be it not its best
        np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32), err_msg=f"row {row}")
        if len(boxes):
            some = np.setdiff1d(np.argsort(theirs)[-40:], data["m_prior"][matched])
            kernel = np.array([max(mean_iou(GRID.boxes[p], tube) for tube in boxes) for p in some], np.float32)
            np.testing.assert_array_equal(
                np.where(kernel > plain.LEAST_OVERLAP, kernel, 0), theirs[some], err_msg=f"row {row}"
            )
