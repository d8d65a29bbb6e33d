"""Headless Chromium over its debugging pipe: load a page, ask it, press keys, look at it. Nothing to install beside it."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from select import select
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0  # seconds for a page to be ready
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
         "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip


def found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page, and what it wrote to its console or asked of the network."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back = to, back
        self.count, self.session, self.rest, self.complaints, self.asked = 0, None, b"", [], []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command and its answer; events that come before it are noted."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.note(answer)

    def receive(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            waiting, _, _ = select([self.back], [], [], 2 * PATIENCE)
            data = os.read(self.back, 1 << 20) if waiting else b""
            if not data:
                raise RuntimeError("the browser is gone or says nothing")
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def note(self, event: dict[str, Any]) -> None:
        name, facts = event.get("method"), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            details = facts["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif name == "Log.entryAdded":
            self.complaints.append(facts["entry"]["text"])
        elif name == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(one.get("value", one.get("description"))) for one in facts["args"]))
        elif name == "Network.requestWillBeSent":
            self.asked.append(facts["request"]["url"])

    def ask(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "script failed"))
        return answer["result"].get("value")

    def open(self, path: Path, hash: str = "", *, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        """Load a file at this size, and wait until its scripts have run."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=path.resolve().as_uri() + hash)
        self.ask("new Promise((done, fail) => { let looks = 0; const look = () => "
                 "document.documentElement?.dataset.ready ? done() : "
                 f"++looks > {PATIENCE / 0.03:.0f} ? fail(Error('the page is not ready')) : setTimeout(look, 30); look(); }})")  # fmt: skip

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, text="\r" if key == "Enter" else "",
                      windowsVirtualKeyCode={"Enter": 13, "Tab": 9}[key])  # fmt: skip

    def picture(self, path: Path, *, whole: bool = False) -> None:
        more = {}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            more = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        data = self.send("Page.captureScreenshot", format="png", **more)["data"]
        path.write_bytes(base64.b64decode(data))


def high(descriptor: int) -> int:
    """The same file under a number that is out of the way of 3 and 4."""
    moved = fcntl(descriptor, F_DUPFD_CLOEXEC, 64)
    os.close(descriptor)
    return moved


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a browser that lives in this folder and ends with it."""
    to_browser, to = map(high, os.pipe())
    back, from_browser = map(high, os.pipe())

    def pipes() -> None:  # Chromium reads commands from 3 and writes answers to 4
        os.dup2(to_browser, 3)
        os.dup2(from_browser, 4)

    command = [found(), *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
    process = subprocess.Popen(command, preexec_fn=pipes, pass_fds=(3, 4), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(folder)})  # fmt: skip
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Tab(to, back)
    finally:
        process.kill()
        process.wait()
        os.close(to)
        os.close(back)
