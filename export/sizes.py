"""Files with free axes, proven at other sizes than the one they were traced with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.artifact import Parity
from ..core.axes import at_sizes, other_sizes, told
from ..core.errors import ContractError, InputError, ParityError

if TYPE_CHECKING:
    from ..core.bundle import Bundle
    from ..core.tensor import Signature
    from .prove import References

SIZES = 2
ROWS = 2


class At(msgspec.Struct, frozen=True):
    """The graphs' answers at other sizes of the free axes."""

    sizes: Mapping[str, int]
    known: Any

    def __str__(self) -> str:
        return told(self.sizes)


def free_in(signature: Signature) -> tuple[str, ...]:
    """The free axes of the inputs beside the batch."""
    return tuple(dict.fromkeys(a for spec in signature.inputs for a in spec.free_axes if a != "batch"))


def elsewhere(bundle: Bundle, known: References, again: Callable[[Any], References]) -> list[At]:
    """Two rows at up to ``SIZES`` other sizes that the graph takes. ``again(inputs)`` gives the graphs' answers."""
    shapes = [x.shape for x in known.inputs]
    found: list[At] = []
    for sizes in other_sizes(bundle.signature, shapes):
        if len(found) == SIZES:
            break
        inputs = tuple(at_sizes(x[:ROWS], spec.shape, sizes) for x, spec in zip(known.inputs, bundle.signature.inputs, strict=True))
        try:
            found.append(At(sizes, again(inputs)))
        except RuntimeError:  # torch: the model has no answer at this size
            continue
    return found


def worst(figures: Sequence[tuple[At, Parity]]) -> list[Parity]:
    """One figure a reference and runtime: the worst of all sizes, which it names."""
    groups: dict[tuple[str, str], list[tuple[At, Parity]]] = {}
    for at, figure in figures:
        groups.setdefault((figure.against, figure.runtime), []).append((at, figure))
    found = []
    for members in groups.values():
        least = min((p.sqnr_db for _, p in members if p.sqnr_db is not None), default=None)
        found.append(
            msgspec.structs.replace(
                members[0][1],
                sqnr_db=least,
                max_abs=max(p.max_abs for _, p in members),
                samples=sum(p.samples for _, p in members),
                at="; ".join(str(at) for at, _ in members),
            )
        )
    return found


def no_resize(file: str, signature: Signature, error: Exception) -> Exception:
    """What a TFLite file says that must keep an axis free and doesn't."""
    names = ", ".join(dict.fromkeys(a for spec in signature.inputs for a in spec.free_axes))
    if isinstance(error, ParityError | ContractError):
        why = f"resized, it computes something else ({error})"
    elif isinstance(error, InputError):
        why = str(error)
    else:
        why = f"the interpreter refuses: {str(error).strip().splitlines()[0][:160]}"
    return InputError(
        f"'{file}' can't keep {names} free: {why.replace('; the file was removed', '')}; some operator holds the size in TFLite; leave "
        "--dynamic out for TFLite, or write --format onnx,openvino"
    )


def unproven(signature: Signature, model: Signature, found: Sequence[At]) -> str:
    """A note where the graph takes no other size; "" where it was proven at some, or nothing beside the batch is free."""
    free = [axis for axis in free_in(signature) if axis in free_in(model)]
    if not free or found:
        return ""
    return f"{', '.join(free)} not proven at other sizes: the model took none of those that were tried"
