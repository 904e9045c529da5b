"""Cards: those that come along, and every way to get one's own wrong."""

from pathlib import Path

import pytest

from data_manifests.card import known_cards, load_card
from data_manifests.did_you_mean import did_you_mean
from data_manifests.errors import InputError
from data_manifests.prior_spec import ACT300, PriorLayer
from tests.pipeline.own_data import CARD


@pytest.mark.parametrize("name", known_cards())
def test_every_card_that_comes_along_loads(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert card.priors == ACT300
    assert sorted(card.mirrored) == list(range(len(card.classes))), "mirroring is a permutation"


def test_ucf101_has_the_classes_in_the_order_of_the_labels() -> None:
    card = load_card("ucf101")
    assert len(card.classes) == 24
    assert card.classes == tuple(sorted(card.classes, key=str.lower))
    assert card.mirrored == tuple(range(24))


@pytest.mark.parametrize("split", ["0", "1.5", '"1"'])
def test_the_split_of_a_pickle_of_acts(split: str, tmp_path: Path) -> None:
    card = (
        CARD.replace('"csv"', '"act"').replace("box_width = 64\nbox_height = 48\n", "").replace("first_frame = 1\n", "")
    )
    for line, message in ((f"split = {split}", "must be a number from 1 on"), ('test_lists = ["a"]', "test_lists")):
        (tmp_path / "own.toml").write_text(card.replace('test_lists = ["test.txt"]', line))
        with pytest.raises(InputError, match=rf"own\.toml: [\s\S]*{message}"):
            load_card(str(tmp_path / "own.toml"))
    (tmp_path / "own.toml").write_text(card.replace('test_lists = ["test.txt"]', "split = 3"))
    assert load_card(str(tmp_path / "own.toml")).split == 3


def test_mirrored_classes_of_the_demo() -> None:
    card = load_card("demo")
    swapped = {card.classes[a]: card.classes[b] for a, b in enumerate(card.mirrored) if a != b}
    assert swapped == {"Left": "Right", "Right": "Left"}


def test_own_priors(tmp_path: Path) -> None:
    layer = '{name = "conv4_3", grid = 38, step = 8, min_size = 30, max_size = 60, ratios = [2, 3]}'
    (tmp_path / "own.toml").write_text(CARD + f"[priors]\nimage_size = 300\nlayers = [{layer}]\n")
    assert load_card(str(tmp_path / "own.toml")).priors.layers == (
        PriorLayer("conv4_3", 38, 8, 30.0, 60.0, (2.0, 3.0)),
    )
    (tmp_path / "own.toml").write_text(
        CARD + f"[priors]\nimage_size = 300\nlayers = [{layer.replace('grid', 'gird')}]\n"
    )
    with pytest.raises(InputError, match="'gird'"):
        load_card(str(tmp_path / "own.toml"))


@pytest.mark.parametrize("name", ["ucf", "UCF101", "ucf101.tml", "dmo"])
def test_an_unknown_dataset_is_told_its_neighbour(name: str) -> None:
    with pytest.raises(
        InputError,
        match=r"unknown dataset[\s\S]*one of demo, jhmdb21, multisports, ucf101, ucfsports[\s\S]*did you mean (ucf101|demo)\?",
    ):
        load_card(name)


WRONG = {
    "not TOML": ("classes = ", "classes == "),
    "lacks 'classes'": ('classes = ["Run", "Jump"]', ""),
    "lacks 'format'": ('format = "csv"', ""),
    r"unknown annotations\.box_widht, did you mean box_width": ("box_width", "box_widht"),
    r"classes must be a list of texts": ('["Run", "Jump"]', '"Run"'),
    r"1 to 254 different names, found Run more than once": ('["Run", "Jump"]', '["Run", "Run"]'),
    r"files must be a list of texts": ('["boxes.csv"]', '"boxes.csv"'),
    r"'/etc/passwd' is not below": ('["boxes.csv"]', '["/etc/passwd"]'),
    r"'\.\./boxes\.csv' is not below": ('["boxes.csv"]', '["../boxes.csv"]'),
    r"must have \{video_id\} in it": ("videos/{video_id}.avi", "videos/{video}.avi"),
    r"must be 1 to 32767, found 0 x 48": ("box_width = 64", "box_width = 0"),
    r"annotations\.box_width must be a whole number, found 'wide'": ("box_width = 64", 'box_width = "wide"'),
    r"annotations\.first_frame must be a whole number, found 1\.5": ("first_frame = 1", "first_frame = 1.5"),
    r"annotations\.first_frame must be a whole number, found True": ("first_frame = 1", "first_frame = true"),
    r"unknown splits\.split": ("[splits]", "[splits]\nsplit = 2"),
    r"annotations must be a table": ("[annotations]", "annotations = 3\n[splits.x]"),
    r'Run looks like Jump [\s\S]* let \[mirror\] say "Jump" = "Run" too': (
        "[videos]",
        '[mirror]\nRun = "Jump"\n[videos]',
    ),
    r'Jump looks like Run [\s\S]* say "Run" = "Jump" instead of Run': (
        "[videos]",
        '[mirror]\nJump = "Run"\nRun = "Run"\n[videos]',
    ),
    r"annotations\.boxes is missing: a card of format csv says boxes \(corners, ": ('boxes = "corners"\n', ""),
    r"annotations\.first_frame is missing: [\s\S]*; first_pixel \(": ("first_frame = 1\nfirst_pixel = 0\n", ""),
    r"annotations\.box_width is missing: a card of format ucf101": (
        '"csv"\nfiles = ["boxes.csv"]\nbox_width = 64\nbox_height = 48\nboxes = "corners"\nfirst_frame = 1\nfirst_pixel = 0',
        '"ucf101"\nfiles = ["boxes.csv"]',
    ),
    r"unknown mirror\.Rnu, did you mean Run": ("[videos]", '[mirror]\nRun = "Rnu"\n[videos]'),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_card_says_what_is_wrong(message: str, tmp_path: Path) -> None:
    before, after = WRONG[message]
    assert before in CARD
    (tmp_path / "own.toml").write_text(CARD.replace(before, after, 1))
    with pytest.raises(InputError, match=message) as error:
        load_card(str(tmp_path / "own.toml"))
    assert "own.toml" in str(error.value)
    assert error.value.todo


def test_a_card_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(InputError, match=r"not text in UTF-8"):
        load_card(str(tmp_path / "own.toml"))
    with pytest.raises(InputError, match=r"none\.toml is not there"):
        load_card(str(tmp_path / "none.toml"))


def test_a_card_saved_on_windows(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_bytes(("\ufeff" + CARD.replace("\n", "\r\n")).encode())
    assert load_card(str(tmp_path / "own.toml")).classes == ("Run", "Jump")


def test_the_folder_of_a_card_is_not_the_card(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD)
    with pytest.raises(InputError, match=rf"did you mean {tmp_path}/card\.toml\?"):
        load_card(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "told"),
    [("WAVE", "did you mean Wave?"), ("u\u0308ben", r"did you mean üben? It looks the same"), ("xyz", "mend it")],
)
def test_a_name_is_known_in_other_case_or_unicode_form(name: str, told: str) -> None:
    assert did_you_mean(name, ["Wave", "\u00fcben"], "mend it").startswith(told)
