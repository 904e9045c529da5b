"""The loss against the original layer's totals, counts, mined sets and gradients."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.gpu import needs_gpu
from trainer.loss import tubelet_loss

# float32 sums over some thousand terms against the original's
RELATIVE = 2e-5


def _inputs(data: dict, k: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(data["seed"][k])
    loc = (random.standard_normal((5, 8396, 24)) * data["loc_scale"][k]).astype("f4")
    conf = (random.standard_normal((5, 8396, 25)) * data["conf_scale"][k]).astype("f4")
    conf[:, :, 0] += np.float32(data["bg"][k])
    for q in range(data["ov_ptr"][k], data["ov_ptr"][k + 1]):
        _, b, p = data["ov_batch_item_prior"][q]
        conf[b, p, data["ov_class"][q]] += 10
        loc[b, p] = data["ov_loc"][q]
    assert hashlib.sha256(loc.tobytes()).hexdigest() == str(data["sha_loc"][k])
    assert hashlib.sha256(conf.tobytes()).hexdigest() == str(data["sha_conf"][k])
    return loc, conf


def _targets(matching: dict, clips: np.ndarray, device: str) -> dict:
    sample, prior, label, target = [], [], [], []
    for b, clip in enumerate(clips):
        rows = slice(matching["m_ptr"][clip], matching["m_ptr"][clip + 1])
        labels = matching["gt_labels"][matching["gt_ptr"][clip] : matching["gt_ptr"][clip + 1]]
        prior.append(matching["m_prior"][rows].astype(np.int64))
        label.append(labels[matching["m_gt"][rows]].astype(np.int64))
        target.append(matching["m_enc"][rows].reshape(-1, 6, 4).astype("f4"))
        sample.append(np.full(len(prior[-1]), b, np.int64))
    empty = torch.zeros(0, dtype=torch.int64, device=device)
    return {
        "sample": torch.from_numpy(np.concatenate(sample)).to(device),
        "prior": torch.from_numpy(np.concatenate(prior)).to(device),
        "label": torch.from_numpy(np.concatenate(label)).to(device),
        "target": torch.from_numpy(np.concatenate(target)).to(device),
        "ignored_sample": empty,
        "ignored_prior": empty,
        "positives": tuple(map(len, prior)),
        "normaliser": torch.tensor(float(sum(map(len, prior))), device=device),
    }


def _rows(gradient: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    flat = gradient.flatten(0, 1).flatten(1).cpu().numpy()
    rows = np.flatnonzero(np.any(flat != 0, axis=1))
    return rows, flat[rows]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_every_batch_has_the_originals_loss_negatives_and_gradients(device: str, golden: Path) -> None:
    data = dict(np.load(golden / "loss.npz", allow_pickle=False))
    matching = dict(np.load(golden / "matching.npz", allow_pickle=False))
    for k in range(len(data["seed"])):
        loc, conf = _inputs(data, k)
        loc_t = torch.from_numpy(loc).view(5, 8396, 6, 4).to(device).requires_grad_()
        conf_t = torch.from_numpy(conf).to(device).requires_grad_()
        targets = _targets(matching, data["clips"][k], device)
        losses = tubelet_loss(loc_t, conf_t, **targets)
        total, loc_sum, conf_sum, num_matches, num_conf = data["res64"][k]
        matches = max(1.0, num_matches)
        assert sum(targets["positives"]) == num_matches
        np.testing.assert_allclose(losses.total.item(), total, rtol=RELATIVE, atol=1e-7)
        np.testing.assert_allclose(losses.loc.item() * matches * 6, loc_sum, rtol=RELATIVE, atol=1e-7)
        np.testing.assert_allclose(losses.conf.item() * matches, conf_sum, rtol=RELATIVE, atol=1e-7)
        assert sum(targets["positives"]) + int(losses.is_mined.sum()) == num_conf
        losses.total.backward()
        np.testing.assert_array_equal(
            _rows(loc_t.grad)[0], data["gloc_row"][data["gloc_ptr"][k] : data["gloc_ptr"][k + 1]]
        )
        np.testing.assert_allclose(
            _rows(loc_t.grad)[1], data["gloc"][data["gloc_ptr"][k] : data["gloc_ptr"][k + 1]], rtol=RELATIVE, atol=1e-7
        )
        if data["ties"][k]:
            continue
        mined = np.sort(losses.mined[losses.is_mined].cpu().numpy())
        for b in range(5):
            expected = data["neg"][data["neg_ptr"][k * 5 + b] : data["neg_ptr"][k * 5 + b + 1]]
            np.testing.assert_array_equal(mined[mined // 8396 == b] - b * 8396, expected)
        rows, gradient = _rows(conf_t.grad)
        expected_rows = data["gconf_row"][data["gconf_ptr"][k] : data["gconf_ptr"][k + 1]]
        expected = data["gconf"][data["gconf_ptr"][k] : data["gconf_ptr"][k + 1]]
        dense = np.zeros((5 * 8396, 25))
        dense[rows] = gradient
        np.testing.assert_allclose(dense[expected_rows], expected, rtol=RELATIVE, atol=1e-7)
        dense[expected_rows] = 0
        assert np.abs(dense).max() < 1e-7
