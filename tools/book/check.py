"""Follows every internal link of the built book, and opens each page in a headless browser: `make book-check`.

The browser is the Chromium on the path, or else the one that `playwright install chromium` fetches. A page fails where
the browser reports an error, a figure is not shown or has no alt text, or a file is not found.
"""

import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Route, sync_playwright

HOST = "book"
PIXEL = {"content_type": "image/svg+xml", "body": "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>"}
LACKING = "[...document.images].filter(i => !i.naturalWidth || !i.alt || i.alt.endsWith('.png')).map(i => i.src)"


class Page(HTMLParser):
    """What a page links to, and the names in it that a link can end at."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names = {""}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for key, value in attrs if key in ("href", "src") and value]
        self.names |= {value for key, value in attrs if key == "id" and value}


def broken(pages: dict[Path, Page]) -> list[str]:
    """Links within the site that end nowhere."""
    faults = []
    for file, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            known = pages[target].names if target in pages else {unquote(url.fragment)}
            if not (url.scheme or url.netloc) and not (target.is_file() and unquote(url.fragment) in known):
                faults.append(f"{file.name}: no {link}")
    return faults


def shown(site: Path, pages: dict[Path, Page]) -> list[str]:
    """What goes wrong where a browser opens each page, counts its figures, and searches."""
    faults: list[str] = []

    def answer(route: Route) -> None:
        url = urlsplit(route.request.url)
        file = site / unquote(url.path).lstrip("/")
        here: dict[str, Any] = {"path": file} if file.is_file() else {"status": 404}
        route.fulfill(**(here if url.netloc == HOST else PIXEL))  # a badge is from elsewhere; no network is needed

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"))
        view = browser.new_page()
        view.route("**/*", answer)
        view.on("console", lambda told: faults.extend([f"{view.url}: {told.text}"] * (told.type == "error")))
        view.on("pageerror", lambda error: faults.append(f"{view.url}: {error}"))
        for file in pages:
            name = file.relative_to(site).as_posix()
            view.goto(f"http://{HOST}/{name}")
            faults += [f"{name}: {source} is not shown, or without words" for source in view.evaluate(LACKING)]
            source = site / "_sources" / Path(name).with_suffix(".ipynb")
            figures = source.read_text(encoding="utf-8").count('"image/png": "') if source.exists() else 0
            if (there := view.locator("main img").count()) < figures:
                faults.append(f"{name}: {there} of {figures} figures")
        view.goto(f"http://{HOST}/search.html?q=confusion")
        view.locator("#search-results li").first.wait_for()
        browser.close()
    return faults


def main() -> int:
    """Command line: the folder of the site. Exit status 1 where anything is wrong."""
    site = Path(sys.argv[1]).resolve()
    pages = {file: Page(file) for file in sorted(site.rglob("*.html")) if "_static" not in file.parts}
    faults = broken(pages) + shown(site, pages)
    print("\n".join([*faults, f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links"]))
    return 1 if faults or len(pages) < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
