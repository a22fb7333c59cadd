"""If these fail, the site cannot be built, a link in it leads nowhere, or reading it tells others who reads."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from helpers.project import ROOT

LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
"""Elements of a page that a browser loads, and the attribute that says from where."""


class Page(HTMLParser):
    """What a page loads, where it links to, and the places in it that can be linked to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = {""}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attrs}
        self.places.add(own.get("id", ""))
        if tag in LOADED and not (tag == "link" and own.get("rel") in ("next", "prev", "index", "search", "author")):
            self.loads.append(own.get(LOADED[tag], ""))
        if tag == "a":
            self.links.append(own.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as ``make docs`` does, and return its folder."""
    recipe = re.search(r"\$\(BIN\)/sphinx-build (.*) docs docs/_build\n", (ROOT / "Makefile").read_text())
    assert recipe
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", *recipe[1].split(), "docs", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    """Whoever works without a network, or does not want to be counted, reads it as everybody else does."""
    assert len(pages) > 50
    loaded = {address for page in pages.values() for address in page.loads}
    assert loaded
    assert [address for address in loaded if re.match(r"(?:https?:)?//", address)] == []
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?\s*(?:https?:)?//", styles) == []


def test_every_link_within_the_site_leads_to_a_place_that_is_there(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        for address in page.links:
            path, place = urldefrag(address)
            if re.match(r"\w+:", address) or file.name in ("genindex.html", "search.html"):
                continue
            target = (file.parent / unquote(path)).resolve() if path else file
            known = pages[target].places if target in pages else {""} if target.is_file() else set()
            if unquote(place) not in known:
                broken.append(f"{file.relative_to(site)}: {address}")
    assert broken == []
