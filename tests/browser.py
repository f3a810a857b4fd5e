"""Pages in a real browser: what they log and request, how they look, what their scripts answer.

The browser is the system's Chromium or Chrome, driven by Playwright, which has none of its own here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = 1280, 375

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Relative luminance and contrast as WCAG 2 defines them, of text on what is painted behind it.
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => { for (; node; node = node.parentElement) {
    const colour = rgba(getComputedStyle(node).backgroundColor); if (colour[3] === 255) return colour; }
    return [255, 255, 255]; };
  let worst = [99, ''];
  for (const node of document.querySelectorAll('h1, h2, p, small, li, th, td, b, figcaption, code, svg text')) {
    const style = getComputedStyle(node);
    const text = light(rgba(node.closest('svg') ? style.fill : style.color)), paper = light(behind(node));
    const ratio = (Math.max(text, paper) + 0.05) / (Math.min(text, paper) + 0.05);
    if (ratio < worst[0]) worst = [ratio, node.tagName + ' ' + node.textContent.slice(0, 40)];
  }
  return worst;
}"""


@dataclass
class Seen:
    """A page that was opened.

    Attributes:
        page: Playwright's page, to click in, and to evaluate JavaScript.
        errors: What it logged as an error or warning, and what its scripts raised.
        requests: Addresses that it asked for, its own first; ``data:`` is none.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def js(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        return self.page.evaluate(expression)

    def screenshot(self, file: Path) -> Path:
        """A picture of the whole page."""
        self.page.screenshot(path=str(file), full_page=True)
        return file


Open = Callable[..., Seen]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium or Chrome: 'apt-get install chromium', or your system's way to get one")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install 'pvzoo[test]'")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Opens a file or an address: ``open_page(path, width=PHONE, scheme="dark")``."""
    with ExitStack() as opened:

        def run(where: Path | str, *, width: int = DESKTOP, scheme: Literal["light", "dark"] = "light") -> Seen:
            context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            opened.callback(context.close)
            seen = Seen(context.new_page())
            seen.page.on("console", lambda said: said.type in ("error", "warning") and seen.errors.append(said.text))
            seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
            seen.page.on("request", lambda request: seen.requests.append(request.url))
            seen.page.goto(where.resolve().as_uri() if isinstance(where, Path) else where, wait_until="networkidle")
            seen.requests = [address for address in seen.requests if not address.startswith("data:")]
            return seen

        yield run
