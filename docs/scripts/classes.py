"""A page for each estimator and each task, made from its config, its class and what is known of it."""

import inspect
import re

import boards
import clouds
import yaml
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from hardmax import markdown
from hardmax.estimators import Estimator
from hardmax.estimators.__main__ import first_reference, typeset
from hardmax.paths import CONFIGS, ROOT

TARGETS = {
    "expectation": "the expected cost of the discrete variables",
    "relaxed": "the expected cost of a relaxation, not of the discrete variables",
    "mode": "the cost of the most probable categories",
    "bound": "a bound of several draws",
    "draws": "the expected cost at its own draws, whose law is not quite the softmax's",
}
COUNTS = ((1, 2), (1, 10), (20, 2), (20, 10), (20, 50))  # of variables and categories, of which evaluations are shown


def pages():
    """Texts by path within the site."""
    return of_estimators() | of_tasks()


def choices(group):
    """Name, class and settings of each config of a group."""
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        config = OmegaConf.to_container(OmegaConf.load(path))
        yield path.stem, get_class(config.pop("_target_")), config


def of_estimators():
    texts, first_name = {}, {}
    for name, made, config in choices("estimator"):
        told = first_name.setdefault(made, name)  # its docstring stands on one page alone
        texts[f"estimators/{name}.md"] = estimator_page(name, made, made(**config), config, told)
    return texts


def estimator_page(name, made, estimator, config, told):
    """Facts, the picture, the certificate, the docstring and the options of an estimator."""
    facts = {
        "Value": f"estimates {TARGETS[estimator.target]}",
        "Gradient": ("unbiased" if estimator.unbiased else "biased")
        + (" (for the bound)" if estimator.target == "bound" and estimator.unbiased else ""),
        "Needs": "the objective's derivative"
        if estimator.differentiates_objective
        else "values of the objective alone",
        "Evaluations": evaluations(estimator),
        "In a model": "`z = estimator.rsample(logits)`, or `cost = estimator(logits, objective)`"
        if made.rsample is not Estimator.rsample
        else "`cost = estimator(logits, objective)`",
        "Learns": made.learns,
        "Paper": first_reference(estimator)[0],
        "Also known as": ", ".join(made.also_known_as),
        "Worth trying": "; ".join(f"`{as_overrides(s)}`" for s in made.worth_trying if s),
    }
    return "\n".join(
        [
            f"# {name}\n",
            docstring_of(made, told, name),
            "\n## In short\n",
            *(f"* **{fact}**: {what}" for fact, what in facts.items() if what),
            "\n## One gradient after another\n",
            f'<div class="cloud">{name}</div>\n',
            "## Its certificate\n",
            certificate(name),
            boards.section(name),
            "\n## In a run\n",
            f"```sh\npython run.py estimator={name}\n```\n",
            options(config),
        ]
    )


def evaluations(estimator):
    """How many of one gradient draw, in general and for some sizes."""
    said = f"{typeset(estimator.evaluations)} for one gradient draw of one example"
    if not re.search(r"\b[KC]\b", estimator.evaluations):
        return said
    counts = [(K, C, evaluations_of(estimator, K, C)) for K, C in COUNTS]
    shown = [f"{n:,}" if n < 1e6 else f"{n:.0e}" for *_, n in counts]
    rows = [f"{n} for {K} × {C}" for (K, C, _), n in zip(counts, shown, strict=True)]
    return f"{said}; of variables × categories: {', '.join(rows)}"


def evaluations_of(estimator, K, C):
    """How many of one gradient draw of K variables of C categories, at most."""
    names = {"K": K, "C": C, "S": getattr(estimator, "samples", 1)}
    return eval(estimator.evaluations.removeprefix("at most "), names)


def as_overrides(settings):
    return " ".join(f"estimator.{key}={value}" for key, value in settings.items()) or "defaults"


def docstring_of(made, told, name):
    """Where the docstring is to be put, or the page on which it is."""
    if told != name:
        return f"The class is that of [`{told}`]({told}.md), with other options.\n"
    return (
        f"::: hardmax.estimators.{made.__name__}\n    options: {{heading_level: 2, show_root_toc_entry: false, "
        "members: false}\n"
    )


def certificate(name):
    """The estimator's line of the certificates, if there is one, with what its columns are."""
    cells = certificate_cells(name)
    if not cells:
        return f"It has none yet: `hardmax certify estimator={name}` makes one.\n"
    shown = markdown.table(cells[0], [cells[1]])
    return f"{shown}\n[What the columns are](../certificates.md); `hardmax certify estimator={name}` makes it anew.\n"


def certificate_cells(name):
    """Titles and cells of the estimator's line of the certificates, without its name; None if there is none."""
    lines = (ROOT / "docs/certificates.md").read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line.startswith(("| what |", f"| `{name}` |"))]
    return [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in found] if len(found) == 2 else None


def options(config):
    """A config's own options, as it states them."""
    kept = {key: value for key, value in config.items() if key not in ("defaults", "data")}
    return f"Options and their defaults:\n\n```yaml\n{yaml.safe_dump(kept, sort_keys=False)}```\n" if kept else ""


def of_tasks():
    texts = {}
    for name, made, config in choices("task"):
        figures = [
            f"* `{key}`: {figure.title}{f', {figure.unit}' if figure.unit else ''}"
            f"{f' ({figure.better} is better)' if figure.better else ''}"
            for key, figure in made.figures.items()
        ]
        texts[f"tasks/{name}.md"] = "\n".join(
            [
                f"# {name}\n",
                f"::: {made.__module__}.{made.__name__}\n    options: {{heading_level: 2, show_root_toc_entry: false, "
                "members: false}\n",
                "## Figures\n",
                *figures,
                "\n## In a run\n",
                f"```sh\npython run.py task={name} estimator=reinforce\n```\n",
                options(config),
            ]
        )
    return texts


def with_tables(text):
    """The text of a page, whose table of estimators leads to their pages, and which has a table of tasks if it asks."""
    text = re.sub(r"^\| `(\w+)` (?=.*https?:|\| )", r"| [`\1`](estimators/\1.md) ", text, flags=re.MULTILINE)
    rows = [[f"[`{name}`](tasks/{name}.md)", summary(made)] for name, made, _ in choices("task")]
    return text.replace("<!-- tasks -->\n", markdown.table(("`task=`", "what"), rows))


def summary(made):
    """What the first sentence of a docstring says, without its references."""
    return re.split(r": see|\. See", inspect.getdoc(made).split("\n")[0])[0].rstrip(".")


def navigation():
    """Titles and pages of both groups."""
    of = lambda group: [{name: f"{group}s/{name}.md"} for name, *_ in choices(group)]
    return [{"Estimators": ["estimators.md", *of("estimator")]}, {"Tasks": ["tasks.md", *of("task")]}]


def cloud(name):
    """HTML of the picture of an estimator."""
    return clouds.cloud(instantiate(OmegaConf.load(CONFIGS / "estimator" / f"{name}.yaml")))
