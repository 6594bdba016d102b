"""Recipes: which passes with which settings, which files come out, which limits hold. TOML, schema 1::

    schema = 1
    name = "prune50-int8"
    summary = "..."

    [[pass]]
    use = "prune"
    macs = 0.5

    [export]
    formats = ["onnx"]            # absent: every format that the target runs
    precisions = ["fp32", "int8"]

    [gates]
    max-drop = 1.0                # points of the task's metric

    [trust]                       # absent: reported, not enforced; see core/trust.py
    class-drop = 1.0

A key that is not known, in the recipe or in a pass, is refused with the known ones.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..core.errors import RecipeError
from ..core.registry import unknown
from ..core.trust import TrustLimits
from .passes import Pass, make, passes


class Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="kebab"):
    """Which files come out. ``formats`` empty means every format that the target runs."""

    formats: tuple[str, ...] = ()
    precisions: tuple[Literal["fp32", "fp16", "int8"], ...] = ("fp32",)


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="kebab"):
    """Limits that make a run fail. ``max_drop``: points of the metric lost; ``max_latency``: p90 of the recommended file in ms;
    ``min_speedup``: of every integer file against the float file in its runtime."""

    max_drop: float | None = None
    max_latency: float | None = None
    min_speedup: float | None = None


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One pass by name with its settings (kebab-case)."""

    use: str
    settings: dict[str, Any] = {}


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A validated recipe: every pass exists and takes its settings."""

    name: str
    summary: str = ""
    passes: tuple[Use, ...] = ()
    export: Export = Export()
    gates: Gates = Gates()
    trust: TrustLimits | None = None

    def make_passes(self) -> list[Pass[Any]]:
        """The passes, ready to run, in order."""
        return [make_pass(step.use, step.settings) for step in self.passes]

    def override(self, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """The same recipe with some settings changed: ``{"prune": {"macs": 0.4}, "export": {...}, "gates": {...}, "trust": {...}}``.

        A pass that stands in the recipe more than once is changed in every place. None removes a setting.
        """
        tree = self._tree()
        for name, settings in changes.items():
            if name in ("export", "gates", "trust"):
                places = [tree.setdefault(name, {})]
            else:
                places = [step for step in tree["pass"] if step["use"] == name]
            if not places:
                used = ", ".join(dict.fromkeys(step["use"] for step in tree["pass"])) or "no pass"
                raise RecipeError(f"recipe '{self.name}' has no pass '{name}' to change; it has: {used}")
            for place in places:
                place.update(settings)
                for key in [k for k, v in place.items() if v is None]:
                    del place[key]
        return _from_tree(tree, f"recipe '{self.name}'")

    def to_toml(self) -> str:
        """The recipe as a file that ``load_recipe`` reads back to an equal one."""
        return _dump(self._tree())

    def _tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = {"schema": 1, "name": self.name}
        if self.summary:
            tree["summary"] = self.summary
        tree["pass"] = [{"use": step.use, **step.settings} for step in self.passes]
        tree["export"] = {k: list(v) for k, v in msgspec.to_builtins(self.export).items() if v}
        tree["gates"] = {k: v for k, v in msgspec.to_builtins(self.gates).items() if v is not None}
        if self.trust is not None:
            tree["trust"] = _changed(self.trust)
        return tree


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    schema: Literal[1]
    name: str | None = None
    summary: str = ""
    passes: list[dict[str, Any]] = msgspec.field(default_factory=list, name="pass")
    export: Export = Export()
    gates: Gates = Gates()
    trust: TrustLimits | None = None


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a ``.toml`` file. What is wrong in it raises RecipeError naming the place and what is known."""
    if name in shipped():
        text = (resources.files(__package__) / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
        return read_recipe(text, f"recipe '{name}'", name)
    path = Path(name)
    if path.suffix != ".toml":
        raise RecipeError(f"{unknown('recipe', name, shipped())}; or give the path of a recipe.toml")
    if not path.is_file():
        raise RecipeError(f"recipe file '{path}' does not exist; shipped recipes: {', '.join(shipped())}")
    try:
        return read_recipe(path.read_text(encoding="utf-8"), f"recipe '{path}'", path.stem)
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe '{path}' is not a text file") from error


def read_recipe(text: str, place: str, name: str) -> Recipe:
    """A recipe from TOML text; ``place`` is the word for messages, ``name`` what it is called where it doesn't say."""
    import tomllib

    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{place} is not TOML: {error}") from error
    return _from_tree({"name": name, **tree}, place)


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with packlight."""
    folder = resources.files(__package__) / "recipes"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def make_pass(name: str, settings: dict[str, Any]) -> Pass[Any]:
    """The pass ``name`` with ``settings``; every pass of packlight is known here."""
    load_passes()
    return make(name, settings)


@functools.cache
def load_passes() -> None:
    """Imports every module of this room, so that each pass has filed itself. None of them imports anything heavy."""
    package = importlib.import_module(__package__)
    for module in pkgutil.walk_packages(package.__path__, f"{__package__}."):
        importlib.import_module(module.name)


def _from_tree(tree: dict[str, Any], place: str) -> Recipe:
    _refuse_unknown(tree, ("schema", "name", "summary", "pass", "export", "gates", "trust"), place)
    for key, kind in (("export", Export), ("gates", Gates), ("trust", TrustLimits)):
        if isinstance(tree.get(key), dict):
            _refuse_unknown(tree[key], tuple(f.encode_name for f in msgspec.structs.fields(kind)), f"{place}, [{key}]")
    try:
        file = msgspec.convert(tree, _File)
    except msgspec.ValidationError as error:
        raise RecipeError(f"{place}: {error}") from error
    steps = []
    load_passes()
    for number, step in enumerate(file.passes, 1):
        use = step.get("use")
        if not isinstance(use, str):
            raise RecipeError(f"{place}, pass {number} has no 'use'; known passes: {', '.join(passes.names())}")
        settings = {k: v for k, v in step.items() if k != "use"}
        try:
            make(use, settings)
        except RecipeError as error:
            raise RecipeError(f"{place}, pass {number}: {error}") from error
        steps.append(Use(use=use, settings=settings))
    return Recipe(
        name=file.name or "recipe", summary=file.summary, passes=tuple(steps), export=file.export, gates=file.gates, trust=file.trust
    )


def _changed(limits: TrustLimits) -> dict[str, Any]:
    """The limits that are not the defaults; one that is left out is written as 100, which never fails."""
    usual = msgspec.to_builtins(TrustLimits())
    return {k: 100.0 if v is None else v for k, v in msgspec.to_builtins(limits).items() if v != usual[k] or k == "alpha"}


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise RecipeError(f"{place} has the unknown key '{key}'{hint}; known: {', '.join(known)}")


def _dump(tree: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in tree.items() if not _is_table(value)]
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines += ["", f"[{key}]", *(f"{_key(k)} = {_value(v)}" for k, v in value.items())]
        elif isinstance(value, list) and _is_table(value):
            for entry in value:
                lines += ["", f"[[{key}]]", *(f"{_key(k)} = {_value(v)}" for k, v in entry.items())]
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items())} }}" if value else "{}"
    raise RecipeError(f"a recipe can't hold {value!r} ({type(value).__name__})")
