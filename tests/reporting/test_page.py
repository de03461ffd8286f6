"""The report's page as a reader meets it, in headless Chromium."""

import re
import shutil

import pytest

from hardmax.reporting.charts import axis_limits, curve_rows, cut_rows
from hardmax.reporting.curves import curve_of
from hardmax.reporting.groups import grouped
from hardmax.reporting.runs import find_runs
from hardmax.reporting.writing import write
from helpers.made_up import run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</script><script>document.title='stolen'</script><img src=x onerror=document.title='stolen'>"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path: make browser installs it")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report on two tasks; five estimators on one, with a name and a text that would be markup."""
    folder = tmp_path_factory.mktemp("runs")
    for n, name in enumerate(("softmax", "straight_through", "gumbel_softmax", "arsm", "reinforce")):
        for seed in (1, 2):
            measured = {"variance": 2.0**n, "bias2": 0.1 * n, "bias2_error": 0.01, "true_norm": 1.0}
            more = {f"gradient/logits/{k}": v for k, v in measured.items()} | {
                "gradient/evaluations": 1 + n,
                "gradient/logits/snr": 1.0 + n,
            }
            settings = {"estimator.mode": HOSTILE if seed == 1 else "plain"} if name == "arsm" else {}
            end = -20.0 - n - seed / 10 + 60 * (n == 0)  # the first is far ahead
            rows = [
                {
                    "step": step,
                    "train/loss": 10 - end - step / 10,
                    "valid/elbo": end - 10 + step / 10 - 1e4 * (not step),
                }
                | {"cost/evaluations": step}
                for step in range(0, 101, 25)
            ]
            place = run(folder, name, seed, end, more=more, settings=settings, rows=rows)
            (place / "texts.csv").write_text(f"sentence,reconstruction\n{HOSTILE},{HOSTILE}\n")
    run(folder, "arsm", task="toy")
    run(folder, "reinforce", 2, None, task="toy")
    return write.__wrapped__([folder], folder / "report", [], [])[1][-1]  # holds charts against the schema


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, report):
    """The page, drawn; afterwards, whether it asked for anything or complained."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)  # machines may be busy
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_function("document.querySelectorAll('.charts:not([hidden]) > .chart .plot svg').length >= 6")
    yield page
    assert messages == []
    assert requests == [report.as_uri()]
    assert page.title() == "hardmax report: dvae; toy"
    page.close()


def chart(page, title):
    """The chart under a heading, on the first task."""
    return page.locator("#task-1 figure.chart", has=page.get_by_role("heading", name=title)).first


def lines(found):
    """Colours of the lines in a chart."""
    return {path.get_attribute("stroke") for path in found.locator(".mark-line path").all()}


@pytest.mark.long
def test_axes_are_switched(page):
    loss = chart(page, "training loss")
    last = lambda: loss.locator(".mark-text.role-axis-label").first.locator("text").last.text_content()
    assert loss.get_by_text("optimiser steps").count() == 1
    assert last() == "100"
    page.locator("#task-1").get_by_label("seconds of training").check()
    loss.get_by_text("seconds of training").wait_for()
    assert float(last()) == 2
    assert loss.get_by_text("optimiser steps").count() == 0
    page.locator("#task-1").get_by_label("evaluations of the objective").check()
    loss.get_by_text("evaluations of the objective, per example").wait_for()
    assert page.locator("#task-2").get_by_text("optimiser steps").count() > 1, "the other task stays as it is"


def test_axes_are_those_of_pictures(page, report):
    """What the page's script computes is what Python does; the first row lies far off, and is marked."""
    runs = find_runs([report.parent.parent]).runs
    (groups,) = (own for problem, own in grouped(runs, [], [], []).items() if problem == "dvae")
    rows = curve_rows(filter(None, (curve_of(group, "valid/elbo", "steps", 200) for group in groups)))
    low, high = axis_limits(rows, log=False, better=1)
    plot = chart(page, "validation ELBO")
    ticks = plot.locator(".mark-text.role-axis-label").last.locator("text").all_text_contents()
    ticks = [float(text.replace("−", "-")) for text in ticks]
    assert low <= min(ticks) < max(ticks) <= high
    assert high - low < 2.5 * (max(ticks) - min(ticks))
    cut = cut_rows(rows, [low, high])
    assert {row["x"] for row in cut} == {0}
    assert plot.locator("[aria-roledescription=point][aria-label*=cut]").count() == len(cut)


def test_estimators_are_hidden_in_all_charts(page):
    loss, bias = chart(page, "training loss"), chart(page, "One gradient draw")
    button = page.locator("#task-1 .legend").get_by_role("button", name="reinforce", exact=True)
    colour = button.locator("path").last.get_attribute("fill")
    assert colour in lines(loss)
    assert bias.locator(f"path[fill='{colour}']").count() == 1
    assert page.locator(f"#task-1 table.final tr[data-label=reinforce] path[fill='{colour}']").count() == 1
    count = len(lines(loss))
    button.click()
    page.wait_for_function(f"!document.querySelector('#task-1 .mark-line path[stroke=\"{colour}\"]')")
    assert len(lines(loss)) == count - 1
    assert bias.locator(f"path[fill='{colour}']").count() == 0
    assert button.get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="hide all").click()
    loss.get_by_text("nothing to show").wait_for()
    page.get_by_role("button", name="show all").click()
    loss.locator("svg").wait_for()
    assert len(lines(loss)) == count


def test_pointing_at_a_curve_tells_its_figures(page):
    plot = chart(page, "validation ELBO").locator("svg")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    tooltip = page.locator("#vg-tooltip-element.visible")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + box["height"] / 2)
    tooltip.wait_for()
    text = tooltip.inner_text()
    assert re.search(r"estimator\W+\w+", text)
    assert re.search(r"optimiser steps\W+(25|50|75)\b", text)
    assert re.search(r"validation ELBO, discrete draws\W+[−-]\d", text)


def test_more_curves_are_drawn_when_asked_for(page):
    more = page.locator("#task-1 details.more")
    assert more.locator("svg").count() == 0
    more.locator("summary").click()
    more.locator("svg").first.wait_for()


def test_names_from_runs_stay_text(page):
    assert page.get_by_role("button", name=f"arsm (mode={HOSTILE})").is_visible()
    assert page.locator("#task-1 table.texts").get_by_text(HOSTILE).first.is_visible()
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_its_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    plots = page.locator(".charts:not([hidden]) > .chart .plot")
    for n in range(plots.count()):
        box = plots.nth(n).locator("svg").bounding_box() if plots.nth(n).is_visible() else {"x": 0, "width": 200}
        assert box["width"] > 150
        assert box["x"] + box["width"] <= width
