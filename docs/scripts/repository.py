"""Pages that lie outside of docs, where who reads the repository looks for them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"results.md": "RESULTS.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:)([^)#]+)(#[^)]*)?\)")


def pages():
    """Text by path within the site."""
    return {page: for_the_site((ROOT / file).read_text(encoding="utf-8")) for page, file in PAGES.items()}


def within_the_site(text):
    """The text of a page of docs, whose links to these pages hold in the repository, as they hold within the site."""
    names = "|".join(file.removesuffix(".md") for file in PAGES.values())
    return re.sub(rf"\]\(((?:\.\./)*)\.\./({names})\.md", lambda found: f"]({found[1]}{found[2].lower()}.md", text)


def for_the_site(text):
    """The text with links that hold within the site; of those to other files of the repository their words alone."""
    return LINK.sub(link, text)


def link(found):
    mark, words, path, anchor = found[1], found[2], found[3], found[4] or ""
    names = {file: page for page, file in PAGES.items()}
    inside = names.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    return f"{mark}[{words}]({inside}{anchor})" if inside else words
