"""The README's own text: its example of own videos is built, and its lines that read a store are run."""

import doctest
import re
import shlex
import sys
from pathlib import Path

import pytest

from data_manifests.layout import ARRAYS
from pipeline.__main__ import main
from tests.pipeline.own_data import moving_square, write_video

README = Path(__file__).resolve().parent.parent / "README.md"


def section(title: str) -> str:
    """The text below a heading."""
    return README.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str) -> list[str]:
    """The indented blocks, without their indent; blank lines do not end one."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("    ") or (not line and found[-1]):
            found[-1].append(line[4:])
        elif found[-1]:
            found.append([])
    return ["\n".join(lines).strip() + "\n" for lines in found if lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's section asks for, built by the README's commands."""
    place = tmp_path_factory.mktemp("readme")
    csv, card, commands = blocks(section("Train on your own videos"))[:3]
    assert csv.startswith("video,tube,class,frame")
    write_video(place / "my" / "videos" / "anna.mp4", moving_square(20, 320, 240))
    (place / "my" / "boxes.csv").write_text(csv)
    (place / "my" / "card.toml").write_text(card)
    of_pipeline = [line for line in commands.splitlines() if line.startswith("python -m pipeline ")]
    assert len(of_pipeline) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for line in of_pipeline:
            patch.setattr(sys, "argv", shlex.split(line)[2:])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 0, line
    return place


def test_the_store_of_own_videos_reads_as_the_readme_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    lines = next(block for block in blocks(section("The store")) if block.startswith(">>>"))
    test = doctest.DocTestParser().get_doctest(lines, {}, "README.md", str(README), 0)
    said: list[str] = []
    result = doctest.DocTestRunner().run(test, out=said.append)
    assert result.attempted == 9
    assert result.failed == 0, "".join(said)


def test_the_picture_is_there_and_small() -> None:
    (name,) = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", README.read_text())
    assert 10_000 < (README.parent / name).stat().st_size < 150_000


def test_the_readme_stays_short() -> None:
    assert len(README.read_text().splitlines()) < 500


def test_it_describes_every_array_of_a_shard() -> None:
    rows = re.findall(r"^\| (\w+/\w+) \| (\w+) \| \((\w+)", section("The store"), re.MULTILINE)
    assert rows == [(name, kind, shape[1]) for name, (kind, shape) in ARRAYS.items()]
