"""Free axes: what a user asks to stay free (``--dynamic image=0,2,3``), their names, and inputs of other sizes to try them with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import InputError, ModelError

if TYPE_CHECKING:
    from .tensor import Signature

WORDS = {"batch": 0, "height": 2, "width": 3}
"""Axes of an image that have a word."""

_STEPS: tuple[Callable[[int], int], ...] = (
    lambda s: s + 3,
    lambda s: s + s // 2,
    lambda s: max(2, s // 2),
    lambda s: 2 * s,
    lambda s: s + 8,
    lambda s: s + 16,
    lambda s: s + 32,
)

Free = dict[int, str]
"""The free axes of one input: axis -> name."""


class Wish(msgspec.Struct, frozen=True):
    """Axes that shall be free. ``input`` is "" for the only input; an axis without a name of its own has ""."""

    input: str
    axes: tuple[tuple[int, str], ...]


def read_wish(text: str) -> Wish:
    """``image=0,2:rows,width`` -> the axes 0, 2 (named "rows") and 3 of the input ``image``; without ``image=`` those of the only input."""
    name, equals, listed = text.rpartition("=")
    axes: dict[int, str] = {}
    for part in listed.split(","):
        number, _, label = part.strip().partition(":")
        if number in WORDS and not label:
            number, label = str(WORDS[number]), number
        if not number.isdigit() or (label and not label.isidentifier()):
            raise InputError(
                f"--dynamic '{text}': '{part.strip()}' is not an axis; write numbers counted from 0, with a name if you like, or batch, "
                "height, width: image=0,2:rows,width"
            )
        axes[int(number)] = label
    if equals and not name:
        raise InputError(f"--dynamic '{text}' names no input before '='")
    return Wish(name, tuple(axes.items()))


def grant(wishes: Iterable[Wish], names: Sequence[str], ranks: Sequence[int]) -> list[Free]:
    """The free axes of every input, named. ``names`` and ``ranks`` are the model's inputs in order.

    InputError for an input that the model doesn't have, and for an axis beyond its rank.
    """
    found: list[Free] = [{} for _ in names]
    for wish in wishes:
        if wish.input and wish.input not in names:
            raise InputError(f"--dynamic names the input '{wish.input}'; the model's inputs are: {', '.join(names)}")
        if not wish.input and len(names) != 1:
            raise InputError(f"the model has {len(names)} inputs ({', '.join(names)}); say whose axes: --dynamic {names[0]}=2,3")
        place = names.index(wish.input) if wish.input else 0
        for axis, label in wish.axes:
            if axis >= ranks[place]:
                raise InputError(f"--dynamic: input '{names[place]}' has {ranks[place]} axes, so there is no axis {axis}")
            found[place][axis] = label or axis_name(names[place], axis, ranks[place], first=place == 0)
    return found


def axis_name(name: str, axis: int, rank: int, *, first: bool) -> str:
    """What a free axis is called where nobody said: batch; height and width of the first image; else ``<input>_<axis>``."""
    if axis == 0:
        return "batch"
    word = {v: k for k, v in WORDS.items()}.get(axis) if rank == 4 else None
    return f"{name}_{axis}" if word is None else word if first else f"{name}_{word}"


def free_of(signature: Signature, wishes: Iterable[Wish]) -> tuple[str, ...]:
    """The signature's names of the axes that the wishes ask for. ModelError where one of them is fixed."""
    asked = grant(wishes, [s.name for s in signature.inputs], [len(s.shape) for s in signature.inputs])
    names: list[str] = []
    for spec, free in zip(signature.inputs, asked, strict=True):
        for axis in free:
            have = spec.shape[axis]
            if isinstance(have, int):
                raise ModelError(
                    f"axis {axis} of input '{spec.name}' can't be free: the model was traced or saved with {have} there; give its Python "
                    "source with --dynamic, or export it again with that axis free"
                )
            names.append(have)
    return tuple(dict.fromkeys(names))


def other_sizes(signature: Signature, shapes: Sequence[Sequence[int]]) -> list[dict[str, int]]:
    """Sizes of the free axes beside the batch that differ from those of ``shapes``, in the order to try them; no two axes grow alike."""
    now = {
        axis: int(size)
        for spec, shape in zip(signature.inputs, shapes, strict=True)
        for axis, size in zip(spec.shape, shape, strict=True)
        if isinstance(axis, str) and axis != "batch"
    }
    if not now:
        return []
    found = [{axis: _STEPS[(i + k) % len(_STEPS)](s) for k, (axis, s) in enumerate(now.items())} for i in range(len(_STEPS))]
    # Where sizes must be multiples of something, axes that grow alike often fit, and others not.
    found += [{axis: step(s) for axis, s in now.items()} for step in _STEPS]
    return [sizes for i, sizes in enumerate(found) if sizes != now and sizes not in found[:i]]


def at_sizes(array: Any, axes: Sequence[int | str], sizes: Mapping[str, int]) -> Any:
    """An array or tensor with its free axes at ``sizes``: cut, or repeated from its start."""
    import numpy as np

    for axis, name in enumerate(axes):
        if isinstance(name, str) and name in sizes and array.shape[axis] != sizes[name]:
            index = np.arange(sizes[name]) % array.shape[axis]
            array = array[(slice(None),) * axis + (index,)]
    return array


def told(sizes: Mapping[str, int]) -> str:
    """``height 48, width 96``."""
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items())


def renamed(expression: str, names: Mapping[str, str]) -> str:
    """``4*s77`` -> ``4*height``: torch's symbols by their names."""
    return re.sub(r"[A-Za-z_]\w*", lambda m: names.get(m[0], m[0]), expression)
