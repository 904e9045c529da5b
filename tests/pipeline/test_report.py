"""A store's page: its figures against plain loops over the store, and its behaviour in a browser."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess
from base64 import b64decode
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from data_manifests.layout import IGNORED
from pipeline.census import LENGTHS, MATCHES, OVERLAPS
from pipeline.inspect import describe_store, find_clip
from pipeline.report import report_data, write_report
from pipeline.stored import StoredShard, built_shards
from tests.pipeline.own_data import moving_square, tube_rows, write_own, write_video
from tests.pipeline.small_store import VIDEOS, VIEWS, K, build_small, refusal

LAYER_ENDS = np.cumsum([38 * 38 * 4, 18 * 18 * 6, 9 * 9 * 6, 5 * 5 * 6, 3 * 3 * 4, 4])


@pytest.fixture(scope="module")
def data(small_store: Path) -> dict:
    """What the page of the small store shows."""
    return report_data(small_store)


def _views(shard: StoredShard):
    """Every (video, first frame, view, kept tubes, dropped tubes, its targets' rows), one by one."""
    group = zarr.open_group(shard.folder, mode="r")
    offsets, kept = group["targets/offsets"][:], group["views/kept"][:]
    for clip, (row, first) in enumerate(zip(group["clips/video"][:], group["clips/first_frame"][:])):
        video = shard.videos[row]
        covering = [t for t in video.tubes if t.first_frame <= first and t.first_frame + len(t.boxes) >= first + K]
        for view in range(1 + VIEWS):
            inside = [tube for bit, tube in enumerate(covering) if int(kept[clip, view]) >> bit & 1]
            at = clip * (1 + VIEWS) + view
            yield video, first, view, inside, [t for t in covering if t not in inside], slice(*offsets[at : at + 2])


def test_the_figures_are_those_of_plain_loops(small_store: Path, data: dict) -> None:
    wanted: dict[tuple[str, int], Counter] = {}
    for shard in built_shards(small_store):
        for video in shard.videos:
            for tube in video.tubes:
                count = wanted.setdefault((shard.split, tube.label), Counter())
                count["tubes"] += 1
                count["boxes"] += len(tube.boxes)
                count["length", max(i for i, start in enumerate(LENGTHS) if start <= len(tube.boxes))] += 1
            for label in {tube.label for tube in video.tubes}:
                wanted[shard.split, label]["videos"] += 1
        targets = {name: shard[f"targets/{name}"] for name in ("tube", "overlap", "label", "prior")}
        for _, _, view, inside, dropped, rows in _views(shard):
            if view == 0:
                for label in {tube.label for tube in inside}:
                    wanted[shard.split, label]["clips"] += 1
            for tube in dropped:
                wanted[shard.split, tube.label]["dropped"] += view > 0
            for tube in inside:
                count = wanted[shard.split, tube.label]
                count["covered"] += view == 0
                count["kept"] += view > 0
                mine = (targets["tube"][rows] == tube.index) & (targets["label"][rows] != IGNORED)
                best = targets["overlap"][rows][mine].max(initial=0)
                count["overlap", int(view > 0), min(int(best * OVERLAPS), OVERLAPS - 1)] += 1
                number = max(i for i, start in enumerate(MATCHES) if start <= mine.sum())
                count["matches", int(view > 0), number] += 1
                for prior in targets["prior"][rows][mine]:
                    count["layer", int(view > 0), int(np.searchsorted(LAYER_ENDS, prior, "right"))] += 1
    assert len(wanted) == len(data["groups"]) == 3
    for group in data["groups"]:
        count = wanted[group["split"], group["label"]]
        for name in ("videos", "tubes", "boxes", "clips", "covered"):
            assert group[name] == count[name], name
        assert sum(group["kept"]) == count["kept"] > 0
        assert sum(group["dropped"]) == count["dropped"]
        assert group["lengths"] == [count["length", i] for i in range(len(LENGTHS))]
        for view in (0, 1):
            assert group["overlap"][view] == [count["overlap", view, i] for i in range(OVERLAPS)]
            assert group["matches"][view] == [count["matches", view, i] for i in range(len(MATCHES))]
            assert group["layers"][view] == [count["layer", view, i] for i in range(6)]
        assert np.sum(group["sizes"]) == group["boxes"]
        assert 0 < np.max(group["places"]) <= group["boxes"]
    assert sum(group["dropped"][i] for group in data["groups"] for i in range(8)) > 0


def test_inspect_has_a_line_for_each_class(small_store: Path, data: dict) -> None:
    lines = describe_store(small_store)["classes"]
    assert [(line["split"], line["class"]) for line in lines] == [("test", "Run"), ("train", "Run"), ("train", "Jump")]
    for line, group in zip(lines, data["groups"], strict=True):
        for name in ("videos", "tubes", "boxes", "clips"):
            assert line[name] == group[name]
        assert line["priors_a_tube"] == sum(group["layers"][0]) / group["covered"] > 1
        assert line["without_fitting_prior"] == sum(group["overlap"][0][: OVERLAPS // 2]) / group["covered"]
        assert line["dropped_by_views"] == sum(group["dropped"]) / sum(group["dropped"] + group["kept"])


def test_inspect_says_whether_a_store_is_well(small_store: Path, tmp_path: Path) -> None:
    assert describe_store(small_store)["health"] == []
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    frames = store / "shards" / "train-00001" / "frames" / "bytes" / "c" / "0"
    frames.write_bytes(frames.read_bytes()[:-1])
    (found,) = describe_store(store)["health"]
    assert "train-00001/frames/bytes" in found


@pytest.mark.parametrize("damaged", ["targets/offsets/c/0", "videos.parquet", "zarr.json", "views/kept/zarr.json"])
def test_a_damaged_array_or_table_is_refused_by_name(small_store: Path, tmp_path: Path, damaged: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    file = store / "shards" / "train-00001" / damaged
    content = bytearray(file.read_bytes())
    content[20] ^= 64
    file.write_bytes(content)
    for look in (describe_store, report_data):
        assert f"train-00001/{damaged} is damaged" in refusal(look, store)


def test_a_damaged_target_is_not_drawn(small_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    file = store / "shards/train-00000/targets/loc/c/0/0/0"
    file.write_bytes(b"\1" + file.read_bytes()[1:])
    assert "targets/loc/c/0/0/0 is damaged" in refusal(find_clip, store, "Run/v_0:2", 0)


def test_strange_clips_have_reasons_and_pictures(small_store: Path, data: dict) -> None:
    strange = data["strange"]
    reasons = {reason for clip in strange for reason, _, _ in clip["reasons"]}
    assert reasons == {"longest tube", "shortest tube", "tiny box", "fewest matches", "largest jump"}
    assert strange[0]["id"] == "Run/v_5"
    assert strange[0]["reasons"][0] == ("longest tube", -23, "23 frames")
    assert len({(clip["id"], clip["first"]) for clip in strange}) == len(strange) <= 50
    assert {clip["id"] for clip in strange} <= set(VIDEOS)
    picture = Image.open(io.BytesIO(b64decode(strange[0]["picture"].partition(",")[2])))
    assert picture.size == tuple(strange[0]["size"])


def test_mistakes_in_annotations_are_among_the_strangest(tmp_path: Path) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    write_video(root / "videos" / "Run" / "a.avi", moving_square(20))
    twice = [tube_rows("Run/a", 1, 20, tube=tube, box="2,8,22,26") for tube in (0, 1)]
    jumps = tube_rows("Run/a", 1, 9, tube=2, box="2,8,8,14") + tube_rows("Run/a", 10, 11, tube=2, box="40,8,46,14")
    write_own(root, "".join([*twice, jumps]))
    build_small(root, store)
    strange = report_data(store)["strange"]
    told = {reason: (clip, detail) for clip in strange for reason, _, detail in reversed(clip["reasons"])}
    assert told["identical tubes"][1] == "tubes 0 and 1 are equal"
    clip, detail = told["largest jump"]
    assert "from frame 8 to the next" in detail
    assert clip["first"] + K // 2 == 9
    assert told["tiny box"][1].startswith("28 x 38")


def test_a_place_without_a_store_is_refused(tmp_path: Path) -> None:
    assert "no store at" in refusal(write_report, tmp_path, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


EXERCISE = """
<script>
const said={},q=s=>[...document.querySelectorAll(s)],rows=()=>q("#classes tr").length-1,clips=()=>q("#clips article").length;
said.errors=parent.broken;said.rows=rows();said.clips=clips();
said.pictures=q("#clips img").every(i=>i.src.startsWith("data:image/jpeg")&&i.alt);
const press=e=>{e.focus();said.focused=(said.focused??true)&&document.activeElement===e;e.click()};
press(q("#classes th button")[3]);const tubes=()=>q("#classes tr td:nth-child(4)").map(c=>+c.textContent.replace(",",""));
const down=tubes();press(document.activeElement);said.sorted=JSON.stringify(down)===JSON.stringify([...tubes()].sort((a,b)=>b-a))&&
JSON.stringify(tubes())===JSON.stringify([...down].reverse());said.aria=q("#classes th")[3].getAttribute("aria-sort");
press(q("#filters button")[0]);said.fewer=rows();said.pressed=q("#filters button")[0].getAttribute("aria-pressed");
press(q("#filters button").at(-1));said.again=rows();
const set=(id,value,on)=>{const e=document.getElementById(id);e.value=value;e[on]()};
set("split","test","onchange");said.test=rows();set("split","","onchange");
set("reason","longest tube","onchange");said.longest=q("#clips li:first-child")[0].textContent;set("reason","","onchange");
set("find","no such video","oninput");said.none=clips();set("find","V_1","oninput");said.found=new Set(q("#clips b").map(b=>b.textContent)).size;
set("find","","oninput");said.bars=q("#charts rect").length>50;said.charts=q("#charts svg").every(s=>s.getAttribute("aria-label").length>15);
said.reachable=q("button,select,input").every(e=>e.tabIndex>=0);
said.fits=document.documentElement.scrollWidth<=innerWidth;said.width=innerWidth;
const light=c=>{const [r,g,b]=c.match(/[\\d.]+/g).map(v=>{v/=255;return v<=.03928?v/12.92:((v+.055)/1.055)**2.4});return .2126*r+.7152*g+.0722*b};
const ground=e=>{for(;e;e=e.parentElement){const c=getComputedStyle(e).backgroundColor;if(c!=="rgba(0, 0, 0, 0)")return c}};
let poorest=99;for(const e of q("body *")){const own=[...e.childNodes].some(n=>n.nodeType===3&&n.data.trim());
if(!own||["SCRIPT","STYLE","OPTION"].includes(e.tagName)||e.tagName==="title")continue;const s=getComputedStyle(e);
const [a,b]=[light(e.ownerSVGElement?s.fill:s.color),light(ground(e))].sort((x,y)=>y-x);poorest=Math.min(poorest,(a+.05)/(b+.05))}
said.contrast=poorest;said.ground=ground(document.body);
parent.told.push(said);
</script>
"""


def test_the_page_works_in_a_browser_light_and_dark_wide_and_narrow(small_store: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    page = write_report(small_store, tmp_path / "page.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert len(page) < 1_000_000
    probe = "<body><script>onerror=m=>parent.broken.push(m)</script>"
    light = page.replace("<body>", probe).replace("</body>", EXERCISE + "</body>")
    dark = light.replace("@media(prefers-color-scheme:dark)", "@media all")
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(text)}"></iframe>'
        for width, text in ((1100, light), (380, dark))
    )
    both = tmp_path / "both.html"
    both.write_text(
        f"<!doctype html><meta charset=utf-8><script>broken=[];told=[];onload=()=>document.documentElement.dataset.said="
        f"JSON.stringify(told)</script><body>{frames}"
    )
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", f"file://{both}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    told = json.loads(html.unescape(re.search(r'data-said="(.*?)"', done.stdout)[1]))
    assert [said.pop("width") for said in told] == [1100, 380]
    assert [said.pop("ground") for said in told] == ["rgb(250, 250, 248)", "rgb(22, 22, 24)"]
    assert all(said.pop("contrast") >= 4.5 for said in told)
    clips = told[0]["clips"]
    assert clips > 5
    for said in told:
        assert said == {
            "errors": [], "rows": 3, "clips": clips, "pictures": True, "focused": True, "sorted": True,
            "aria": "ascending", "fewer": 1, "pressed": "false", "again": 3, "test": 1,
            "longest": said["longest"], "none": 0, "found": 1, "bars": True, "charts": True, "reachable": True,
            "fits": True,
        }  # fmt: skip
        assert said["longest"] == "longest tube: 23 frames"
