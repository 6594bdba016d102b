"""An operator list: TOML, schema 1, with its source. ``operators`` maps the format's names to a condition in words ("" for none)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from ...core.errors import TargetError
from ...core.registry import unknown


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A condition on one operator that the file can be asked about; whatever is given must hold, else ``why`` is the reason.

    ``attribute`` must be one of ``values`` (a missing attribute is ``default``, and fits where that is not given); ``input``'s rank must
    be one of ``ranks``; the inputs in ``constant`` must be constants; at most ``outputs`` outputs may be used; dtypes of inputs and
    outputs that are not constant must be among ``dtypes``.
    """

    op: str
    why: str
    attribute: str = ""
    values: tuple[int | float | str | tuple[int, ...], ...] = ()
    default: int | float | str | None = None
    ranks: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()
    outputs: int = 0
    dtypes: tuple[str, ...] = ()


class OperatorList(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one runtime or delegate takes.

    ``partitions``: "any" number of pieces may run there, or the "first" alone (what follows an operator that isn't taken stays on the CPU).
    ``fixed_shapes``: free axes are refused. ``integer``: only quantized operators are taken. ``ignored`` operators vanish before
    anything runs. ``remedies`` say what to try by operator; ``remedy`` is for the rest.
    """

    schema: Literal[1] = 1
    name: str
    runtime: str
    format: Literal["onnx", "tflite"]
    source: str
    url: str
    partitions: Literal["any", "first"] = "any"
    fixed_shapes: bool = False
    integer: bool = False
    ignored: tuple[str, ...] = ()
    remedy: str = "replace the layer by operators on the list, or choose a CPU target"
    remedies: dict[str, str] = {}
    limits: tuple[Limit, ...] = ()
    operators: dict[str, str]


def list_names() -> tuple[str, ...]:
    """The names of the lists that come with packlight, sorted."""
    return tuple(sorted(p.stem for p in _shipped().glob("*.toml")))


def load_list(name: str) -> OperatorList:
    """A list by its name, or a .toml file of the user's. Raises TargetError that names the key and what was expected."""
    path = Path(name) if name.endswith(".toml") else _shipped() / f"{name}.toml"
    if not name.endswith(".toml") and name not in list_names():
        raise TargetError(unknown("operator list", name, list_names()))
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=OperatorList)
    except OSError as error:
        raise TargetError(f"operator list '{name}' can't be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"operator list '{name}' is not of schema 1: {error}") from error
    stray = sorted({limit.op for limit in found.limits} - set(found.operators))
    if stray:
        raise TargetError(f"operator list '{name}' limits operators that it doesn't hold: {', '.join(stray)}")
    return found


def _shipped() -> Path:
    return Path(str(files(__package__) / "lists"))
