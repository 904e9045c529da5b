"""The original's detection output of one clip: decode, softmax, class NMS, best of all classes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from trainer.detection.clip_output import class_detections
from trainer.detection.decode import class_scores, decode


@pytest.fixture(scope="module")
def files(golden):
    return dict(np.load(golden / "detection.npz")), dict(np.load(golden / "priors.npz"))


def _network_output(case, i, P):
    """loc (P, K, 4) and conf (P, labels) of case i, by the recipe of golden/README.md."""
    random = np.random.RandomState(case["seed"][i])
    loc = (random.standard_normal((P, case["det"].shape[1] - 2)) * case["loc_scale"][i]).astype("f4")
    labels = case["decode"].shape[2] - loc.shape[1]
    conf = (random.standard_normal((P, labels)) * case["conf_scale"][i]).astype("f4")
    conf[:, 0] += np.float32(case["bg"][i])
    if case["one"][i] >= 0:
        conf[:, case["one"][i]] += 6
    for q in range(case["ov_ptr"][i], case["ov_ptr"][i + 1]):
        conf[case["ov_prior"][q], case["ov_class"][q]] += case["ov_delta"][q]
        loc[case["ov_prior"][q]] = case["ov_loc"][q]
    assert hashlib.sha256(loc.tobytes()).hexdigest() == case["sha_loc"][i], "not the recipe's input"
    assert hashlib.sha256(conf.tobytes()).hexdigest() == case["sha_conf"][i], "not the recipe's input"
    return loc.reshape(P, -1, 4), conf


def test_every_case(files):
    case, priors = files
    boxes_of = torch.from_numpy(priors["boxes"])
    variances = tuple(priors["variances"].tolist())
    for i, name in enumerate(case["name"]):
        loc, conf = _network_output(case, i, len(boxes_of))
        boxes = decode(torch.from_numpy(loc), boxes_of, variances).numpy()
        scores = class_scores(torch.from_numpy(conf)).numpy()

        some, decoded = case["decode_prior"], case["decode"][i]
        width = loc.shape[1] * 4
        np.testing.assert_allclose(boxes[some].reshape(len(some), -1), decoded[:, :width], rtol=1e-5, atol=5e-7)
        np.testing.assert_allclose(scores[some], decoded[:, width:], rtol=2e-6, atol=1e-9)

        rows, labels, values = class_detections(boxes, scores)
        expected = case["det"][case["det_ptr"][i] : case["det_ptr"][i + 1]]
        expected_rows = case["det_prior"][case["det_ptr"][i] : case["det_ptr"][i + 1]]
        assert len(rows) == len(expected), name
        np.testing.assert_allclose(np.sort(values), np.sort(expected[:, 1]), rtol=2e-6, err_msg=name)
        decided = case["margin_nms"][i] > 1e-6 and case["margin_thr"][i] > 2e-9 and case["margin_keep"][i] > 1e-7
        if not decided:
            continue  # a tie at the cut: the original's unstable sort keeps some of several equals
        np.testing.assert_array_equal(labels, expected[:, 0], err_msg=name)
        place = {
            (int(label), int(row)): j for j, (label, row) in enumerate(zip(expected[:, 0], expected_rows, strict=True))
        }
        same = np.array([place[int(label), int(row)] for label, row in zip(labels, rows, strict=True)], np.int64)
        assert len(np.unique(same)) == len(expected), name
        # the same order, but for scores that float32 cannot tell apart
        moved = np.flatnonzero(same != np.arange(len(same)))
        np.testing.assert_allclose(expected[same[moved], 1], expected[moved, 1], rtol=1e-6, err_msg=name)
        ours = boxes[rows].reshape(len(rows), width)
        np.testing.assert_allclose(ours, expected[same, 2:], rtol=1e-5, atol=5e-7, err_msg=name)
