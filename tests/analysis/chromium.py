"""A headless Chromium driven over its DevTools protocol, for tests of pages; needs nothing but websockets."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking",
    "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
START_SECONDS = 60


class Page:
    """One page of a browser of its own; use as a context manager.

    Attributes:
        errors: messages of console errors and uncaught exceptions so far.
    """

    def __init__(self, url, size=(1280, 800)):
        self._url, self._size = url, size
        self.errors = []
        self._number = 0

    def __enter__(self):
        connect = pytest.importorskip("websockets.sync.client", reason="websockets drives the browser").connect
        program = next((path for path in map(shutil.which, NAMES) if path), None)
        if program is None:
            pytest.skip("there is no Chromium")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [program, *FLAGS, f"--user-data-dir={self._profile.name}",
                   f"--window-size={self._size[0]},{self._size[1]}", "about:blank"]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._socket = connect(self._page_socket(), max_size=None, proxy=None)
        except BaseException:
            self._end()
            raise
        width, height = self._size
        for method in ("Page.enable", "Runtime.enable", "Log.enable"):
            self.call(method)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=self._url)
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._end()

    def _end(self):
        self._process.terminate()
        self._process.wait(20)
        self._profile.cleanup()

    def _page_socket(self):
        """Address of the page's DevTools, once the browser has said where it listens."""
        import urllib.request

        port_file, deadline = Path(self._profile.name) / "DevToolsActivePort", time.monotonic() + START_SECONDS
        while not (port_file.exists() and port_file.read_text().count("\n")):
            if time.monotonic() > deadline or self._process.poll() is not None:
                pytest.skip("Chromium does not start here")
            time.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/json/list") as reply:
            targets = json.load(reply)
        return next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")

    def call(self, method, **parameters):
        """Send one command and return its result; events that come meanwhile are taken note of."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=START_SECONDS))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message):
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:500])
        if message.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.errors.append(json.dumps(parameters["args"])[:500])
        if message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(json.dumps(parameters["entry"])[:500])

    def evaluate(self, expression):
        """Value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    def wait_for(self, expression, seconds=60):
        """Wait until an expression is true; returns whether it became so."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def screenshot(self, path=None):
        """The page as PNG bytes, also written to ``path``."""
        content = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            Path(path).write_bytes(content)
        return content

    def click_text(self, text):
        """Click the middle of the first visible element whose own text is ``text``; returns whether there is one."""
        place = self.evaluate(
            "(() => { const e = [...document.querySelectorAll('*')].find(e => e.childElementCount === 0 && "
            f"e.textContent.trim() === {json.dumps(text)} && e.getClientRects().length); if (!e) return null; "
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        if place is None:
            return False
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )
        return True
