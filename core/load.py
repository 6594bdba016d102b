"""A model from whatever the user names: a bundle folder, a factory in Python, an exported program, or an ONNX file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .axes import Free, Wish, axis_name, free_of, grant
from .bundle import Bundle, flatten, flatten_outputs
from .errors import ModelError
from .history import Step
from .pt2 import read_program
from .source import looks_like_source, one_line, user_object
from .structure import Call, arranged, nested
from .weights import put_weights, read_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.export import ExportedProgram

FORMS = "a bundle folder, file.py:factory, package.module:factory, model.pt2 or model.onnx"


def load_model(
    spec: str,
    *,
    weights: Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    inputs: Sequence[Tensor | Sequence[int]] = (),
    name: str | None = None,
    free_axes: Sequence[Free] = (),
    dynamic: Sequence[Wish] = (),
    ways: Sequence[str] = (),
    **fields: Any,
) -> Bundle:
    """The model that ``spec`` names, traced, as a Bundle.

    ``spec``: a bundle folder; ``file.py:factory`` or ``package.module:factory``, called with ``model_args`` (or a module
    that stands there ready); a ``.pt2`` of ``torch.export``; an ``.onnx`` file, which becomes a torch graph that is proven
    against ONNX Runtime. ``weights``: see ``read_weights``. ``inputs``: one example tensor, or its shape with the batch, per
    model input; bundles, ``.pt2`` and ``.onnx`` files bring their own. ``name``: stem of every file made from it. ``free_axes``: axes
    beside the batch that are free, one dict (axis -> name) an input, for models in Python. ``dynamic``: axes that must be free, by input;
    ModelError where they can't. ``ways``: the way to each of ``inputs`` among the arguments of a model in Python, see ``nested``; without
    them they are its positional arguments. ``fields``: further fields of the Bundle
    (task, preprocess, labels). Whatever can't be used raises ModelError.
    """
    examples = tuple(_example(i) for i in inputs)
    path = Path(spec)
    if path.is_dir():
        bundle = _from_folder(path, weights, model_args)
    elif looks_like_source(spec):
        positional, keywords = nested(ways or [""] * len(examples), examples)
        bundle = _from_source(spec, weights, model_args or {}, positional, keywords, ways, free_axes, dynamic)
    elif path.suffix == ".pt2":
        bundle = _from_program(path, weights, model_args, examples)
    elif path.suffix.lower() == ".onnx" and path.exists():
        bundle = _from_onnx(path, weights, model_args, examples)
    else:
        raise ModelError(_why_not(spec, path))
    free_of(bundle.signature, dynamic)
    return bundle.replace(**{"name": _stem(name) if name else bundle.name, **fields})


def _from_folder(path: Path, weights: Path | None, model_args: Mapping[str, Any] | None) -> Bundle:
    if not (path / "bundle.json").is_file():
        raise ModelError(f"folder '{path}' is not a bundle: it has no bundle.json; a model is {FORMS}")
    _refuse_arguments(path, model_args)
    bundle = Bundle.load(path)
    if weights is not None:
        put_weights(bundle.graph, read_weights(weights), str(weights))
    return bundle


def _from_source(
    spec: str,
    weights: Path | None,
    model_args: Mapping[str, Any],
    examples: tuple[Any, ...],
    keywords: dict[str, Any],
    ways: Sequence[str],
    free_axes: Sequence[Free],
    dynamic: Sequence[Wish],
) -> Bundle:
    import torch

    with user_object(spec, "model", ModelError) as factory:
        module = factory if isinstance(factory, torch.nn.Module) else _call(spec, factory, model_args)
        if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            module = module.module
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(f"model '{spec}' is TorchScript, which can't be traced again; give the PyTorch module that it was made from")
        if not isinstance(module, torch.nn.Module):
            raise ModelError(f"model '{spec}' gave a {type(module).__name__}, not a torch.nn.Module; return the module from the factory")
        if not examples and not keywords:
            raise ModelError(f"model '{spec}' needs example inputs; give --data, or shapes with --input 1,3,224,224")
        if weights is not None:
            put_weights(module, read_weights(weights), str(weights))
        module, history = _on_cpu(module)
        call = arranged(module, examples, keywords, ways)
        _try(spec, module, call)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            axes = _joined(free_axes, grant(dynamic, call.names, [leaf.ndim for leaf in call.leaves]))
            name = _stem(spec.rpartition(":")[2])
            return Bundle.capture(module, call.positional, keywords=call.keywords, name=name, free_axes=axes, history=history)


def _joined(data: Sequence[Free], asked: Sequence[Free]) -> list[Free]:
    """The axes that differ in the data, and those that were asked for, whose names win."""
    return [{**(data[i] if i < len(data) else {}), **free} for i, free in enumerate(asked)]


def _from_program(path: Path, weights: Path | None, model_args: Mapping[str, Any] | None, examples: tuple[Tensor, ...]) -> Bundle:
    if not path.is_file():
        raise ModelError(f"model file '{path}' does not exist")
    _refuse_arguments(path, model_args)
    program = read_program(path)
    module = program.module(check_guards=False)
    call = _call_of(path, program, module, examples)
    doors: dict[str, Any] = {}
    if not call.flat:  # nested or keyword arguments: flat from here on
        doors = {"input_names": call.plain_names, "output_names": flatten(module, program, set(call.names))}
    samples = call.leaves
    if weights is not None:
        put_weights(module, read_weights(weights), str(weights))
    _try(str(path), module, Call.of(module, samples, {}))
    free = _free_axes(program, len(samples))
    name = _stem(path.stem)
    if all(0 in axes for axes in free):
        return Bundle.capture(module, samples, name=name, free_axes=free, **doors)
    return _fixed_batch(module, samples, name, free, doors)


def _from_onnx(path: Path, weights: Path | None, model_args: Mapping[str, Any] | None, examples: tuple[Tensor, ...]) -> Bundle:
    from .onnx_import.importer import import_onnx

    _refuse_arguments(path, model_args)
    bundle = import_onnx(path, _stem(path.stem), examples)
    if weights is not None:
        put_weights(bundle.graph, read_weights(weights), str(weights))
    return bundle


def _fixed_batch(module: Any, samples: tuple[Tensor, ...], name: str, free: list[Free], doors: Mapping[str, Any]) -> Bundle:
    """A program traced with one batch size: freed where its rows prove to be independent of the batch, else left as it is."""
    fixed = Bundle.capture(module, samples, name=name, free_batch=False, free_axes=free, **doors)
    other = freed(fixed, lambda: Bundle.capture(module, samples, name=name, free_axes=free, **doors), samples)
    if other is not None:
        changes = {
            "free_batch": True,
            "why": f"the program was traced with batch {samples[0].shape[0]}; two batches at once give the same rows",
        }
        return other.replace(history=(*other.history, Step(name="capture", changes=changes)))
    changes = {"free_batch": False, "why": "the program was traced with a fixed batch; export it with a dynamic first axis to train it"}
    return fixed.replace(history=(*fixed.history, Step(name="capture", changes=changes)))


def freed(fixed: Bundle, capture: Callable[[], Bundle], samples: tuple[Tensor, ...]) -> Bundle | None:
    """The same model with a free batch, as ``capture`` traces it, if two batches at once give the same rows as one by one; else None."""
    import torch

    try:
        free = capture()
        if free.signature.inputs[0].shape[0] != "batch":
            return None
        size = samples[0].shape[0]
        # Other rows, since equal ones would hide a statistic over the batch.
        others = tuple(s.flip(-1) * 0.5 + 0.25 if s.is_floating_point() else torch.zeros_like(s) for s in samples)
        want = (*fixed.run(*samples), *fixed.run(*others))
        both = free.run(*(torch.cat([s, o]) for s, o in zip(samples, others, strict=True)))
        got = (*(b[:size] for b in both), *(b[size:] for b in both))
        same = all(g.shape == w.shape and torch.allclose(g, w, atol=1e-5, equal_nan=True) for g, w in zip(got, want, strict=True))
        return free if same else None
    except (ModelError, RuntimeError):
        return None


def _free_axes(program: ExportedProgram, count: int) -> list[dict[int, str]]:
    """The free axes of each user input: the first is the batch, others are named after their input and axis."""
    import torch

    users = set(program.graph_signature.user_inputs)
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in users][:count]
    out: list[Free] = []
    for node in nodes:
        shape = getattr(node.meta.get("val"), "shape", ())
        first = not out
        named = {a: axis_name(node.name, a, len(shape), first=first) for a, size in enumerate(shape) if isinstance(size, torch.SymInt)}
        out.append(named)
    return out


def _call(spec: str, factory: Any, model_args: Mapping[str, Any]) -> Any:
    import inspect

    if not callable(factory):
        raise ModelError(f"model '{spec}' is a {type(factory).__name__}; name a function that returns the module, or the module itself")
    try:
        inspect.signature(factory).bind(**model_args)
    except TypeError as error:
        raise ModelError(
            f"model '{spec}' can't be called with {dict(model_args) or 'no arguments'}: {error}; see --model-args k=v"
        ) from error
    except ValueError:  # a callable without a signature
        pass
    return factory(**model_args)


def _try(spec: str, module: Any, call: Call) -> None:
    """One forward pass, so that a wrong input shape is told as such and not as a failed trace."""
    import torch

    shapes = ", ".join("x".join(map(str, e.shape)) for e in call.leaves)
    if isinstance(module, torch.nn.Module) and not isinstance(module, torch.fx.GraphModule):
        module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            result = call.run(module)
    except Exception as error:
        raise ModelError(f"model '{spec}' can't run on an input of {shapes}: {one_line(error)}") from error
    if not flatten_outputs(result):
        raise ModelError(f"model '{spec}' returned a {type(result).__name__} without tensors; return tensors from forward")


def _on_cpu(module: torch.nn.Module) -> tuple[torch.nn.Module, tuple[Step, ...]]:
    import torch

    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters() if p.is_floating_point()} - {"float32"})
    module = module.to(device="cpu", dtype=torch.float32)
    changes = {"dtype": f"{', '.join(kinds)} to float32"}
    return module, (Step(name="capture", changes=changes),) if kinds else ()


def _example(value: Tensor | Sequence[int]) -> Tensor:
    """A tensor as it is; a shape becomes standard normal noise (seed 0, no global state touched)."""
    import torch

    if isinstance(value, torch.Tensor):
        return value
    shape = tuple(int(v) for v in value)
    if not shape or any(v < 1 for v in shape):
        raise ModelError(f"input shape {','.join(map(str, shape)) or 'empty'} must be positive numbers, batch first: 1,3,224,224")
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _call_of(path: Path, program: ExportedProgram, module: torch.nn.Module, examples: tuple[Tensor, ...]) -> Call:
    """The program's own example call, with ``examples`` (in the order of its inputs) in place of its tensors where they are given."""
    from torch.utils import _pytree

    given, keywords = program.example_inputs or ((), {})
    if not examples and not given and not keywords:
        raise ModelError(f"'{path}' holds no example inputs; give --data, or shapes with --input 1,3,224,224")
    spec = program.call_spec.in_spec
    if examples and spec is not None:
        names = ", ".join(map(str, program.graph_signature.user_inputs))
        if spec.num_leaves != len(examples):
            raise ModelError(f"'{path}' takes {spec.num_leaves} inputs ({names}), got {len(examples)}")
        given, keywords = _pytree.tree_unflatten(list(examples), spec)
    try:
        return Call.of(module, given, keywords)
    except ModelError as error:
        raise ModelError(f"'{path}': {error}") from error


def _refuse_arguments(path: Path, model_args: Mapping[str, Any] | None) -> None:
    if model_args:
        raise ModelError(f"'{path}' is a saved model and takes no --model-args; they are for file.py:factory")


def _stem(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "model"


def _why_not(spec: str, path: Path) -> str:
    suffix = path.suffix.lower()
    if not path.exists() and (suffix in {".onnx", ".pt", ".pth", ".ckpt", ".safetensors", ".bin"} or "/" in spec or not suffix):
        return f"model '{spec}' does not exist; a model is {FORMS}"
    if suffix in {".pt", ".pth", ".ckpt", ".safetensors", ".bin"}:
        return f"'{spec}' holds weights without the model's code; give file.py:factory and these with --weights {spec}"
    return f"'{spec}' is not a model; a model is {FORMS}"
