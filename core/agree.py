"""Is an axis free in truth? The graph against the module itself, at other sizes.

torch.export takes one way through the model. Where the model goes another way at another size (``if x.shape[-1] > 64``), the graph would
quietly compute something else there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .axes import at_sizes, other_sizes, told
from .errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from .structure import Call
    from .tensor import Signature

TRIES = 3
LARGE = 1 << 14
TOLERANCE = 1e-4


def require_agreement(module: Any, graph: GraphModule, call: Call, signature: Signature, program: ExportedProgram) -> None:
    """ModelError where ``graph`` gives something else than ``module`` at a size that ``module`` takes: at some other sizes, and just
    outside of the sizes that torch.export took for granted."""
    import torch

    from .bundle import flatten_outputs

    leaves = call.leaves
    outside = list(_outside(program, signature, leaves))
    done = -len(outside)
    for sizes in (*outside, *other_sizes(signature, [leaf.shape for leaf in leaves])):
        if done == TRIES:
            return
        resized = [at_sizes(leaf, spec.shape, sizes) for leaf, spec in zip(leaves, signature.inputs, strict=True)]
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                want = flatten_outputs(call.filled(resized).run(module))
        except Exception:  # the model itself has no answer at this size
            continue
        done += 1
        why = _differs(graph, resized, want)
        if why:
            names = ", ".join(sizes)
            raise ModelError(
                f"{names} can't be free: at {told(sizes)} the model goes another way than at the sizes it was traced with ({why}); leave "
                "--dynamic out for it, or make the model compute the same way at every size"
            )


def _outside(program: ExportedProgram, signature: Signature, leaves: Sequence[Tensor]) -> Iterator[dict[str, int]]:
    """One size below and one above the range that the trace holds for, an axis at a time."""
    now = {a: int(s) for spec, leaf in zip(signature.inputs, leaves, strict=True) for a, s in zip(spec.shape, leaf.shape, strict=True)}
    sizes = {axis: size for axis, size in now.items() if isinstance(axis, str) and axis != "batch"}
    names: dict[str, str] = {}
    inputs = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in set(program.graph_signature.user_inputs)]
    for spec, node in zip(signature.inputs, inputs, strict=True):
        names |= {str(s): a for a, s in zip(spec.shape, node.meta["val"].shape, strict=True) if isinstance(a, str)}
    for symbol, held in program.range_constraints.items():
        axis = names.get(str(symbol))
        if axis is None or axis not in sizes:
            continue
        if held.lower.is_Integer and int(held.lower) > 2:
            yield {**sizes, axis: int(held.lower) - 1}
        if held.upper.is_Integer and int(held.upper) < LARGE:
            yield {**sizes, axis: int(held.upper) + 1}


def _differs(graph: GraphModule, inputs: Any, want: Any) -> str:
    import torch

    from .bundle import flatten_outputs

    try:
        with torch.no_grad():
            have = flatten_outputs(graph(*inputs))
    except Exception as error:
        return f"the traced graph fails there: {str(error).splitlines()[0][:120] if str(error) else type(error).__name__}"
    for i, (a, b) in enumerate(zip(have, want, strict=True)):
        if a.shape != b.shape:
            return f"output {i} has shape {list(a.shape)}, not {list(b.shape)}"
        near = TOLERANCE * max(1.0, float(b.float().abs().max()) if b.numel() else 0.0)
        if not torch.allclose(a.float(), b.float(), rtol=TOLERANCE, atol=near, equal_nan=True):
            return f"output {i} differs by {float((a.float() - b.float()).abs().max()):.3g}"
    return ""
