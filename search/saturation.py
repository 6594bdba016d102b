"""Which layer's integer kernel loses what the file says: each layer alone, on what really reaches it.

The file is run as written, in float, and the integers that enter each layer are kept. Then each layer is a file of its own (dequantize,
convolve or multiply, quantize), run by the runtime's integer kernel and as written. With y and k the two outputs and s the step in which
the output is stored::

    gap = 10 log10(1 + mean((y - k)^2) / (s^2 / 12))            in dB over the output's own rounding; near zero where nothing saturates

A layer above ``LIMIT_DB`` fails: more noise then comes from its kernel than from storing its result.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..core.errors import InputError, require
from ..core.tensor import to_door
from .kernels import LIMIT_DB, REMEDY, chosen, sqnr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.preprocess import Preprocess

LAYERS = ("Conv", "Gemm", "MatMul")


class LayerGap(msgspec.Struct, frozen=True, kw_only=True):
    """One layer in one runtime. ``gap_db``: see above; ``between_db``: SQNR of the kernel's output against the written one (None: equal);
    ``weight_max``: the largest integer among its weights; ``ok``: whether the gap is within the limit."""

    layer: str
    op: str
    runtime: str
    gap_db: float
    between_db: float | None
    weight_max: int
    samples: int
    ok: bool


def examine_file(
    file: Path, data: str | None = None, preprocess: Preprocess | None = None, runtimes: Sequence[str] = (), seed: int = 0
) -> tuple[LayerGap, ...]:
    """The layers of an int8 ONNX file with a manifest beside it, on samples of ``data`` (noise in [0, 1] where there is none).

    InputError where the file is no integer ONNX file."""
    from ..targets.runtime import installed
    from .bench import artifact_at, noise, samples_of

    artifact, folder = artifact_at(file)
    if artifact.format != "onnx" or artifact.precision != "int8":
        raise InputError(f"'{file.name}' is {artifact.format} {artifact.precision}; layers are examined of int8 ONNX files")
    samples = samples_of(data, None, None, preprocess or artifact.preprocess, seed)
    if samples is None:
        inputs = tuple(noise(artifact, seed))
    else:
        inputs = samples.batch(chosen(samples, artifact.signature))[0]
    doors = [to_door(x, spec) for x, spec in zip(inputs, artifact.signature.inputs, strict=True)]
    names = tuple(runtimes) or tuple(r for r in ("onnxruntime", "openvino") if installed(r))
    return layer_gaps(folder / artifact.file, doors, names)


def layer_gaps(path: Path, inputs: Sequence[NDArray[Any]], runtimes: Sequence[str]) -> tuple[LayerGap, ...]:
    """Every layer between pairs of quantize and dequantize, in the order of the file, in each of ``runtimes``."""
    from ..targets.runtime import open_session

    onnx: Any = require("onnx", "onnx")
    model = onnx.load(str(path))
    cut = [c for c in (_cut(onnx, model, node) for node in model.graph.node if node.op_type in LAYERS) if c is not None]
    if not cut:
        raise InputError(f"'{path.name}' has no layer between quantize and dequantize operators")
    found = []
    with tempfile.TemporaryDirectory(prefix="packlight-layers-") as name:
        folder = Path(name)
        entering = _entering(onnx, model, [source for _, source, _, _ in cut], inputs, folder)
        for number, (node, source, step, part) in enumerate(cut):
            file = folder / f"{number}.onnx"
            onnx.save(part, str(file))
            stored = _constant(onnx, part, part.graph.node[1].input[0])
            for runtime in runtimes:
                y, k = (open_session(file, runtime, optimise=o).run(entering[source])[0].astype(np.float64) for o in (False, True))
                y, k = (v * step if np.issubdtype(part_type(onnx, part), np.integer) else v for v in (y, k))
                error = float(np.mean((y - k) ** 2))
                unit = step or float(np.ptp(y)) / 255 or 1.0
                gap = 10 * float(np.log10(1 + error / (unit**2 / 12)))
                between = sqnr([y], [k])
                found.append(
                    LayerGap(
                        layer=str(node.name).rpartition("/")[0] or str(node.name),
                        op=str(node.op_type),
                        runtime=runtime,
                        gap_db=round(gap, 2),
                        between_db=round(between, 2) if np.isfinite(between) else None,
                        weight_max=int(np.abs(stored.astype(np.int16)).max()),
                        samples=len(inputs[0]),
                        ok=gap <= LIMIT_DB,
                    )
                )
    return tuple(found)


def part_type(onnx: Any, part: Any) -> Any:
    """The numpy type of a part's output."""
    return onnx.helper.tensor_dtype_to_np_dtype(part.graph.output[0].type.tensor_type.elem_type)


def _entering(onnx: Any, model: Any, names: Sequence[str], inputs: Sequence[NDArray[Any]], folder: Path) -> dict[str, NDArray[Any]]:
    """The stored integers of ``names`` in the whole file, run as written."""
    from ..targets.runtime import open_session

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    wanted = list(dict.fromkeys(names))
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.UINT8, None) for n in wanted)
    file = folder / "whole.onnx"
    onnx.save(whole, str(file))
    return dict(zip(wanted, open_session(file, "onnxruntime", optimise=False).run(*inputs), strict=True))


def _cut(onnx: Any, model: Any, node: Any) -> tuple[Any, str, float, Any] | None:
    """``node`` with its pairs as a model of its own: (node, the integers it reads, its output's step or 0, model), or None."""
    made = {name: n for n in model.graph.node for name in n.output}
    readers = [n for n in model.graph.node if node.output[0] in n.input]
    reads: list[Any] = [made.get(name) for name in node.input]
    if any(r is None or r.op_type != "DequantizeLinear" for r in reads) or reads[1].input[0] in made or reads[0].input[0] not in made:
        return None
    after = readers[0] if len(readers) == 1 and readers[0].op_type == "QuantizeLinear" else None
    nodes = [*reads, node, *([after] if after is not None else [])]
    constants = {i.name: i for i in model.graph.initializer}
    used = [constants[name] for name in dict.fromkeys(n for one in nodes for n in one.input) if name in constants]
    source = reads[0].input[0]
    step = float(onnx.numpy_helper.to_array(constants[after.input[1]]).reshape(-1)[0]) if after is not None else 0.0
    rank = len(onnx.numpy_helper.to_array(constants[reads[1].input[0]]).shape)
    kind = onnx.TensorProto.UINT8 if after is not None else onnx.TensorProto.FLOAT
    shape = [None] * rank
    graph = onnx.helper.make_graph(
        nodes,
        "layer",
        [onnx.helper.make_tensor_value_info(source, onnx.TensorProto.UINT8, shape)],
        [onnx.helper.make_tensor_value_info(nodes[-1].output[0], kind, shape)],
        used,
    )
    return node, source, step, onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _constant(onnx: Any, part: Any, name: str) -> NDArray[Any]:
    return onnx.numpy_helper.to_array(next(i for i in part.graph.initializer if i.name == name))  # type: ignore[no-any-return]


def lines(found: Sequence[LayerGap]) -> list[str]:
    """The table for a terminal."""
    width = max(len(g.layer) for g in found)
    told = [f"{'layer':{width}}  {'runtime':11}  gap dB  kernel against file dB  largest weight"]
    for g in found:
        between = "equal" if g.between_db is None else f"{g.between_db:.1f}"
        told.append(f"{g.layer:{width}}  {g.runtime:11}  {g.gap_db:6.1f}  {between:>22}  {g.weight_max:14}{'' if g.ok else '  saturates'}")
    return told


def verdict(found: Sequence[LayerGap]) -> str:
    """Why it fails, "" where every layer is within the limit."""
    bad = [g for g in found if not g.ok]
    if not bad:
        return ""
    worst = max(bad, key=lambda g: g.gap_db)
    return (
        f"{len(bad)} of {len(found)} layers lose more than {LIMIT_DB:g} dB to this CPU's integer kernels, most {worst.layer} "
        f"({worst.gap_db:.1f} dB in {worst.runtime}); {REMEDY}"
    )
