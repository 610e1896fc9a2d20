"""A browser for tests of the review page, and waits for what its page shows.

The browser draws a change in a later frame, much later on a busy machine. So a test points at
elements instead of coordinates, and waits for a value instead of reading it once.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

PATIENCE_MS = 120_000  # far beyond what a page takes, on a busy machine too


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the installed Chromium; the test is skipped without it or playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    playwright.expect.set_options(timeout=PATIENCE_MS)
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


@contextmanager
def new_page(browser: Browser, **options: object) -> Iterator[Page]:
    """Open a page that fails its test when a script of the page fails."""
    context = browser.new_context(**({"viewport": {"width": 1440, "height": 1000}} | options))
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def expect_value(read: Callable[[], object], expected: object) -> None:
    """Wait until `read()` equals `expected`; fail with the last value if it does not."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while (value := read()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert value == expected


def place(locator: Locator, x: float, y: float = 0.5) -> dict[str, float]:
    """Return the position, for `click` and `hover`, at shares of the width and height."""
    box = locator.bounding_box()
    return {"x": x * box["width"], "y": y * box["height"]}


def drag(source: Locator, target: Locator, start: dict | None, end: dict) -> None:
    """Press the mouse at a position of `source` (None: its middle) and move it to one of `target`.

    The button stays pressed.
    """
    source.hover(position=start)
    source.page.mouse.down()
    target.hover(position=end, force=True)  # the pointer is captured, so nothing can be in the way
