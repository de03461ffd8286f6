"""What the site does beyond MkDocs: pages made from the classes, and the project's own markup and formulas."""

import re

import blocks
import boards
import choose
import classes
import drawing
import markup
import pictures
import repository
import sources
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url

FOREIGN = "https://unpkg.com/iframe-worker/shim"  # what the plugin offline would load
PICTURE = re.compile(r"!\[([^\]]*)\]\(pictures/(\w+)\.svg\)")


@event_priority(100)  # before the reader of docstrings is set up
def on_config(config):
    config.markdown_extensions.append(markup.Docstrings())
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [sources.laid_out()]
    place = next(n for n, entry in enumerate(config.nav) if "Results" in entry)
    config.nav[place:place] = classes.navigation()
    return config


def on_files(files, config):
    for path, text in (repository.pages() | classes.pages()).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(text, page, config, files):
    if page.meta.get("run"):
        text = blocks.with_output(text, page.file.src_uri)
    if page.file.src_uri in ("estimators.md", "tasks.md"):
        text = classes.with_tables(text)
    if page.file.src_uri == "index.md":
        text = text.replace("<!-- answer of the README -->\n", choose.answer())
    if page.file.src_uri == "choose.md":
        if choose.filled(text) != text:
            raise PluginError("docs/choose.md is not what the classes and archives make it: make table")
        text = choose.for_the_site(text)
    text = repository.within_the_site(text)
    return PICTURE.sub(r'<div class="picture" title="\1">\2</div>', text)


def on_page_content(html, page, config, files):
    html = re.sub(r'<div class="picture" title="([^"]*)">(\w+)</div>', picture, html)
    html = re.sub(r'<div class="cloud">(\w+)</div>', lambda found: classes.cloud(found[1]), html)
    html = re.sub(r'<div class="sensitivity">(\w+)</div>', lambda found: boards.picture(found[1]), html)
    return markup.with_formulas(html)


def picture(found):
    """A picture of the tutorial, drawn."""
    caption, name = " ".join(found[1].split()), found[2]
    return drawing.figure(getattr(pictures, name), caption, name)


def on_post_page(output, page, config):
    return output.replace(FOREIGN, get_relative_url("style/worker.js", page.url))


def on_post_template(output, template_name, config):
    return output.replace(FOREIGN, "/style/worker.js")
