r"""What sections of a page are made of: templates, and the charts that its script draws."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from .looks import Look

HERE = Path(__file__).resolve().parent
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Section:
    r"""A part of the page: its heading, and HTML."""

    title: str
    html: Markup


class Charts:
    r"""What a page draws: charts by their numbers, with data and specifications for its script, and pictures."""

    def __init__(self):
        self.all: list[dict] = []
        self.pictures: list[str] = []

    def add(self, **chart: object) -> int:
        self.all.append(chart)
        return len(self.all) - 1


def rendered(template: str, **content: object) -> Markup:
    return Markup(TEMPLATES.get_template(template).render(swatch=swatch, **content))


def swatch(look: Look) -> Markup:
    r"""A piece of an estimator's line with its marker."""
    shapes = {
        "circle": "M13 6a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
        "square": "M13.5 2.5h7v7h-7z",
        "triangle-up": "M17 1.5l4.5 8h-9z",
        "diamond": "M17 1l3.6 5l-3.6 5l-3.6-5z",
        "cross": "M15.4 2h3.2v2.4h2.4v3.2h-2.4v2.4h-3.2v-2.4h-2.4v-3.2h2.4z",
        "triangle-down": "M17 10.5l4.5-8h-9z",
        "triangle-right": "M21.5 6l-8 4.5v-9z",
        "triangle-left": "M12.5 6l8 4.5v-9z",
    }
    dash = f' stroke-dasharray="{" ".join(map(str, look.dash))}"' if look.dash else ""
    return Markup(
        '<svg class="swatch" viewBox="0 0 34 12" width="34" height="12" aria-hidden="true">'
        f'<path d="M0 6h34" stroke="{look.colour}" stroke-width="2"{dash}/>'
        f'<path d="{shapes[look.shape]}" fill="{look.colour}"/></svg>'
    )
