"""A headless Chromium that opens local pages and reports what it saw, driven through its own pipe (DevTools protocol).

Nothing but the browser is needed. ``Testing/system_libraries.sh`` installs Debian's ``chromium-headless-shell``.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
"""Commands that are tried, the smallest first."""
PATIENCE_S = 120
"""How long an answer of the browser is waited for, on a machine that does much else."""

MEASURE = """(() => {
  const images = [...document.images];
  const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest('.table'));
  return { width: document.documentElement.scrollWidth, window: innerWidth,
    images: images.length, broken: images.filter(i => !i.complete || !i.naturalWidth).length,
    unnamed: images.filter(i => !i.alt.trim()).length, scripts: document.scripts.length,
    wide: wide.map(e => e.tagName + ' ' + e.textContent.slice(0, 40)),
    cut: [...document.querySelectorAll('.table')].filter(e => e.scrollWidth > e.clientWidth + 1)
      .map(e => e.textContent.slice(0, 60)),
    dead: [...document.querySelectorAll('a[href^="#"]')].map(a => a.hash).filter(h => !document.querySelector(h)),
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
    text: document.body.innerText };
})()"""


def find_browser() -> str | None:
    """Path of an installed Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Visit:
    """What a browser saw on a page.

    Attributes:
        requests: Addresses that were requested, but for the page itself and embedded data.
        errors: Errors of scripts, and messages on the console.
        layout: Measurements of the laid-out page, as ``MEASURE`` names them.
        picture: PNG of the whole page.
        pdf: PDF of the printed page, empty unless asked for.
    """

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    picture: bytes = b""
    pdf: bytes = b""

    @property
    def pdf_pages(self) -> int:
        """Number of pages of the PDF."""
        return self.pdf.count(b"/Type /Page\n")


class Browser:
    """Connection to a running browser.

    Args:
        to_browser: File descriptor for commands.
        from_browser: File descriptor of answers and events.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []

    def visit(self, page: Path, width: int = 1200, media: str = "screen", dark: bool = False) -> Visit:
        """Open a page and return what was seen; with the medium ``print`` also the PDF of A4 pages."""
        target = self._ask("Target.createTarget", url="about:blank", session=False)["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True, session=False)
        self._session, self._events = attached["sessionId"], []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._resize(width, 800)
        self._ask("Page.navigate", url=page.as_uri())
        self._wait_for("Page.loadEventFired")
        visit = Visit()
        visit.layout = self._ask("Runtime.evaluate", expression=MEASURE, returnByValue=True)["result"]["value"]
        height = int(self._ask("Page.getLayoutMetrics")["cssContentSize"]["height"])
        self._resize(width, min(height, 16000))
        visit.picture = base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])
        if media == "print":
            answer = self._ask("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
            visit.pdf = base64.b64decode(answer["data"])
        visit.requests, visit.errors = self._requests(page), self._errors()
        self._ask("Target.closeTarget", targetId=target, session=False)
        return visit

    def _resize(self, width: int, height: int) -> None:
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def _requests(self, page: Path) -> list[str]:
        sent = [e["params"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        addresses = [params["request"]["url"] for params in sent]
        return [a for a in addresses if a.partition("#")[0] != page.as_uri() and not a.startswith("data:")]

    def _errors(self) -> list[str]:
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"])[:2000] for event in self._events if event["method"] in kinds]

    def _ask(self, method: str, session: bool = True, **params: Any) -> dict[str, Any]:
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": params}
        if session and self._session:
            message["sessionId"] = self._session
        rest = json.dumps(message).encode() + b"\0"
        while rest:
            rest = rest[os.write(self._to, rest) :]
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"the browser refused {method}: {answer['error']}")
                return answer["result"]
            self._events.append(answer)

    def _wait_for(self, method: str) -> None:
        while not any(event.get("method") == method for event in self._events):
            self._events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)
            while b"\0" not in self._buffer:
                if not selector.select(deadline - time.monotonic()):
                    raise TimeoutError(f"the browser has not answered within {PATIENCE_S} s")
                data = os.read(self._from, 1 << 16)
                if not data:
                    raise RuntimeError("the browser has ended")
                self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def running_browser(command: str, profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile and end it afterwards.

    Args:
        command: The browser.
        profile: Empty folder for its profile.
    """
    read_commands, write_commands = os.pipe()
    read_answers, write_answers = os.pipe()
    # The browser reads commands from file descriptor 3 and answers through 4.
    redirected = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
    flags = ["--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--hide-scrollbars"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium's sandbox refuses to run as root
    flags.append("--disable-dev-shm-usage")
    process = subprocess.Popen(
        ["bash", "-c", redirected, "bash", command, *flags],
        pass_fds=(read_commands, write_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_commands)
    os.close(write_answers)
    try:
        yield Browser(write_commands, read_answers)
    finally:
        os.close(write_commands)  # the browser ends with its pipe
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(read_answers)
