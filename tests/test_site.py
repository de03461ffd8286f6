"""The site: it builds without a warning, opens without a network, and none of its links is dead."""

import functools
import os
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pytest

from helpers.commands import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The built site's folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(folder)]  # strict: a warning is an error
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """What a page links to, what it loads, and the places within it that a link can name."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.places = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places |= {found.get("id"), found.get("name")} - {None}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(found["href"])
        elif "src" in found:
            self.loaded.append(found["src"])


@functools.cache
def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


def test_no_link_is_dead_and_nothing_is_loaded_from_elsewhere(site):
    dead, foreign, pages = [], [], sorted(site.rglob("*.html"))
    for path in pages:
        page = page_of(path)
        foreign += [f"{path.name}: {url}" for url in page.loaded if "://" in url or url.startswith("//")]
        if path.name == "404.html":  # is served from any folder
            continue
        for url in page.links + page.loaded:
            target, place = urldefrag(url)
            if "://" in url or url.startswith("mailto:"):
                continue
            file = (path.parent / unquote(target)).resolve() if target else path
            if not file.is_file() or (place and place != "__skip" and unquote(place) not in page_of(file).places):
                dead.append(f"{path.relative_to(site)}: {url}")
    assert not foreign
    assert not dead
    assert len(pages) > 10


def test_formulas_are_drawn_without_a_script(site):
    estimators = (site / "reference/estimators.html").read_text(encoding="utf-8")
    assert "<math" in estimators
    assert not [path.name for path in site.rglob("*.html") if "arithmatex" in path.read_text(encoding="utf-8")]
