"""A page seen by headless Chromium, through the DevTools protocol over a pipe: the standard library alone, no driver.

`Browser.look` returns errors and warnings of a page, its requests, its width, unreadable text, and a screenshot.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("google-chrome", "google-chrome-stable", "chrome", "chromium", "chromium-browser")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
TIMEOUT_S = 60.0
_FIRST_FREE_FD = 10  # 3 and 4 are what Chromium reads and writes
_LOUD = ("error", "warning", "assert")

# Words against their background, that of the nearest ancestor with a colour. Contrast as in WCAG; no pictures.
_READABLE = """(() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => v <= 10 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.map(linear); return .2126 * r + .7152 * g + .0722 * b; };
  const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const words = node.data.trim(), parent = node.parentElement, style = getComputedStyle(parent);
    if (!words || !parent.checkVisibility() || parent.closest('svg, script, style')) continue;
    let below = parent, ground = [255, 255, 255];
    for (; below; below = below.parentElement) {
      const color = rgb(getComputedStyle(below).backgroundColor);
      if (color.length === 3 || color[3] === 1) { ground = color.slice(0, 3); break; }
    }
    const [a, b] = [light(rgb(style.color).slice(0, 3)), light(ground)].sort((x, y) => y - x);
    const contrast = (a + .05) / (b + .05), px = parseFloat(style.fontSize), what = `"${words.slice(0, 40)}"`;
    if (contrast < 4.5) found.add(`${what} has a contrast of ${contrast.toFixed(1)}, expected 4.5`);
    if (px < 11) found.add(`${what} is ${px} px high, expected 11`);
  }
  return [...found].slice(0, 20);
})()"""

# What sticks out to the right of the page without scrolling in a frame of its own.
_TOO_WIDE = """(() => {
  const scrolls = e => { for (; e && e !== document.body; e = e.parentElement)
    if (getComputedStyle(e).overflowX !== 'visible') return true; return false; };
  return [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > %d + 1 && !scrolls(e))
    .slice(0, 5).map(e => `<${e.tagName.toLowerCase()} class="${e.className}"> ${e.textContent.slice(0, 40)}`);
})()"""

_LOAD_PICTURES = """(async () => {
  const images = [...document.images];
  images.forEach(image => { image.loading = 'eager'; });
  await Promise.all(images.map(image => image.decode().catch(() => {})));
  return images.filter(image => !image.naturalWidth).map(image => image.alt || image.src.slice(0, 60));
})()"""


def find_browser() -> str | None:
    """Path of a Chromium or Chrome; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass(frozen=True)
class Look:
    """One page at one window size.

    Attributes:
        complaints: Errors and warnings on its console, exceptions, failed requests, broken pictures.
        requests: Addresses that it requested besides itself, without those that start with ``data:``.
        width_px: Width of its content; the whole page scrolls sideways when this exceeds ``window_px``.
        window_px: Width of the window.
        too_wide: Elements that stick out.
        unreadable: Words that are too small or too pale.
        picture: Screenshot, PNG.
    """

    complaints: list[str]
    requests: list[str]
    width_px: int
    window_px: int
    too_wide: list[str]
    unreadable: list[str]
    picture: bytes


class Browser:
    """Headless Chromium with a profile of its own, for the length of a ``with`` block."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="browser.")
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD) for fd in (to_child, from_child)]
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, f"{self._folder}/stderr", os.O_WRONLY | os.O_CREAT, 0o600),
            (os.POSIX_SPAWN_DUP2, ends[0], 3),
            (os.POSIX_SPAWN_DUP2, ends[1], 4),
        ]
        command = [self.path, *FLAGS, f"--user-data-dir={self._folder}/profile", "about:blank"]
        self._pid = os.posix_spawn(self.path, command, os.environ, file_actions=actions, setsid=True)
        for fd in (to_child, from_child, *ends):
            os.close(fd)
        self._number, self._rest, self._events = 0, b"", []  # type: int, bytes, list[dict[str, Any]]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._call("Browser.close")
        ended, until_s = 0, time.monotonic() + 5
        while not ended and time.monotonic() < until_s:
            ended, _ = os.waitpid(self._pid, os.WNOHANG)
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)  # its own session: what it started goes with it
        if not ended:
            os.waitpid(self._pid, 0)
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)

    def version(self) -> str:
        """Its name and version; call this first, since the browser may not start at all.

        Raises:
            RuntimeError: The browser does not answer; with its stderr.
        """
        return str(self._call("Browser.getVersion")["product"])

    def look(
        self,
        page: Path,
        size: str,
        *,
        scheme: str = "light",
        whole: bool = False,
        scale: float = 1.0,
        script: str = "",
        settle_s: float = 0.0,
    ) -> Look:
        """Open a file in a fresh tab.

        Args:
            page: The file.
            size: Size of the window, a key of `SIZES`.
            scheme: ``light`` or ``dark``, as the user prefers.
            whole: Take a screenshot of all of the page, not only of what the window shows.
            scale: Device pixels per CSS pixel.
            script: Script to run in the page before it is judged, such as a click.
            settle_s: Seconds to wait after loading, and after the script.

        Raises:
            RuntimeError: The browser does not answer; with its stderr.
        """
        width_px, height_px = SIZES[size]
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events.clear()
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable", session)
        window = {"width": width_px, "height": height_px, "deviceScaleFactor": scale, "mobile": size == "phone"}
        self._call("Emulation.setDeviceMetricsOverride", session, **window)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", session, features=media)
        address = page.resolve().as_uri()
        self._call("Page.navigate", session, url=address)
        self._wait("Page.loadEventFired", session)
        time.sleep(settle_s)
        if script:
            self._run(session, script)
            time.sleep(settle_s)
        broken = self._run(session, _LOAD_PICTURES)
        width = int(self._run(session, "document.documentElement.scrollWidth"))
        too_wide = self._run(session, _TOO_WIDE % width_px)
        unreadable = self._run(session, _READABLE)
        taken = self._call("Page.captureScreenshot", session, captureBeyondViewport=whole, **self._clip(session, whole))
        complaints = [text for event in self._events if (text := _complaint(event))]
        complaints += [f"the picture {name} is broken" for name in broken]
        requests = [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]
        requests = [url for url in requests if not url.startswith("data:") and url != address]
        self._call("Target.closeTarget", targetId=target)
        return Look(complaints, requests, width, width_px, too_wide, unreadable, base64.b64decode(taken["data"]))

    def _clip(self, session: str, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self._call("Page.getLayoutMetrics", session)["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _run(self, session: str, script: str) -> Any:
        answer = self._call("Runtime.evaluate", session, expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script[:60]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        try:
            os.write(self._out, json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise RuntimeError(self._silence()) from None
        until_s = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._next(until_s)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            if "method" in answer:
                self._events.append(answer)

    def _wait(self, method: str, session: str) -> None:
        until_s = time.monotonic() + TIMEOUT_S
        while not any(event["method"] == method and event.get("sessionId") == session for event in self._events):
            self._events.append(self._next(until_s))

    def _next(self, until_s: float) -> dict[str, Any]:
        waiting = select.poll()  # select() knows no file beyond the process's 1,024th
        waiting.register(self._in, select.POLLIN)
        while b"\0" not in self._rest:
            ready = waiting.poll(1000 * max(0.0, until_s - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError(self._silence())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _silence(self) -> str:
        said = Path(self._folder, "stderr").read_text(errors="replace")[-2000:]
        return f"{self.path}: does not answer; its stderr: {said}"


def _complaint(event: dict[str, Any]) -> str:
    """The fault that an event reports; empty for any other event."""
    params = event.get("params", {})
    match event["method"]:
        case "Runtime.consoleAPICalled" if params["type"] in _LOUD:
            return f"console {params['type']}: " + " ".join(str(arg.get("value", arg)) for arg in params["args"])
        case "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            return "exception: " + str(details.get("exception", {}).get("description", details["text"]))
        case "Log.entryAdded" if params["entry"]["level"] in _LOUD:
            return f"{params['entry']['level']}: {params['entry']['text']} {params['entry'].get('url', '')}"
        case "Network.loadingFailed":
            return f"failed request: {params['errorText']}"
        case "Network.responseReceived" if params["response"]["status"] >= 400:
            return f"failed request: {params['response']['status']} {params['response']['url']}"
    return ""
