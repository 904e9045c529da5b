"""The local page of a store: every page is reached by links, and nothing but reading from this machine is answered."""

from __future__ import annotations

import html
import http.client
import re
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.__main__ import cli
from pipeline.browse import LOOPBACK, serve
from tests.pipeline.small_store import VIDEOS, VIEWS, refusal, tree


@pytest.fixture
def port(small_store: Path) -> Iterator[int]:
    """Where the small store is shown."""
    with serve(small_store, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def _ask(port: int, target: str, method: str = "GET", host: str | None = None) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    connection.request(method, target, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers.get("Content-Type", ""), content


def _links(content: bytes) -> list[str]:
    return [html.unescape(link) for link in re.findall(r'(?:href|src)="(/[^"]*)"', content.decode())]


def test_classes_lead_to_videos_clips_and_views(port: int, small_store: Path) -> None:
    before = tree(small_store)
    _, _, content = _ask(port, "/")
    assert "Jump (4)" in content.decode()
    videos: set[str] = set()
    for target in _links(content):
        videos |= {link for link in _links(_ask(port, target)[2]) if link.startswith("/video")}
    assert len(videos) == len(VIDEOS)
    status, _, content = _ask(port, "/video?id=Run/v_1&frame=5")
    assert status == 200
    frame, clip = "/frame.jpg?id=Run/v_1&frame=5", "/clip?id=Run/v_1&first=3"
    assert {frame, clip, "/video?id=Run/v_1&frame=6", "/video?id=Run/v_0"} <= set(_links(content))
    assert _ask(port, frame)[1:][0] == "image/jpeg"
    content = _ask(port, clip)[2]
    assert {f"{clip}&view={view}" for view in range(1 + VIEWS)} <= set(_links(content))
    assert "/clip?id=Run/v_1&first=4&view=0" in _links(content)
    picture = next(link for link in _links(content) if link.startswith("/clip.png"))
    assert _ask(port, picture)[2].startswith(b"\x89PNG")
    assert tree(small_store) == before


@pytest.mark.parametrize(
    "target",
    [
        "/../../etc/passwd", "/manifest.json", "/video", "/video?id=../x", "/video?id=Run/v_1&frame=99", "/class?name=x",
        "/frame.jpg?id=Run/v_1&frame=-1", "/frame.jpg?id=Run/v_1&frame=x", "/clip?id=Run/v_1&first=99",
    ],
)  # fmt: skip
def test_what_is_not_there_is_404(port: int, target: str) -> None:
    assert _ask(port, target)[0] == 404


def test_only_reading_from_this_machine_is_answered(port: int, small_store: Path) -> None:
    assert _ask(port, "/", "POST")[0] == 501
    assert _ask(port, "/", host="elsewhere.example:80")[0] == 403
    assert _ask(port, "/clip.png?id=Run/v_1&first=3&view=9")[0] == 500
    assert f"port {port} cannot be used" in refusal(serve, small_store, port)


def test_a_place_without_a_store_is_refused(tmp_path: Path) -> None:
    assert "no store at" in refusal(serve, tmp_path, 0)


def test_inspect_says_where_it_is_shown_until_it_is_interrupted(small_store: Path, monkeypatch, capsys) -> None:
    def interrupted(server: ThreadingHTTPServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
    cli.main(["inspect", str(small_store), "--browse", "--port", "0"], standalone_mode=False)
    assert f"http://{LOOPBACK}:" in capsys.readouterr().out
