r"""Tables as Markdown has them."""

import re
from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], right: bool = False) -> str:
    r"""A table; cells are Markdown, and all but the first may be aligned to the right."""
    rules = ["---"] + ["---:" if right else "---"] * (len(titles) - 1)
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in (titles, rules, *rows))


def plain_text(text: str) -> str:
    r"""A text in one line that makes no HTML, no link and no new cell."""
    return re.sub(r"([\\|<>\[\]])", r"\\\1", " ".join(text.splitlines()))


def literal(text: str) -> str:
    r"""A text in one line that makes nothing but itself."""
    return re.sub(r"([*_`])", r"\\\1", plain_text(text))
