"""A real browser for tests: headless Chromium where there is one."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """Headless Chromium, driven by its DevTools protocol; `events` holds all that it reported since the last page."""

    def __init__(self, profile: Path):
        websocket = pytest.importorskip("websocket", reason="websocket-client comes with JupyterLab")
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which the superuser cannot have
        self.process = subprocess.Popen(
            [CHROMIUM, "--headless", "--disable-gpu", "--no-first-run", *sandbox, "--remote-debugging-port=0",
             f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = self._port(profile / "DevToolsActivePort")
            tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
            (address,) = [tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"]
            self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        except BaseException:
            self.process.kill()
            raise
        self.count, self.events = 0, []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _port(self, path: Path) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if path.exists() and "\n" in path.read_text():
                return path.read_text().split()[0]
            time.sleep(0.1)
        pytest.skip("Chromium does not start here")

    def call(self, method: str, **parameters) -> dict:
        """The result of a command of the protocol."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, url: str, width: int = 1400) -> None:
        """Open a page in a window of this width, and wait until it is loaded."""
        window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **window)
        self.call("Page.navigate", url="about:blank")
        self.run("new Promise(done => setTimeout(done, 50))")
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))
        self.run("new Promise(done => setTimeout(done, 200))")

    def run(self, script: str):
        """The value of a JavaScript expression, a promise's when it is kept."""
        given = {"expression": script, "awaitPromise": True, "returnByValue": True}
        found = self.call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str, seconds: float) -> None:
        """Until a JavaScript expression is true; AssertionError where it is not in so many seconds."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"not within {seconds} s: {script}"
            time.sleep(0.3)

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9)

    def asked(self) -> list[str]:
        """Addresses that the page asked for."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def complaints(self) -> list[dict]:
        """Errors and warnings of the console, exceptions, and requests that failed."""
        found = []
        for event in self.events:
            about = event.get("params", {})
            bad = event["method"] in ("Runtime.exceptionThrown", "Network.loadingFailed")
            bad |= event["method"] == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning")
            bad |= event["method"] == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert")
            found += [about] if bad else []
        return found

    def close(self) -> None:
        """Let it go."""
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
