"""From a Bundle to an ONNX model in memory, by ``torch.onnx``; what it can't translate is named by operator and layer."""

from __future__ import annotations

import functools
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from ...core.bundle import layer_of, unsupported
from ...core.errors import ModelError, UnsupportedOpError, require
from ...core.pt2 import first_line
from ...core.recurrent import free_steps
from ..pooled import has_plain_form, plain_pools

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...core.bundle import Bundle

OPSET = 20
"""The default: the lowest that torch.onnx writes without converting down, which old runtimes read."""

_REMEDY = "rewrite the layer with operators that ONNX has, or choose another format"


def trace(bundle: Bundle, batch: int | None, opset: int) -> ir.Model:
    """The model in ONNX, doors named as in the signature, constants as initialisers; ``batch`` None leaves every free axis free.

    Raises UnsupportedOpError where an operator has no translation.
    """
    torch_onnx = require("torch.onnx", "onnx")
    require("onnxscript", "onnx")
    program = plain_pools(bundle).export(batch)
    try:
        with quiet(), free_steps():
            exported = torch_onnx.export(
                program,
                (),
                dynamo=True,
                verbose=False,
                external_data=False,
                opset_version=opset,
                input_names=[s.name for s in bundle.signature.inputs],
                output_names=[s.name for s in bundle.signature.outputs],
            )
    except Exception as error:  # torch.onnx wraps a dozen types
        raise _refusal(bundle, error) from error
    model: ir.Model = exported.model
    _keep_apart(model)
    return model


def _keep_apart(model: ir.Model) -> None:
    """torch.onnx gives doors the names asked for, even where a value inside has that name already: the inner one yields."""
    graph = model.graph
    doors = [*graph.inputs, *graph.outputs]
    names, own = {v.name for v in doors}, {id(v) for v in doors}
    inner = [*graph.initializers.values(), *(v for node in graph.all_nodes() for v in node.outputs)]
    for value in inner:
        if value.name in names and id(value) not in own:
            value.name = f"{value.name}.inner"


def untranslatable(bundle: Bundle, opset: int) -> UnsupportedOpError | None:
    """The first operator that torch.onnx has neither a translation nor a decomposition for; None where there is none. Cheap."""
    import torch

    registry = _registry(opset)
    table = torch.export.default_decompositions()
    for node in bundle.graph.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if has_plain_form(node) or registry.is_registered(node.target) or node.target in table or _composite(node.target):
            continue
        if node.target._schema.is_mutable:  # torch.onnx makes in-place operators functional before it translates
            continue
        return unsupported("onnx", node, "torch.onnx has no translation for it", _REMEDY)
    return None


@functools.cache
def _registry(opset: int) -> Any:
    require("onnxscript", "onnx")
    with quiet():
        import torch.ao.quantization.fx._decomposed  # noqa: F401  the registry leaves out operators that torch doesn't know yet
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        return ONNXRegistry.from_torchlib(opset)


def _composite(op: Any) -> bool:
    import torch

    return bool(op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd))


def _refusal(bundle: Bundle, error: BaseException) -> Exception:
    text = _all_text(error)
    for pattern in (r"No ONNX function found for <OpOverload\(op='([\w:.]+)', overload='(\w+)'\)>", r"target: ([\w:]+)\.(\w+)"):
        found = re.search(pattern, text)
        if found:
            op = f"{found[1].replace('::', '.')}.{found[2]}"
            for node in bundle.graph.graph.nodes:
                if node.op == "call_function" and str(node.target) == op:
                    return unsupported("onnx", node, "torch.onnx has no translation for it", _REMEDY)
            return UnsupportedOpError("onnx", op, "", "torch.onnx has no translation for it", _REMEDY)
    for node in bundle.graph.graph.nodes:
        if node.op == "call_function" and re.search(rf"%{re.escape(node.name)}\b", text):
            return UnsupportedOpError("onnx", str(node.target), layer_of(node) or node.name, first_line(_root(error)), _REMEDY)
    return ModelError(f"torch.onnx can't translate '{bundle.name}': {first_line(_root(error))}; {_REMEDY}")


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _all_text(error: BaseException | None) -> str:
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__
    return "\n".join(texts)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps libraries from printing and warning inside; what was set before is set again after."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
