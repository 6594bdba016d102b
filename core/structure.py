"""The arguments of a model, which may be nested: tuples, lists and dicts of tensors, by position and by keyword.

torch.export flattens them in the order of ``forward``'s parameters, and so do we; every tensor is called after the way to it::

    forward(self, image, pair, batch)   image, pair_0, pair_1, batch_mask
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.export import ExportedProgram

    from .axes import Free


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a module. ``parameters`` are the names and kinds of ``forward``'s own; ``keywords`` stand in their order."""

    parameters: tuple[tuple[str, Any], ...]
    positional: tuple[Any, ...]
    keywords: dict[str, Any]

    @staticmethod
    def of(module: torch.nn.Module, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Call:
        """ModelError where ``forward`` doesn't take these, or where one of them is no tensor."""
        signature = inspect.signature(module.forward)
        try:
            signature.bind(*positional, **keywords)
        except TypeError as error:
            wants = ", ".join(signature.parameters) or "nothing"
            raise ModelError(f"the model can't be called so: {error}; its forward takes {wants}") from error
        order = list(signature.parameters)
        ordered = sorted(keywords, key=lambda k: order.index(k) if k in order else len(order))
        call = Call(tuple((p.name, p.kind) for p in signature.parameters.values()), tuple(positional), {k: keywords[k] for k in ordered})
        for name, leaf in zip(call.names, call._flat(), strict=True):
            _require_tensor(name, leaf)
        return call

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """The tensors, flat."""
        return tuple(self._flat())

    @property
    def names(self) -> tuple[str, ...]:
        """What the tensors are called, in the order of ``leaves``."""
        from torch.utils import _pytree

        found = []
        for name, value in self._bound(self.positional, self.keywords).items():
            found += ["_".join([name, *map(_key, path)]) for path, _ in _pytree.tree_flatten_with_path(value)[0]]
        return tuple(found)

    @property
    def plain_names(self) -> tuple[str, ...]:
        """The names where they can name a door, all different and without odd characters; else none."""
        names = self.names
        return names if len(set(names)) == len(names) and all(re.fullmatch(r"\w+", n) for n in names) else ()

    @property
    def flat(self) -> bool:
        """Whether it is plain tensors by position."""
        import torch

        return not self.keywords and all(isinstance(a, torch.Tensor) for a in self.positional)

    def filled(self, leaves: Sequence[Tensor]) -> Call:
        """The same call with other tensors."""
        return Call(self.parameters, *self._unflat(leaves))

    def dynamic(self, axes: Sequence[Free]) -> dict[str, Any] | None:
        """torch.export's ``dynamic_shapes``: the free axes of the flat tensors, in the arguments' structure."""
        import torch

        if not any(axes):
            return None
        return self._bound(*self._unflat([dict.fromkeys(free, torch.export.Dim.DYNAMIC) for free in axes]))

    def run(self, module: Any) -> Any:
        """The module's result."""
        return module(*self.positional, **self.keywords)

    def _flat(self) -> list[Any]:
        from torch.utils import _pytree

        return list(_pytree.tree_leaves((self.positional, self.keywords)))

    def _unflat(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        from torch.utils import _pytree

        positional, keywords = _pytree.tree_unflatten(list(leaves), _pytree.tree_structure((self.positional, self.keywords)))
        return tuple(positional), dict(keywords)

    def _bound(self, positional: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
        """The arguments by parameter, in ``forward``'s order; only those that are given."""
        values, rest = list(positional), dict(keywords)
        found: dict[str, Any] = {}
        for name, kind in self.parameters:
            if kind is inspect.Parameter.VAR_POSITIONAL:
                if values:
                    found[name] = tuple(values)
                values = []
            elif kind is inspect.Parameter.VAR_KEYWORD:
                if rest:
                    found[name] = rest
                rest = {}
            elif values and kind is not inspect.Parameter.KEYWORD_ONLY:
                found[name] = values.pop(0)
            elif name in rest:
                found[name] = rest.pop(name)
        return found


def nested(names: Sequence[str], leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments from flat tensors and the ways to them: "" is the next position, ``image`` a keyword, ``batch.mask`` a key of the dict
    ``batch``, ``pair.0`` a place in the tuple ``pair``.

    ModelError where a position follows a keyword, or a name is both a tensor and something that holds some.
    """
    positional: list[Any] = []
    tree: dict[str, Any] = {}
    for name, leaf in zip(names, leaves, strict=True):
        if not name:
            if tree:
                raise ModelError("an input without a name follows one with a name; name them all, or put those without names first")
            positional.append(leaf)
            continue
        *way, last = name.split(".")
        place = tree
        for part in way:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ModelError(f"input '{name}' goes through '{part}', which is a tensor itself")
        if last in place:
            raise ModelError(f"input '{name}' is given twice")
        place[last] = leaf
    return tuple(positional), {key: _tuples(value) for key, value in tree.items()}


def arranged(module: torch.nn.Module, positional: Sequence[Any], keywords: Mapping[str, Any], ways: Sequence[str]) -> Call:
    """The call that ``nested`` arguments mean: by keyword, or as the one dict that ``forward`` takes where it has no such parameters.

    ModelError where the tensors stand in another order than ``forward`` takes them: data and files go by position from here on.
    """
    try:
        call = Call.of(module, positional, keywords)
    except ModelError:
        if positional or not keywords or len(inspect.signature(module.forward).parameters) != 1:
            raise
        call = Call.of(module, (dict(keywords),), {})
    if call.keywords and any(ways):
        given, names = [way.replace(".", "_") for way in ways if way], list(call.names)
        if given != names[len(call.positional) :]:
            raise ModelError(f"the model takes its inputs in the order {', '.join(names)}; they were given as {', '.join(given)}")
    return call


def _tuples(value: Any) -> Any:
    """A dict whose keys are 0, 1, 2 is a tuple."""
    if not isinstance(value, dict):
        return value
    inner = {key: _tuples(one) for key, one in value.items()}
    places = [str(i) for i in range(len(inner))]
    return tuple(inner[p] for p in places) if set(inner) == set(places) else inner


def _require_tensor(name: str, leaf: Any) -> None:
    import torch

    if not isinstance(leaf, torch.Tensor):
        raise ModelError(f"input '{name}' is a {type(leaf).__name__}; a model for a device takes tensors only")


def output_names(program: ExportedProgram, leaves: Sequence[Any], taken: set[str]) -> list[str]:
    """``output`` for one, ``output_0``, ``output_1`` for several; the keys of a dict or fields of a named tuple on the way to it instead.

    A name that an input has gets ``_out`` behind it. ``leaves`` are the flat results; those that are no graph node are left out.
    """
    import torch
    from torch.utils import _pytree

    kept = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.fx.Node)]
    plain = ["output"] if len(kept) == 1 else [f"output_{i}" for i in range(len(kept))]
    spec = program.call_spec.out_spec
    if spec is None or spec.num_leaves != len(leaves):
        return plain
    paths, _ = _pytree.tree_flatten_with_path(_pytree.tree_unflatten(list(range(len(leaves))), spec))
    ways = [paths[i][0] for i in kept]
    if not all(_named(way) for way in ways):
        return plain
    names = [_joined(way) if _named(way[:1]) else f"output_{_joined(way)}" for way in ways]
    if len(set(names)) < len(names) or not all(re.fullmatch(r"\w+", name) for name in names):
        return plain
    return [f"{name}_out" if name in taken else name for name in names]


def _named(way: Sequence[Any]) -> bool:
    return any(hasattr(k, "key") or hasattr(k, "name") for k in way)


def _joined(way: Sequence[Any]) -> str:
    return "_".join(map(_key, way))


def _key(part: Any) -> str:
    return str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", ""))))
