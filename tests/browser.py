"""A headless Chromium driven over its DevTools protocol, for pictures and tests of pages.

Needs Debian's chromium (or Google Chrome) and the package websockets, which comes with viser.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from utils.errors import UserError

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking",
    "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
_ANSWER_SECONDS = 60


class BrowserUnavailable(UserError):
    """There is no browser here, or it does not start."""


class Page:
    """One page of a browser of its own; use as a context manager.

    Attributes:
        errors: messages of console errors and uncaught exceptions so far.
        downloads: folder for what the page downloads.
    """

    def __init__(self, url: str, size: tuple[int, int] = (1280, 800)):
        """Prepare to open ``url`` in a window of ``size`` (width, height) pixels."""
        self._url, self._size = url, size
        self.errors: list[str] = []
        self._number = 0

    def __enter__(self) -> Page:
        """Start the browser and open the page; raises :class:`BrowserUnavailable`."""
        try:
            from websockets.sync.client import connect
        except ImportError:
            raise BrowserUnavailable("driving a browser needs websockets; install it: pip install websockets") from None
        program = next((path for path in map(shutil.which, _PROGRAMS) if path), None)
        if program is None:
            raise BrowserUnavailable("there is no Chromium; install it, such as with: apt-get install chromium")
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.downloads = Path(self._folder.name) / "downloads"
        width, height = self._size
        command = [program, *_FLAGS, f"--user-data-dir={self._profile}", f"--window-size={width},{height}",
                   "about:blank"]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._socket = connect(self._page_socket(), max_size=None, proxy=None)
        except BaseException:
            self._end()
            raise
        for method in ("Page.enable", "Runtime.enable", "Log.enable"):
            self.call(method)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.call("Page.navigate", url=self._url)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._end()

    @property
    def _profile(self) -> Path:
        return Path(self._folder.name) / "profile"

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._folder.cleanup()

    def _page_socket(self) -> str:
        """Address of the page's DevTools, once the browser has said where it listens."""
        port_file, deadline = self._profile / "DevToolsActivePort", time.monotonic() + _ANSWER_SECONDS
        while not (port_file.exists() and port_file.read_text().count("\n")):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise BrowserUnavailable("Chromium does not start here")
            time.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/json/list") as reply:
            targets = json.load(reply)
        return next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; events that come meanwhile are taken note of.

        Raises:
            RuntimeError: the browser refuses the command.
        """
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=_ANSWER_SECONDS))
            self._note(message)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:500])
        if message.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.errors.append(json.dumps(parameters["args"])[:500])
        if message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(json.dumps(parameters["entry"])[:500])

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> bool:
        """Wait until an expression is true; returns whether it became so."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def click(self, x: float, y: float) -> None:
        """Move the mouse there and press its left button, in pixels from the window's upper left corner."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def click_text(self, text: str) -> bool:
        """Click the middle of the first visible element whose own text is ``text``; returns whether there is one."""
        place = self.evaluate(
            "(() => { const e = [...document.querySelectorAll('*')].find(e => e.childElementCount === 0 && "
            f"e.textContent.trim() === {json.dumps(text)} && e.getClientRects().length); if (!e) return null; "
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        if place is not None:
            self.click(*place)
        return place is not None

    @staticmethod
    def shows(text: str) -> str:
        """A JavaScript expression for :meth:`wait_for`: the page shows ``text``."""
        return f"document.body.innerText.includes({json.dumps(text)})"
