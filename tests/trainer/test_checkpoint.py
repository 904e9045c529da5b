"""A checkpoint is whole or not there; the newest whole one is found."""

from __future__ import annotations

import errno
import io
import os
import resource
import zipfile
from pathlib import Path

import pytest
import torch

from data_manifests.errors import InputError
from data_manifests.prior_spec import ACT300
from trainer import checkpoint
from trainer.checkpoint import CheckpointMeta, load_model, newest_checkpoint, read_checkpoint, save_checkpoint
from trainer.model import ActNet
from trainer.model.initial import initialise
from trainer.seal import check_seal, seal

META = CheckpointMeta(
    7, 2, ("Up", "Down"), 1 / 16, "none", ACT300, "digest", {"batch": 4}, 0.25, "6", ((5.0, 1.0, 0.5, 0.5, 9.0, 0.0),)
)


@pytest.fixture(scope="module")
def network() -> ActNet:
    model = ActNet(ACT300, 2, 2, 1 / 16)
    initialise(model, 1)
    return model


def _save(network: ActNet, path: Path, meta: CheckpointMeta = META, average: ActNet | None = None) -> Path:
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    save_checkpoint(path, network, optimiser, meta, average)
    return path


def test_what_is_saved_is_loaded(network: ActNet, tmp_path: Path) -> None:
    path = _save(network, tmp_path / "step-00000007.pt")
    assert read_checkpoint(path)[1] == META
    loaded, _ = load_model(path)
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_momentum_goes_on(network: ActNet, tmp_path: Path) -> None:
    optimiser = torch.optim.SGD(network.parameters(), 0.0, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    save_checkpoint(tmp_path / "a.pt", network, optimiser, META)
    state = read_checkpoint(tmp_path / "a.pt")[0]["optimiser"]
    assert len(state) == len(list(network.parameters()))
    assert all((entry["momentum_buffer"] == 1).all() for entry in state.values())


@pytest.mark.parametrize("place", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("fault", ["flip", "cut"])
def test_a_damaged_one_is_named_and_passed_over(fault: str, place: float, network, tmp_path: Path, capsys) -> None:
    good = _save(network, tmp_path / "step-00000003.pt")
    bad = _save(network, tmp_path / "step-00000007.pt")
    content = bytearray(bad.read_bytes())
    at = int(len(content) * place)
    if fault == "flip":
        content[at : at + 64] = bytes(byte ^ 0xFF for byte in content[at : at + 64])
    bad.write_bytes(content if fault == "flip" else content[:at])
    with pytest.raises(InputError, match=r"step-00000007\.pt is damaged"):
        read_checkpoint(bad)
    assert newest_checkpoint(tmp_path) == good
    assert "warning: checkpoint" in capsys.readouterr().err


def _sealed(path: Path, content: object) -> Path:
    memory = io.BytesIO()
    torch.save(content, memory)
    seal(memory)
    path.write_bytes(memory.getvalue())
    return path


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    """Also where the archive's own checksums do not reach: in its headers, its directory, its end, and the checksum."""
    path = _sealed(tmp_path / "a.pt", {"a": torch.ones(3)})
    with open(path, "r+b", buffering=0) as file:
        content = file.read()
        for bit in range(0, 8 * len(content), 3):  # three and eight have no common divisor: each bit of some bytes
            for byte in (content[bit // 8] ^ 1 << bit % 8, content[bit // 8]):
                file.seek(bit // 8)
                file.write(bytes([byte]))
                if byte != content[bit // 8]:
                    with pytest.raises(ValueError):  # noqa: PT011  (how it was seen differs)
                        check_seal(path)
    check_seal(path)


def test_a_tensor_that_turns_into_a_folder_is_not_read_as_whatever_was_in_memory(network, tmp_path: Path) -> None:
    good = _save(network, tmp_path / "step-00000003.pt")
    bad = _save(network, tmp_path / "step-00000007.pt")
    content = bytearray(bad.read_bytes())
    with zipfile.ZipFile(bad) as archive:
        content[archive.start_dir + 38] |= 16
    bad.write_bytes(content)
    assert newest_checkpoint(tmp_path) == good
    with zipfile.ZipFile(bad) as archive:
        assert archive.testzip() is None, "the archive sees nothing"


def test_torch_reads_it_and_what_was_saved_before_there_were_checksums_is_read(network, tmp_path: Path) -> None:
    path = _save(network, tmp_path / "step-00000007.pt")
    content = torch.load(path, mmap=True)
    assert torch.equal(content["model"]["conf.0.weight"], network.conf[0].weight)
    before = tmp_path / "before.pt"
    torch.save(content, before)
    assert read_checkpoint(before)[1] == META
    damaged = bytearray(before.read_bytes())
    with zipfile.ZipFile(before) as archive:
        damaged[archive.start_dir + 10] ^= 8  # the kind of compression: its bytes do not unpack
    before.write_bytes(damaged)
    with pytest.raises(InputError, match=r"before\.pt is damaged"):
        read_checkpoint(before)


def test_one_on_a_bad_sector_is_passed_over_but_not_one_that_may_not_be_read(network, tmp_path, monkeypatch) -> None:
    good, bad = (_save(network, tmp_path / f"step-0000000{step}.pt") for step in (3, 7))
    number = errno.EIO

    def read(path: Path, mode: str):
        if path == bad:
            raise OSError(number, os.strerror(number), str(path))
        return open(path, mode)

    monkeypatch.setattr("trainer.seal.open", read, raising=False)
    assert newest_checkpoint(tmp_path) == good
    number = errno.EACCES
    with pytest.raises(PermissionError):
        newest_checkpoint(tmp_path)


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", [b"", b"text", {"version": 0}, {"version": 1, "meta": {}}, [1], {"0.weight": 1}])
def test_another_file_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match="damaged or not one of"):
        read_checkpoint(path)


def test_a_hostile_one_is_refused_without_the_advice_to_load_it(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"version": 1, "meta": Hostile()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="asks for more than tensors") as refused:
        read_checkpoint(tmp_path / "a.pt")
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "owned").exists()


def test_a_full_disk_leaves_the_old_one(network: ActNet, tmp_path: Path) -> None:
    path = _save(network, tmp_path / "step-00000007.pt")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError) as failed:  # noqa: PT011  (the number is asserted)
            _save(network, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_the_last_few_and_the_best_are_kept(network: ActNet, tmp_path: Path) -> None:
    for step in (3, 10, 200):
        _save(network, checkpoint.checkpoint_path(tmp_path, step))
    _save(network, tmp_path / "best.pt")
    half, others = tmp_path / ".step-00000200.pt.1.new", tmp_path / "evaluation-1/detections/.v.npz.2.new"
    others.parent.mkdir(parents=True)
    for path in (half, others):
        path.write_bytes(b"")
    checkpoint.prune_checkpoints(tmp_path, 2, 200)
    assert not half.exists(), "what a killed training left"
    assert others.exists(), "an evaluation may be at work"
    assert checkpoint.steps_saved(tmp_path) == [10, 200]
    assert (tmp_path / "best.pt").exists()


def test_what_was_just_saved_is_kept_and_those_of_later_steps_are_let_alone(network, tmp_path: Path) -> None:
    for step in (3, 4, 6):
        _save(network, checkpoint.checkpoint_path(tmp_path, step))
    checkpoint.prune_checkpoints(tmp_path, 1, 4)
    assert checkpoint.steps_saved(tmp_path) == [4, 6]
    assert sorted(os.listdir(tmp_path)) == ["step-00000004.pt", "step-00000006.pt"]


def test_weights_that_do_not_fit_their_own_description_are_refused(network: ActNet, tmp_path: Path) -> None:
    other = CheckpointMeta(7, 2, ("Up", "Down", "Left"), 1 / 16, "none", ACT300, "digest", {})
    with pytest.raises(InputError, match="do not fit"):
        load_model(_save(network, tmp_path / "a.pt", other))
