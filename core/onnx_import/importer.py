"""From the file to the Bundle: read, build, capture, prove."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..bundle import Bundle
from ..errors import ModelError, PacklightError, UnsupportedOpError
from ..history import Step
from ..preprocess import Preprocess
from ..pt2 import first_line
from . import prove
from .read import opset, read

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from .module import Network

HINT = "give --data, or every input's shape with --input"


def import_onnx(path: Path, name: str, examples: Sequence[Tensor] = ()) -> Bundle:
    """The model in ``path``, proven against ONNX Runtime on random inputs.

    ``examples``: one tensor per input, needed where the file leaves another axis than the batch free. The batch is free where the file
    says so, and where it fixes one but its rows prove independent of it; other free axes keep their names. Labels, preprocessing and task
    are read from a file that packlight wrote. Raises UnsupportedOpError (operator, node), ParityError, ModelError.
    """
    from . import ops  # noqa: F401  files the converters
    from .module import make_module

    proto = read(path)
    module, network = make_module(proto.graph, opset(proto))
    module.eval()
    doors = {str(i.name): i.type.tensor_type for i in proto.graph.input}
    half = any(t.data_type in (10, 16) for t in proto.graph.initializer) or any(doors[n].elem_type in (10, 16) for n in network.inputs)
    samples = _samples(path, network, doors, examples)
    axes = _free_axes(network, doors)
    _first_run(path, module, samples)
    _names(network, doors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = _capture(path, module, network, samples, axes, name)
    figure = _prove(path, bundle, network, half)
    changes: dict[str, Any] = {
        "opset": opset(proto),
        "producer": _producer(proto),
        "sqnr_db": None if figure == float("inf") else round(figure, 1),
    }
    step = Step(name="import-onnx", changes=changes)
    return bundle.replace(history=(step, *bundle.history), **_metadata(proto))


def _samples(path: Path, network: Network, doors: dict[str, Any], examples: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The examples, checked, else random ones in the file's own shapes (free batch: two rows)."""
    import torch

    if examples and len(examples) != len(network.inputs):
        raise ModelError(f"'{path}' takes {len(network.inputs)} inputs ({', '.join(network.inputs)}), got {len(examples)}; {HINT}")
    generator = torch.Generator().manual_seed(0)
    found = []
    for place, name in enumerate(network.inputs):
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in doors[name].shape.dim]
        dtype = _dtype(path, name, doors[name].elem_type)
        if examples:
            given = examples[place].to(dtype)
            if len(given.shape) != len(sizes) or any(s is not None and s != g for s, g in zip(sizes[1:], given.shape[1:], strict=True)):
                want = "x".join("?" if s is None else str(s) for s in sizes)
                raise ModelError(f"'{path}': input '{name}' is {want}, got {'x'.join(map(str, given.shape))}; {HINT}")
            if sizes and sizes[0] is not None and sizes[0] != given.shape[0]:
                given = given[torch.arange(sizes[0]) % given.shape[0]]
            found.append(given)
            continue
        if any(s is None for s in sizes[1:]):
            free = [str(d.dim_param or i) for i, d in enumerate(doors[name].shape.dim) if i and sizes[i] is None]
            raise ModelError(f"'{path}': input '{name}' has free axes ({', '.join(free)}); {HINT}")
        shape = [2 if s is None else s for s in sizes]
        if any(s < 1 for s in shape):
            raise ModelError(f"'{path}': input '{name}' has a size of {min(shape)}")
        if dtype.is_floating_point:
            found.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            found.append(torch.randint(0, 2, shape, generator=generator).to(dtype))
    if not found:
        raise ModelError(f"'{path}' takes no inputs: it is a constant, not a model")
    return tuple(found)


def _dtype(path: Path, name: str, number: int) -> Any:
    import torch

    known = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float32}
    known |= {5: torch.int16, 11: torch.float64, 16: torch.float32}
    if number not in known:
        raise ModelError(f"'{path}': input '{name}' has a type that torch doesn't have (number {number} in ONNX)")
    return known[number]


def _free_axes(network: Network, doors: dict[str, Any]) -> list[dict[int, str]]:
    """Names of the axes that the file leaves free; the first input's first is the batch, and so is every other of that name."""
    first = doors[network.inputs[0]].shape.dim
    batch = first[0].dim_param if len(first) and not first[0].HasField("dim_value") else None
    found: list[dict[int, str]] = []
    for name in network.inputs:
        free: dict[int, str] = {}
        for axis, dim in enumerate(doors[name].shape.dim):
            if dim.HasField("dim_value"):
                continue
            if batch is not None and dim.dim_param == batch and (dim.dim_param or axis == 0):
                free[axis] = "batch"
            else:
                free[axis] = _identifier(dim.dim_param) or f"{_identifier(name)}_{axis}"
        found.append(free)
    return found


def _identifier(text: str) -> str:
    text = re.sub(r"\W+", "_", text).strip("_")
    return text if text.isidentifier() else f"axis_{text}" if text else ""


def _first_run(path: Path, module: Module, samples: tuple[Tensor, ...]) -> None:
    """Once on real numbers: layers make their parameters, and what doesn't fit is told as such."""
    import torch

    try:
        with torch.no_grad():
            module(*samples)
    except PacklightError:
        raise
    except Exception as error:  # torch's own types
        raise ModelError(f"'{path}' can't be run in torch: {first_line(error)}") from error


def _names(network: Network, doors: dict[str, Any]) -> None:
    for name in (*network.inputs, *network.outputs):
        if not name:
            raise ModelError("the ONNX file has an input or output without a name")


def _capture(path: Path, module: Module, network: Network, samples: tuple[Tensor, ...], axes: list[dict[int, str]], name: str) -> Bundle:
    fields: dict[str, Any] = {"name": name, "input_names": network.inputs, "output_names": network.outputs}
    try:
        if any(axes):
            return _layouts(Bundle.capture(module, samples, free_batch=False, free_axes=axes, **fields))
        return _layouts(_fixed(module, network, samples, fields))
    except UnsupportedOpError:
        raise
    except ModelError as error:
        cause: BaseException | None = error.__cause__
        while cause is not None:  # torch.export wraps what a converter refused
            if isinstance(cause, UnsupportedOpError):
                raise cause from None
            cause = cause.__cause__
        raise ModelError(f"'{path}': {error}") from error


def _fixed(module: Module, network: Network, samples: tuple[Tensor, ...], fields: dict[str, Any]) -> Bundle:
    """A file of one batch size: freed where its rows prove independent of the batch, as for a ``.pt2``."""
    from ..load import freed

    fixed = Bundle.capture(module, samples, free_batch=False, **fields)
    size = samples[0].shape[0] if samples[0].ndim else 0
    changes: dict[str, Any] = {"free_batch": False, "why": "the file has a fixed batch"}
    if size and all(s.ndim and s.shape[0] == size for s in samples):
        network.batch = size
        try:
            free = freed(fixed, lambda: Bundle.capture(module, samples, **fields), samples)
        finally:
            network.batch = None
        if free is not None:
            changes = {"free_batch": True, "why": f"the file has batch {size}; two batches at once give the same rows"}
            return free.replace(history=(Step(name="capture", changes=changes),))
    return fixed.replace(history=(Step(name="capture", changes=changes),))


def _layouts(bundle: Bundle) -> Bundle:
    """Images stored channels last (files that came from TensorFlow) are no NCHW."""
    signature = bundle.signature
    doors = tuple(
        msgspec.structs.replace(spec, layout="")
        if spec.layout and spec.shape[3] in (1, 3, 4) and all(not isinstance(a, int) or a > 4 for a in spec.shape[1:3])
        else spec
        for spec in signature.inputs
    )
    return bundle.replace(signature=msgspec.structs.replace(signature, inputs=doors))


def _prove(path: Path, bundle: Bundle, network: Network, half: bool) -> float:
    """On the samples, and on others of another scale (images in [0, 1])."""
    import torch

    generator = torch.Generator().manual_seed(1)
    others = tuple(torch.rand(s.shape, generator=generator).to(s.dtype) if s.is_floating_point() else s for s in bundle.samples)
    worst = float("inf")
    size = bundle.samples[0].shape[0] if bundle.samples[0].ndim else 0
    for inputs in (bundle.samples, others):
        ours = [t.numpy() for t in bundle.run(*inputs)]
        theirs = _in_their_batch(path, network, [i.numpy() for i in inputs], size)
        worst = min(worst, prove.compare(path.name, network.outputs, theirs, ours, half))
    return worst


def _in_their_batch(path: Path, network: Network, inputs: list[Any], size: int) -> list[Any]:
    """ONNX Runtime on all rows, in the file's own batch where that is fixed and the rows are more."""
    import numpy as np

    fixed = _declared(path, network)
    if fixed is None or fixed >= size:
        return prove.run(path, network.inputs, inputs)
    parts = [prove.run(path, network.inputs, [x[i : i + fixed] for x in inputs]) for i in range(0, size, fixed)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _declared(path: Path, network: Network) -> int | None:
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    (first,) = [i for i in graph.input if i.name == network.inputs[0]]
    dims = first.type.tensor_type.shape.dim
    return int(dims[0].dim_value) if len(dims) and dims[0].HasField("dim_value") else None


def _producer(proto: Any) -> str:
    return f"{proto.producer_name} {proto.producer_version}".strip()[:80] or "unknown"


def _metadata(proto: Any) -> dict[str, Any]:
    """Labels, preprocessing and task of a file that packlight wrote; anything else there is left alone."""
    held = {str(p.key): str(p.value) for p in proto.metadata_props}
    found: dict[str, Any] = {}
    if re.fullmatch(r"[a-z-]{1,40}", held.get("task", "")):
        found["task"] = held["task"]
    try:
        labels = json.loads(held.get("labels", "[]"))
        if isinstance(labels, list) and labels and all(isinstance(one, str) for one in labels):
            found["labels"] = tuple(labels)
        if "preprocess" in held:
            found["preprocess"] = msgspec.json.decode(held["preprocess"].encode(), type=Preprocess)
    except (ValueError, msgspec.DecodeError, PacklightError):
        pass
    return found
