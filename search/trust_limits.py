"""The gate's limits, from a recipe's ``[trust]`` table and from words."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import msgspec

from ..core.errors import RecipeError
from ..core.registry import unknown
from ..core.trust import TrustLimits


def read_limits(recipe: str | None, changes: Sequence[str] = ()) -> TrustLimits:
    """The recipe's limits (the defaults where it has none), with some changed: ``("class-drop=2", "ece-rise=None")``."""
    limits = TrustLimits()
    if recipe is not None:
        from ..compress.recipe import load_recipe

        limits = load_recipe(recipe).trust or limits
    tree: dict[str, Any] = msgspec.to_builtins(limits)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise RecipeError(f"'{change}' is not LIMIT=VALUE (for example class-drop=2)")
        if key not in tree:
            raise RecipeError(unknown("limit", key, tree))
        try:
            tree[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise RecipeError(f"limit '{key}' is '{text}'; give a number, or None to leave it out") from None
    try:
        return msgspec.convert(tree, TrustLimits)
    except msgspec.ValidationError as error:
        raise RecipeError(f"trust: {error}") from error


def for_drop(limits: TrustLimits | None, max_drop: float | None) -> TrustLimits:
    """The limits for a job that allows the whole to lose ``max_drop`` points: a class may lose as much, since the average of all does."""
    if limits is not None:
        return limits
    limits = TrustLimits()
    if max_drop is None:
        return limits
    allowed = max(max_drop, 0.0)
    return msgspec.structs.replace(
        limits,
        drop=allowed,
        class_drop=max(allowed, limits.class_drop or 0.0),
        class_errors=max(allowed, limits.class_errors or 0.0),
        group_drop=max(allowed, limits.group_drop or 0.0),
    )
