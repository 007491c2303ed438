"""The app in a process of its own, and pages of Chromium that note what goes wrong in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--autoplay-policy=no-user-gesture-required"]
DESKTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@contextmanager
def served_lake(uri: str) -> Iterator[str]:
    """Start the app on a lake by its command; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tonelake", "ui", "--lake", uri, "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=HOME, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line
        for _ in range(300):
            try:
                urllib.request.urlopen(address[0] + "/_stcore/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        yield address[0]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@dataclass
class Noted:
    """Errors of a browser page and its requests.  A test that provokes an error empties `errors` afterwards."""

    served: str
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    def foreign(self) -> list[str]:
        """Requests to a host other than the app's."""
        own = (self.served, self.served.replace("http", "ws"), "data:", "blob:")
        return [url for url in self.requested if not url.startswith(own)]


@contextmanager
def browser_page(browser: Any, noted: Noted, **settings: Any) -> Iterator[Any]:
    """Open a page.  Fails on exceptions shown in the page, JavaScript errors, console errors, and requests to other hosts."""
    context = browser.new_context(accept_downloads=True, **settings)
    page = context.new_page()
    page.set_default_timeout(30_000)
    noted.watch(page)
    yield page
    shown = page.locator("[data-testid=stException], .st-key-page_failed").count()
    context.close()
    assert not shown and not noted.errors and not noted.foreign(), (noted.errors, noted.foreign())
