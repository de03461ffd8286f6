"""The site: it builds without a warning, opens without a network, and none of its links is dead."""

import functools
import html
import os
import re
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


def test_no_link_is_dead_in_the_repository():
    """But for pictures of the tutorial, which are drawn as the site is built."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for page in listed.splitlines():
        links = re.findall(r"\]\((?!https?:|mailto:|#|pictures/)([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8"))
        assert not [link for link in links if not (ROOT / page).parent.joinpath(link).exists()], page


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


def printed(page):
    """What the blocks of a page print, as one text."""
    blocks = re.findall(r'<div class="prints highlight">(.*?)</div>', page.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "", "\n".join(blocks)))


def test_the_tutorial_computes_what_it_says(site):
    text = printed(site / "tutorial.html")
    lines = text.splitlines()
    assert lines[:3] == ["tensor([0.09, 0.24, 0.67])", "tensor([0.02, 0.05, 0.94])", "tensor([0.09, 0.24, 0.67])"]
    for finite in ("tensor([0., 0., 1.]) tensor([-2000., -1000.,     0.])", "tensor([-11000.,  -9999.,      0.])"):
        assert finite in text, "logits of (1000, 2000, 3000) and (-1000, 1, 10000)"
    assert text.count("nan") == 4, "what overflows is naive"
    told = dict(re.findall(r"^([^:\n]+): +(tensor\([^)]*\)|[+-]\S+)$", text, re.MULTILINE))
    exact = told["exact"]
    assert told["REINFORCE, all outcomes"] == exact != told["straight-through, all outcomes"]
    assert numbers(told["mean over 100,000 divisions"]) == pytest.approx(numbers(exact), abs=0.015)  # 4 standard errors
    assert len(re.findall('<figure class="picture"', (site / "tutorial.html").read_text(encoding="utf-8"))) == 13


def test_every_estimator_and_task_has_a_page(site):
    assert "<table>" in (site / "estimators.html").read_text(encoding="utf-8")
    for group in ("estimator", "task"):
        for config in (ROOT / "configs" / group).glob("*.yaml"):
            page = (site / f"{group}s/{config.stem}.html").read_text(encoding="utf-8")
            assert f'<h1 id="{config.stem}">{config.stem}' in page
            pictures = 1 + ("When it is tuned" in page)
            assert group == "task" or page.count('<figure class="picture">') == pictures


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+\.\d+", text)]
