"""A headless Chromium for tests, driven over DevTools pipes: real key presses, both colour schemes, any width."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

KEYS = {
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    " ": {"code": "Space", "windowsVirtualKeyCode": 32, "text": " "},
    "ArrowRight": {"code": "ArrowRight", "windowsVirtualKeyCode": 39},
    "ArrowDown": {"code": "ArrowDown", "windowsVirtualKeyCode": 40},
    "End": {"code": "End", "windowsVirtualKeyCode": 35},
}
_PATIENCE = 60.0
_CONTRASTS = """(() => {
  const rgba = text => {const v = text.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v};
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const light = c => {const [r, g, b] = c.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b};
  const ground = e => {const chain = []; for (; e; e = e.parentElement) chain.unshift(e);
    return chain.reduce((below, one) => over(rgba(getComputedStyle(one).backgroundColor), below), [255, 255, 255])};
  const bad = [];
  for (const e of document.body.querySelectorAll("*")) {
    if (!e.getClientRects().length || ![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e), below = ground(e);
    const ink = over(rgba(e instanceof SVGElement ? style.fill : style.color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) bad.push(e.tagName + " " + e.textContent.slice(0, 30) + ": " + ratio.toFixed(2));
  }
  return bad})()"""


class Browser:
    """One tab. `complaints` gathers console messages, errors of scripts, and everything that the page asked the network for.

    Skips the test if no Chromium is installed.
    """

    def __init__(self, profile: Path) -> None:
        binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if binary is None:
            pytest.skip("no Chromium is installed (apt-get install chromium)")
        there, self._commands = os.pipe()
        self._answers, back = os.pipe()
        self._read = b""
        self._last = 0
        self.complaints: list[str] = []

        def as_three_and_four() -> None:
            pair = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (there, back)]
            for place, descriptor in enumerate(pair, start=3):
                os.dup2(descriptor, place)

        self._process = subprocess.Popen(
            [
                binary, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
                f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(3, 4), preexec_fn=as_three_and_four,
        )  # fmt: skip
        os.close(there)
        os.close(back)
        os.set_blocking(self._answers, False)
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.wait(20)
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        """The next message; events that a clean page does not cause become complaints."""
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._read:
            try:
                piece = os.read(self._answers, 1 << 20)
            except BlockingIOError:
                assert time.monotonic() < end, "the browser does not answer"
                time.sleep(0.005)
                continue
            assert piece, "the browser ended"
            self._read += piece
        line, self._read = self._read.split(b"\0", 1)
        message = json.loads(line)
        method, event = message.get("method"), message.get("params", {})
        asked = event.get("request", {}).get("url", "data:")
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(event)[:500])
        if method == "Network.requestWillBeSent" and not asked.startswith(("data:", "file:")):
            self.complaints.append(f"asked for {asked}")
        return message

    def open(self, page: Path, *, width: int = 1100, dark: bool = False) -> None:
        """Loads a page into a window of this width (in CSS pixels; below 500 as a phone), and waits for it."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Page.navigate", url=page.as_uri())
        while not self.ask(f"location.href === {json.dumps(page.as_uri())} && document.readyState === 'complete'"):
            time.sleep(0.02)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, *keys: str) -> None:
        """Presses keys one after another, as a person would: the browser decides what they do."""
        for key in keys:
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, **KEYS[key])

    def tab_to(self, expression: str) -> None:
        """Presses Tab until the element that an expression gives has the focus."""
        for _ in range(200):
            if self.ask(f"document.activeElement === ({expression})"):
                return
            self.press("Tab")
        raise AssertionError(f"Tab never comes to {expression}")

    def too_faint(self) -> list[str]:
        """The texts whose contrast to what lies below them is under 4.5 (WCAG AA)."""
        return self.ask(_CONTRASTS)
