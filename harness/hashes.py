r"""Hashes of what is behind a run: files, modules as they were imported, and what was typed in a notebook."""

import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_of_file(path: str | Path) -> str:
    r"""Of the file's content; read again only if its size or time has changed. Of a folder: of its files' names."""
    if os.path.isdir(path):
        return hashed("\n".join(names_in(path)))
    stat = os.stat(path)
    return hash_of_content(os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)


IMPORTED: dict[tuple[str, int], tuple[object, str]] = {}  # hashes of files, by path and by their import


def hash_of_code(name: str, path: Path) -> str:
    r"""Of a module's file, as it was when a run of this process first asked, for as long as it is not imported anew.

    What is changed on disk meanwhile is not what this process runs.

    Arguments:
        name: As ``package/module.py``.
        path: Where it lies.
    """
    module = sys.modules.get(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    if module is None:
        return hash_of_file(path)
    spec = getattr(module, "__spec__", None)  # another one after each import
    return IMPORTED.setdefault((os.path.abspath(path), id(spec)), (spec, hash_of_file(path)))[1]


def hash_of_typed(made: Any) -> str:
    r"""Of a class or function that was typed in a script or notebook, and of its bases there: the compiled code."""
    typed = [each for each in getattr(made, "__mro__", (made,)) if each.__module__ == "__main__"]
    members = [vars(each) if isinstance(each, type) else {each.__name__: each} for each in typed]
    return hashed(json.dumps([{name: told(content) for name, content in each.items()} for each in members]))


def told(content: object) -> object:
    r"""What a function does, as compiled, with its defaults, or a plain value says; nothing of what is neither."""
    content = getattr(content, "__func__", getattr(content, "fget", content))  # of a classmethod, or a property
    code = content if isinstance(content, CodeType) else getattr(content, "__code__", None)
    if isinstance(code, CodeType):
        defaults = [getattr(content, name, None) for name in ("__defaults__", "__kwdefaults__")]
        return [code.co_code.hex(), code.co_names, told(code.co_consts), told(defaults)]
    if isinstance(content, frozenset):
        return sorted(map(repr, content))
    if isinstance(content, list | tuple):
        return [told(each) for each in content]
    if isinstance(content, dict):
        return {str(key): told(each) for key, each in content.items()}
    return repr(content) if isinstance(content, str | bytes | int | float | None) else None


def names_in(folder: str | Path) -> list[str]:
    r"""Names of a folder's files, without hidden ones."""
    return sorted(p.name for p in Path(folder).iterdir() if p.is_file() and not p.name.startswith("."))


@cache
def hash_of_content(path: str, *_: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
