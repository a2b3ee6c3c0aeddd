"""A page seen and used by headless Chromium, through the DevTools protocol over a pipe: the standard library alone.

`Browser.look` returns errors and warnings of a page, its requests, its width, unreadable text, and a screenshot.
`Browser.open` gives a `Tab` that is clicked and typed into as people do: by events of mouse and keyboard.
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
from collections.abc import Iterator
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
KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    " ": (32, " "),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}
"""Name of a key to its virtual key code, and the text that it types."""

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

# Middle of the part of an element that the window shows, or what hinders a click there.
_PLACE = """(() => {
  const found = document.querySelector(%s);
  if (!found) return 'no such element';
  found.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
  const box = found.getBoundingClientRect();
  const x = (Math.max(0, box.left) + Math.min(innerWidth, box.right)) / 2;
  const y = (Math.max(0, box.top) + Math.min(innerHeight, box.bottom)) / 2;
  const above = document.elementFromPoint(x, y);
  if (!found.contains(above)) return `covered by ${above ? above.outerHTML.slice(0, 80) : 'nothing'}`;
  return [x, y];
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
        with self.open(page, size, scheme=scheme, scale=scale) as tab:
            time.sleep(settle_s)
            if script:
                tab.run(script)
                time.sleep(settle_s)
            return tab.look(whole=whole)

    @contextlib.contextmanager
    def open(self, page: Path, size: str, *, scheme: str = "light", scale: float = 1.0) -> Iterator[Tab]:
        """A fresh tab with a file in it, loaded; arguments and errors as of `look`."""
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
        try:
            yield Tab(self, session, address, width_px)
        finally:
            self._call("Target.closeTarget", targetId=target)

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


class Tab:
    """An open page; as long as the ``with`` block of `Browser.open`."""

    def __init__(self, browser: Browser, session: str, address: str, width_px: int) -> None:
        self._browser, self._session, self._address, self._width_px = browser, session, address, width_px

    def run(self, script: str) -> Any:
        """The value of a script in the page; a promise is awaited.

        Raises:
            RuntimeError: The script raises, or the browser does not answer.
        """
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script[:60]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, condition: str, *, timeout_s: float = 40.0) -> None:
        """Wait until a script's value is true.

        Raises:
            RuntimeError: It is not within ``timeout_s``.
        """
        until_s = time.monotonic() + timeout_s
        while not self.run(condition):
            if time.monotonic() > until_s:
                raise RuntimeError(f"{condition}: not so within {timeout_s:g} s")
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Scroll to the first element of a selector, and click the middle of what is seen of it with the mouse.

        Raises:
            RuntimeError: There is none, or something else lies over it.
        """
        place = self.run(_PLACE % json.dumps(selector))
        if isinstance(place, str):
            raise RuntimeError(f"{selector}: {place}")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **button)

    def type(self, text: str) -> None:
        """Put a text where the cursor is."""
        self._call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release one of `KEYS`."""
        code, text = KEYS[key]
        about = {
            "key": key,
            "code": key.replace(" ", "Space"),
            "windowsVirtualKeyCode": code,
            "modifiers": 8 if shift else 0,
        }
        self._call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self._call("Input.dispatchKeyEvent", type="keyUp", **about)

    def without_scripts(self) -> None:
        """Load the page again, with its scripts off."""
        self._call("Emulation.setScriptExecutionDisabled", value=True)
        self._browser._events.clear()
        self._call("Page.reload")
        self._browser._wait("Page.loadEventFired", self._session)

    def look(self, *, whole: bool = False) -> Look:
        """What there is to see and to complain of now."""
        broken = self.run(_LOAD_PICTURES)
        width = int(self.run("document.documentElement.scrollWidth"))
        too_wide = self.run(_TOO_WIDE % self._width_px)
        unreadable = self.run(_READABLE)
        taken = self._call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        events = self._browser._events
        complaints = [text for event in events if (text := _complaint(event))]
        complaints += [f"the picture {name} is broken" for name in broken]
        sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        requests = [event["params"]["request"]["url"] for event in sent]
        requests = [url for url in requests if not url.startswith("data:") and url != self._address]
        picture = base64.b64decode(taken["data"])
        return Look(complaints, requests, width, self._width_px, too_wide, unreadable, picture)

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser._call(method, self._session, **params)


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
