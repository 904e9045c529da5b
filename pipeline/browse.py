"""`inspect --browse`: a store on a local page, to page through classes, videos, clips and views. Loopback only, read-only."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from data_manifests.errors import InputError
from pipeline.drawing import draw_tubes, picture_of_clip
from pipeline.inspect import clip_picture
from pipeline.stored import StoredShard, StoredVideo, built_shards

LOOPBACK = "127.0.0.1"
STYLE = """:root{color-scheme:light dark}body{margin:0 auto;max-width:1900px;padding:1rem;font:15px/1.5 system-ui,sans-serif}
img{max-width:100%;height:auto}nav a,li a{margin-right:.8rem}ul{columns:18rem;padding-left:1rem}"""


class Browser:
    """The pages of one store, by path and query. It only reads.

    Raises:
        InputError: there is no store.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.videos: dict[str, tuple[StoredShard, StoredVideo]] = {}
        for shard in built_shards(store):
            self.videos |= {video.video_id: (shard, video) for video in shard.videos}
        self.pages: dict[str, Callable[[dict[str, str]], tuple[str, bytes]]] = {
            "/": self._classes,
            "/class": self._class,
            "/video": self._video,
            "/clip": self._clip,
            "/frame.jpg": self._frame,
            "/clip.png": self._clip_png,
        }
        self._draw = lru_cache(16)(self._draw_clip)

    def page(self, target: str) -> tuple[str, bytes] | None:
        """Media type and content of a request's target; None if there is no such page.

        Raises:
            InputError: the page is there and what it should show is damaged or missing.
        """
        parts = urlsplit(target)
        make = self.pages.get(parts.path)
        try:
            return make and make({name: values[0] for name, values in parse_qs(parts.query).items()})
        except (KeyError, ValueError, IndexError):
            return None

    def _classes(self, query: dict[str, str]) -> tuple[str, bytes]:
        count: dict[int, int] = {}
        for shard, video in self.videos.values():
            for label in {tube.label for tube in video.tubes}:
                count[label] = count.get(label, 0) + 1
            classes, title = shard.settings.classes, shard.settings.title
        links = [
            _link(f"/class?name={quote(classes[label])}", f"{classes[label]} ({n})")
            for label, n in sorted(count.items())
        ]
        return _html(title, f"<ul>{''.join(f'<li>{link}</li>' for link in links)}</ul>")

    def _class(self, query: dict[str, str]) -> tuple[str, bytes]:
        shown = [video for shard, video in self.videos.values() if query["name"] in _classes_of(shard, video)]
        if not shown:
            raise KeyError(query["name"])
        links = [f"<li>{_link(_video_target(v), f'{v.video_id} ({v.frames} frames)')}</li>" for v in shown]
        return _html(query["name"], f"<nav>{_link('/', 'all classes')}</nav><ul>{''.join(links)}</ul>")

    def _video(self, query: dict[str, str]) -> tuple[str, bytes]:
        shard, video = self.videos[query["id"]]
        frame, at = int(query.get("frame", 0)), _video_target(video)
        if not 0 <= frame < video.frames:
            raise IndexError(frame)
        ids = list(self.videos)
        place = ids.index(video.video_id)
        steps = [(name, frame + step) for name, step in (("−10", -10), ("−1", -1), ("+1", 1), ("+10", 10))]
        around = [_link(f"{at}&frame={to}", name) for name, to in steps if 0 <= to < video.frames]
        around += [
            _link(_video_target(self.videos[ids[i]][1]), name)
            for name, i in (("previous video", place - 1), ("next video", place + 1))
            if 0 <= i < len(ids)
        ]
        up = [_link(f"/class?name={quote(name)}", name) for name in _classes_of(shard, video)]
        clips = "".join(
            f"<li>{_link(f'/clip?id={quote(video.video_id)}&first={first}', f'clip at {first}')}</li>"
            for first in shard.clip_starts(video)[1]
        )
        return _html(
            f"{video.video_id}, frame {frame} of {video.frames}",
            f"<nav>{_link('/', 'all classes')}{''.join(up)}</nav><nav>{''.join(around)}</nav>"
            f'<p><img alt="frame {frame} with its tubes" src="/frame.jpg?id={quote(video.video_id)}&amp;frame={frame}"></p><ul>{clips}</ul>',
        )

    def _clip(self, query: dict[str, str]) -> tuple[str, bytes]:
        shard, video = self.videos[query["id"]]
        first, view = int(query["first"]), int(query.get("view", 0))
        starts = shard.clip_starts(video)[1].tolist()
        place = starts.index(first)
        at = f"/clip?id={quote(video.video_id)}"
        views = [_link(f"{at}&first={first}&view={v}", f"view {v}") for v in range(1 + shard.settings.views)]
        clips = [
            _link(f"{at}&first={starts[i]}&view={view}", name)
            for name, i in (("previous clip", place - 1), ("next clip", place + 1))
            if 0 <= i < len(starts)
        ]
        return _html(
            f"{video.video_id}:{first}, view {view}",
            f"<nav>{_link(f'{_video_target(video)}&frame={first}', 'video')}{''.join(clips)}</nav><nav>{''.join(views)}</nav>"
            f"<p>Above: the tubes that the targets decode to. Below: matched priors, ignored ones grey.</p>"
            f'<p><img alt="the clip" src="/clip.png?id={quote(video.video_id)}&amp;first={first}&amp;view={view}"></p>',
        )

    def _frame(self, query: dict[str, str]) -> tuple[str, bytes]:
        shard, video = self.videos[query["id"]]
        frame = int(query["frame"])
        if not 0 <= frame < video.frames:
            raise IndexError(frame)
        buffer = io.BytesIO()
        picture = draw_tubes(shard.frames(video, frame, frame + 1)[0], frame, video, max(video.width, 640))
        picture.save(buffer, "JPEG", quality=90)
        return "image/jpeg", buffer.getvalue()

    def _clip_png(self, query: dict[str, str]) -> tuple[str, bytes]:
        return "image/png", self._draw(query["id"], int(query["first"]), int(query.get("view", 0)))

    def _draw_clip(self, video_id: str, first: int, view: int) -> bytes:
        buffer = io.BytesIO()
        picture_of_clip(clip_picture(self.store, *self.videos[video_id], first, view)).save(buffer, "PNG")
        return buffer.getvalue()


def serve(store: Path, port: int) -> ThreadingHTTPServer:
    """A server of the store's pages on the loopback interface; port 0 takes a free one. `serve_forever` runs it.

    Raises:
        InputError: there is no store, or the port is taken.
    """
    browser = Browser(store)

    class Handler(BaseHTTPRequestHandler):
        """Answers GET with a page; whatever else is asked for is refused, names of other machines included."""

        def do_GET(self) -> None:
            host = urlsplit("//" + self.headers.get("Host", "")).hostname
            if host not in (LOOPBACK, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            try:
                found = browser.page(self.path)
            except InputError as error:
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
                return
            if found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            media, content = found
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Keeps the terminal quiet."""

    try:
        return ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise InputError(f"port {port} cannot be used", found=str(error), todo="choose another with --port") from error


def _classes_of(shard: StoredShard, video: StoredVideo) -> list[str]:
    return sorted({shard.settings.classes[tube.label] for tube in video.tubes})


def _video_target(video: StoredVideo) -> str:
    return f"/video?id={quote(video.video_id)}"


def _link(target: str, text: str) -> str:
    return f'<a href="{escape(target)}">{escape(text)}</a>'


def _html(title: str, body: str) -> tuple[str, bytes]:
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>{body}'
    )
    return "text/html; charset=utf-8", page.encode()
