"""Code that a user names: ``file.py:Name`` or ``package.module:Name``. Nothing else of anybody's is run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from delaynet_lava.errors import InputError, reason

__all__ = ["load_named"]


def load_named(word: str, option: str) -> Any:
    """The object that ``word`` names, after its module was run.

    A file is run with its own folder importable, as ``python file.py`` would. Modules are looked for in the
    working directory too.

    Args:
        word: ``file.py:Name`` or ``package.module:Name``.
        option: how errors call what was asked for.

    Raises:
        InputError: not such a word, no such file, module or name, or code that fails when it is run.
    """
    source, colon, name = word.rpartition(":")
    if not colon or not source or not name.isidentifier():
        raise InputError(
            f"{option} {word}", "does not name code", "write file.py:Name or package.module:Name"
        )
    try:
        module = _file(Path(source), option) if source.endswith(".py") else _module(source)
    except InputError:
        raise
    except Exception as error:  # a stranger to us: its code may raise anything
        raise InputError(f"{option} {word}", f"{source} fails when it is run ({reason(error)})") from error
    if not hasattr(module, name):
        here = module.__name__
        mine = sorted(key for key, value in vars(module).items() if getattr(value, "__module__", 0) == here)
        known = ", ".join(mine[:20]) or "nothing"
        raise InputError(f"{option} {word}", f"{source} has no {name}", f"it defines: {known}")
    return getattr(module, name)


def _file(path: Path, option: str) -> Any:
    if not os.path.isfile(path):
        raise InputError(f"{option} {path}", "does not exist", "give the path of the file that defines it")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Classes that are pickled, by data loaders for example, are looked up by the name of their module.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _module(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)
