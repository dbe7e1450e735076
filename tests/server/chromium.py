"""A headless Chromium, driven over its debugging pipe: no driver, no package, no port."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


CODES = {
    "Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "PageUp": 33, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
    "ArrowDown": 40, "Delete": 46, "+": 187, "-": 189,
}  # fmt: skip


class Chromium:
    """One browser with one page. Collects the page's requests and console messages."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        assert BINARY is not None
        (command_read, command_write), (answer_read, answer_write) = os.pipe(), os.pipe()
        # Chromium reads descriptor 3 and writes descriptor 4; ours must not be in the way.
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (command_read, answer_write)]
        for fd in (command_read, answer_write):
            os.close(fd)

        def connect() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [BINARY, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for fd in ends:
            os.close(fd)
        self._write, self._read = command_write, answer_read
        self._buffer = b""
        self._count = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = next(t for t in self._command("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session: str | None = None
        attached = self._command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self._command(f"{domain}.enable")
        # Without it a page that is not in front hears of no focus.
        self._command("Emulation.setFocusEmulationEnabled", enabled=True)

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        try:
            self._command("Browser.close", limit=5)
            self._process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def open(self, address: str) -> None:
        """Go to a page. A change of the hash alone is followed without loading."""
        self._command("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression; a promise is awaited."""
        result = self._command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, limit: float = 60.0) -> None:
        """Wait for a JavaScript expression to be true."""
        end = time.monotonic() + limit
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}; {self.complaints}"
            time.sleep(0.05)

    def choose(self, selector: str, file: Path) -> None:
        """Put a file into a file input, as a person's choice would."""
        root = self._command("DOM.getDocument")["root"]["nodeId"]
        node = self._command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._command("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def press(self, key: str, shift: bool = False) -> None:
        """A key of the keyboard: one of CODES, or a character."""
        text = {"Enter": "\r", "Space": " "}.get(key, key if len(key) == 1 else None)
        name = " " if key == "Space" else key
        code = CODES.get(key) or ord(key.upper())
        same: dict[str, Any] = {"key": name, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self._command("Input.dispatchKeyEvent", **down, **same)
        self._command("Input.dispatchKeyEvent", type="keyUp", **same)

    def drag(self, selector: str, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse on an element, move and let go; both points as shares of its width and height."""
        (x0, y0), (x1, y1) = (self._at(selector, *point) for point in (begin, end))
        mouse = {"button": "left", "clickCount": 1}
        self._command("Input.dispatchMouseEvent", type="mousePressed", x=x0, y=y0, **mouse)
        for share in (0.5, 1.0):
            x, y = x0 + (x1 - x0) * share, y0 + (y1 - y0) * share
            self._command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self._command("Input.dispatchMouseEvent", type="mouseReleased", x=x1, y=y1, **mouse)

    def scroll(self, selector: str, down: float) -> None:
        """Turn the mouse's wheel over the middle of an element."""
        x, y = self._at(selector, 0.5, 0.5)
        self._command("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=down)

    def pinch(self, selector: str, begin: float, end: float) -> None:
        """Two fingers on an element, moved from one distance (a share of its width) to another."""
        for kind, apart in (("touchStart", begin), ("touchMove", (begin + end) / 2), ("touchMove", end)):
            places = [self._at(selector, 0.5 + side * apart / 2, 0.5) for side in (-1, 1)]
            points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
            self._command("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        self._command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def drop(self, selector: str, file: Path) -> None:
        """Drag a file from outside onto an element and drop it."""
        x, y = self._at(selector, 0.5, 0.5)
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._command("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def _at(self, selector: str, across: float, down: float) -> tuple[float, float]:
        box = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{box}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y, width, height = self.run(
            f"(({{x, y, width, height}}) => [x, y, width, height])({box}.getBoundingClientRect())"
        )
        return x + width * across, y + height * down

    def tree(self) -> list[tuple[str, str]]:
        """Role and name of everything that a screen reader is told of, in order."""
        nodes = self._command("Accessibility.getFullAXTree")["nodes"]
        told = [node for node in nodes if not node.get("ignored")]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in told]

    def dress(
        self, width: int = 1280, height: int = 900, dark: bool = False, phone: bool = False, calm: bool = True
    ) -> None:
        """Size and colour scheme of the screen; `calm` asks for reduced motion."""
        scale = 2 if phone else 1
        self._command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        self._command("Emulation.setTouchEmulationEnabled", enabled=phone)
        wishes = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if calm else "no-preference",
        }
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self._command("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """A PNG of the whole page."""
        data = self._command("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _command(self, method: str, limit: float = 60.0, **params: Any) -> dict[str, Any]:
        self._count += 1
        number = self._count
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + limit
        while True:
            answer = self._next(end, method)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self._note(answer)

    def _next(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium does not answer {method}"
            piece = os.read(self._read, 1 << 16)
            assert piece, "Chromium has ended"
            self._buffer += piece
        raw, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(raw))

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:500])
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["args"])[:500])
