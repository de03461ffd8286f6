"""The markup of the docstrings as Markdown, and formulas as MathML, which browsers draw without any script."""

import html
import re

from latex2mathml.converter import convert
from markdown import Extension
from markdown.preprocessors import Preprocessor

import hardmax.estimators

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(\w+):`~?([^`]+)`")
DIRECTIVE = re.compile(r"^( *)\.\. math:: (.+)$", re.MULTILINE)
REFERENCES = re.compile(r"(?:^ *\| .*[^|\s]\n(?: +[^|\s].*\n)*)+", re.MULTILINE)  # the rows of a table end in |


class Docstrings(Extension):
    """Lets Markdown understand ``:class:`ARSM```, formulas and references as docstrings write them."""

    def extendMarkdown(self, md):
        md.preprocessors.register(Rewriter(md), "docstrings", 40)  # before blocks of code are taken out


class Rewriter(Preprocessor):
    def run(self, lines):
        return as_markdown("\n".join([*lines, ""])).split("\n")


def as_markdown(text):
    text = DIRECTIVE.sub(r"\1$$\2$$", text)
    text = ROLE.sub(written, text)
    return REFERENCES.sub(as_list, text)


def written(role):
    """A formula between dollars, a link to an estimator, or code."""
    kind, content = role[1], role[2]
    if kind == "math":
        return f"${content}$"
    name = content.removeprefix("hardmax.estimators.")
    known = kind == "class" and name in hardmax.estimators.__all__
    return f"[`{name}`][hardmax.estimators.{name}]" if known else f"`{content}`"


def as_list(block):
    """Lines ``| Title (Authors, year)``, each before a line with its link, as a list of links."""
    entries = re.findall(r"^ *\| (.*\n(?: +[^|\s].*\n)*)", block[0], re.MULTILINE)
    if "://" not in block[0]:
        return block[0]
    lines: list[str] = []
    for entry in (" ".join(e.split()) for e in entries):
        if entry.startswith("http") and lines:
            lines[-1] = f"* [{lines[-1][2:]}]({entry})"
        else:
            lines.append(f"* {entry}")
    return "\n".join([*lines, ""])


def with_formulas(page):
    """The page's HTML with its formulas drawn."""
    return FORMULA.sub(drawn, page)


def drawn(formula):
    """MathML, with the space after log that the converter leaves out."""
    made = convert(html.unescape(formula[3]), display="inline" if formula[2] == "(" else "block")
    return re.sub(r"(<mi>(?:log|ln|exp)</mi>)(?!<mo)", r'\1<mspace width="0.17em"/>', made)
