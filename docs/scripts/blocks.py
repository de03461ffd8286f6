"""Blocks of Python in a page: what they print stands below them, as of when the site was built."""

import contextlib
import io
import re

import torch

BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def with_output(text, page):
    """The text of a page with what each of its blocks prints; they share their names."""
    names = {"__name__": page}

    def run(block):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block[1], page, "exec"), names)
        output = printed.getvalue()
        return block[0] + (f"\n```{{ .text .prints }}\n{output}```\n" if output else "")

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BLOCK.sub(run, text)
