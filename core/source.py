"""Running the user's own Python: ``file.py:name`` and ``package.module:name``, errors told in one line with their place."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import InputError, PacklightError


def looks_like_source(spec: str) -> bool:
    """Whether ``spec`` has the form ``file.py[:name]`` or ``package.module:name``."""
    place, colon, _ = spec.rpartition(":")
    return spec.endswith(".py") or (bool(colon) and (place.endswith(".py") or all(p.isidentifier() for p in place.split("."))))


@contextlib.contextmanager
def user_object(spec: str, what: str, error: type[InputError]) -> Iterator[Any]:
    """The object that ``spec`` names, and a context in which its code may run.

    Inside the context the folder of a ``file.py`` is on ``sys.path`` and what the code prints goes to stderr; both are undone
    after, and the modules it imported from that folder are forgotten. ``what`` ("model", "data") is the word for messages, which
    raise ``error``. An exception of the user's code, in the import or in the context, becomes one line with file and line.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or "/" in name or name.endswith(".py"):
        place, name = spec, ""
    file = Path(place) if place.endswith(".py") else None
    with _quiet_stdout(), _folder_on_path(file.resolve().parent if file else None):
        module = _import_file(file, what, error) if file else _import_module(place, what, error)
        if not name:
            raise error(f"{what} '{spec}' names no factory; write {place}:NAME with one of: {_callables(module)}")
        if not hasattr(module, name):
            raise error(f"'{place}' has no '{name}'; it has: {_callables(module)}")
        with told(f"{what} '{spec}' failed", error):
            yield getattr(module, name)


@contextlib.contextmanager
def told(doing: str, error: type[InputError]) -> Iterator[None]:
    """Exceptions of the user's code as one line of type ``error``: what was being done, the exception, its file and line."""
    try:
        yield
    except PacklightError:
        raise
    except (Exception, SystemExit) as exception:
        raise error(f"{doing}: {one_line(exception)}") from exception


def one_line(exception: BaseException) -> str:
    """``TypeError: message (at net.py:12)``, the innermost place outside installed packages."""
    lines = [line.strip() for line in str(exception).splitlines() if line.strip()]
    message = f"{type(exception).__name__}: {lines[0][:300]}" if lines else type(exception).__name__
    if isinstance(exception, SyntaxError) and exception.filename:
        return f"{message.partition(' (')[0]} (at {Path(exception.filename).name}:{exception.lineno})"
    own = [f for f in traceback.extract_tb(exception.__traceback__) if is_users(f.filename)]
    return f"{message} (at {Path(own[-1].filename).name}:{own[-1].lineno})" if own else message


def parse_arguments(texts: Iterable[str], option: str = "--model-args") -> dict[str, Any]:
    """``k=v`` pairs; a value is a Python literal (numbers, strings, tuples, True) and, where it isn't one, a plain string."""
    out: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"{option} '{text}' is not of the form name=value")
        try:
            out[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            out[key] = value
    return out


def _import_file(file: Path, what: str, error: type[InputError]) -> ModuleType:
    if not file.is_file():
        raise error(f"{what} file '{file}' does not exist")
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
    name = f"_packlight_user_{digest}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look a class's module up there
    try:
        with told(f"{what} file '{file}' can't be imported", error):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(place: str, what: str, error: type[InputError]) -> ModuleType:
    try:
        found = importlib.util.find_spec(place)
    except (ImportError, ValueError) as missing:
        raise error(f"{what} module '{place}' can't be found: {one_line(missing)}; install it or give the path of a .py file") from missing
    if found is None:
        raise error(f"{what} module '{place}' can't be found; install it or give the path of a .py file")
    with told(f"{what} module '{place}' can't be imported", error):
        return importlib.import_module(place)


def _callables(module: ModuleType) -> str:
    own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_") and getattr(v, "__module__", "") == module.__name__]
    functions = [n for n in own if inspect.isfunction(getattr(module, n))]
    return ", ".join(functions + [n for n in own if n not in functions]) or "nothing that can be called"


def is_users(filename: str) -> bool:
    """Whether a file is the user's own: neither installed, nor Python's, nor of this package."""
    parts = Path(filename).parts
    inside_us = Path(filename).resolve().is_relative_to(Path(__file__).resolve().parent.parent) and "examples" not in parts
    library = "site-packages" in parts or filename.startswith("<") or Path(filename).is_relative_to(Path(inspect.__file__).parent)
    return not library and (not inside_us or "tests" in parts)


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _folder_on_path(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin and not name.startswith("_packlight_user_") and Path(origin).parent == folder:
                del sys.modules[name]
