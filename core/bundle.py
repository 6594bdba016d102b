"""A model on its way: its graph, its signature, what it is for and what was done to it.

The module of a Bundle is always the unlifted graph of ``torch.export`` (aten operators, the user's state dict names),
never the user's class: passes rewrite it, exporters read it, and a saved Bundle is restored without the user's source and
without pickling. On disk a Bundle is a folder::

    bundle.json           schema 1: everything but the graph and the weights
    program.pt2           torch.export program, without weights
    weights.safetensors   parameters and buffers
    samples.safetensors   example inputs, one batch
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .agree import require_agreement
from .axes import Free, renamed
from .errors import ModelError, UnsupportedOpError
from .files import sha256, staged_folder
from .history import Step
from .preprocess import Preprocess
from .pt2 import read_program, write_program
from .recurrent import free_steps
from .structure import Call, output_names
from .tensor import Signature, TensorSpec
from .untraced import why, without_the_wall

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

Precision = Literal["fp32", "fp16", "int8"]


class BundleFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """bundle.json, schema 1."""

    schema: Literal[1] = 1
    packlight: str
    torch: str
    name: str
    task: str | None
    signature: Signature
    preprocess: Preprocess | None
    labels: tuple[str, ...]
    quantized: dict[str, Any] | None
    history: tuple[Step, ...]
    sha256: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A model with all that is needed to compress, export and judge it.

    ``graph`` is in inference mode. ``samples`` are example inputs, one tensor per input, with a batch of two where the
    batch is free. ``quantized`` is None for a float graph and otherwise the scheme that its quantize/dequantize pairs
    follow. ``name`` is the stem of every file made from it. Don't change ``graph`` in place: ``copy_graph`` it.
    """

    graph: GraphModule
    signature: Signature
    samples: tuple[Tensor, ...]
    name: str = "model"
    task: str | None = None
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] = ()
    quantized: dict[str, Any] | None = None
    history: tuple[Step, ...] = ()

    @staticmethod
    def capture(
        module: torch.nn.Module | Callable[..., Any],
        samples: Sequence[Any],
        *,
        name: str = "model",
        keywords: Mapping[str, Any] | None = None,
        free_batch: bool = True,
        free_axes: Sequence[Free] = (),
        input_names: Sequence[str] = (),
        output_names: Sequence[str] = (),
        **fields: Any,
    ) -> Bundle:
        """Traces ``module`` in inference mode with ``torch.export``.

        ``samples`` are its positional arguments, ``keywords`` its keyword arguments: tensors, or tuples, lists and dicts of tensors. The
        graph takes and gives them flat, in the order of ``forward``'s parameters; an input is called after its parameter and keys
        (``pair_0``, ``batch_image``), an output after its keys.
        ``free_axes`` names further free axes, one dict (axis -> name) per flat input. Where the model can't be traced with a
        free batch it is traced with the batch of ``samples``, and the history says so. Data-dependent control flow raises
        ModelError with the line that causes it, and so does an axis that is not free in truth.
        """
        import torch

        if not isinstance(module, torch.nn.Module):
            raise ModelError(f"the model is a {type(module).__name__}, not a torch.nn.Module")
        call = Call.of(module, samples, keywords or {})
        leaves = call.leaves
        given: list[Free] = [dict(free_axes[i]) if i < len(free_axes) else {} for i in range(len(leaves))]
        axes = [dict(free) for free in given]
        if free_batch:
            for sample, free in zip(leaves, axes, strict=True):
                if sample.ndim and sample.shape[0] == leaves[0].shape[0]:
                    free.setdefault(0, "batch")
        leaves = tuple(_at_least_two(s, axes[i]) for i, s in enumerate(leaves))
        with contextlib.suppress(NotImplementedError):  # an exported graph has no modes
            module.eval()
        changes: dict[str, Any] = {}
        try:
            program = _export(module, call.filled(leaves), axes)
        except ModelError as error:
            if not free_batch or any("batch" in free.values() for free in given):
                raise
            fixed = tuple(s[:1].contiguous() if 0 in axes[i] else s for i, s in enumerate(call.leaves))
            try:
                program = _export(module, call.filled(fixed), given)
            except ModelError:
                raise error from None  # it was not the batch
            leaves, axes = fixed, given
            changes = {"free_batch": False, "why": f"the model can't be traced with a free batch: {error}"}
        graph = _unlift(program)
        if not call.flat:
            named = flatten(graph, program, set(call.names))
            output_names = output_names or named
        signature = _signature(program, leaves, axes, input_names or call.plain_names, output_names, graph)
        if any(set(free.values()) - {"batch"} for free in axes):
            require_agreement(module, graph, call.filled(leaves), signature, program)
        bundle = Bundle(graph, signature, tuple(s.detach().clone() for s in leaves), name=name, **fields)
        return bundle.replace(history=(*bundle.history, Step(name="capture", changes=changes))) if changes else bundle

    def replace(self, **fields: Any) -> Bundle:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **fields)

    def copy_graph(self) -> GraphModule:
        """A deep copy of the graph and its weights, free to be changed."""
        return copy_graph(self.graph)

    def export(self, batch: int | None = None) -> ExportedProgram:
        """The graph as an ExportedProgram: with the free axes free, or with ``batch`` fixed (other free axes at the samples' size)."""
        if batch is None:
            return _export(self.graph, Call.of(self.graph, self.samples, {}), self._free())
        return _export(self.graph, Call.of(self.graph, self.sized(batch), {}), [{} for _ in self.samples])

    def sized(self, batch: int) -> tuple[Tensor, ...]:
        """The example inputs with ``batch`` rows along every free batch axis (rows repeated as needed)."""
        out = []
        for sample, spec in zip(self.samples, self.signature.inputs, strict=True):
            if spec.shape and spec.shape[0] == "batch":
                rows = [i % sample.shape[0] for i in range(batch)]
                sample = sample[rows].contiguous()
            out.append(sample)
        return tuple(out)

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for ``inputs``, flattened, without gradients."""
        import torch

        with torch.no_grad():
            return flatten_outputs(self.graph(*inputs))

    def parameters(self) -> int:
        """Number of parameters (buffers, such as BatchNorm statistics, don't count; integer weights do)."""
        import torch

        integers: dict[str, int] = {}
        for node in self.graph.graph.nodes:
            if node.op == "call_function" and "dequantize" in str(node.target) and node.args[0].op == "get_attr":
                value = _attribute(self.graph, str(node.args[0].target))
                if isinstance(value, torch.Tensor):
                    integers[str(node.args[0].target)] = value.numel()
        return sum(p.numel() for p in self.graph.parameters()) + sum(integers.values())

    def save(self, folder: Path, *, force: bool = False) -> Path:
        """Writes the bundle folder, aside first; returns it."""
        import torch
        from safetensors.torch import save_file

        from .. import __version__

        program = self.export()
        weights = {k: v.detach().contiguous().clone() for k, v in program.state_dict.items()}
        with staged_folder(folder, force=force) as stage:
            save_file(weights, stage / "weights.safetensors")
            save_file({f"input_{i}": s.contiguous() for i, s in enumerate(self.samples)}, stage / "samples.safetensors")
            write_program(program, stage / "program.pt2")
            text = BundleFile(
                packlight=__version__,
                torch=str(torch.__version__),
                name=self.name,
                task=self.task,
                signature=self.signature,
                preprocess=self.preprocess,
                labels=self.labels,
                quantized=self.quantized,
                history=self.history,
                sha256={p.name: sha256(p) for p in sorted(stage.iterdir())},
            )
            (stage / "bundle.json").write_bytes(msgspec.json.format(msgspec.json.encode(text), indent=2) + b"\n")
        return folder

    @staticmethod
    def load(folder: Path) -> Bundle:
        """Reads a bundle folder; every hash is checked and nothing from it is run."""
        from safetensors.torch import load_file

        file = folder / "bundle.json"
        if not file.is_file():
            raise ModelError(f"'{folder}' is not a bundle: it has no bundle.json")
        try:
            text = msgspec.json.decode(file.read_bytes(), type=BundleFile)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"'{file}' can't be read: {error}") from error
        for name in ("program.pt2", "weights.safetensors", "samples.safetensors"):
            if not (folder / name).is_file():
                raise ModelError(f"bundle '{folder}' lacks {name}; save it again")
            if sha256(folder / name) != text.sha256.get(name):
                raise ModelError(f"bundle '{folder}': {name} is not the file that was saved (its sha256 differs); save it again")
        program = read_program(folder / "program.pt2")
        graph = _unlift(program)
        weights = load_file(folder / "weights.safetensors")
        for key, value in graph.state_dict().items():
            if key in weights and weights[key].shape != value.shape:
                shapes = f"{list(weights[key].shape)}, the program wants {list(value.shape)}"
                raise ModelError(f"bundle '{folder}': weight '{key}' has shape {shapes}")
        graph.load_state_dict(weights, assign=True)
        samples = load_file(folder / "samples.safetensors")
        return Bundle(
            graph,
            text.signature,
            tuple(samples[f"input_{i}"] for i in range(len(samples))),
            name=text.name,
            task=text.task,
            preprocess=text.preprocess,
            labels=text.labels,
            quantized=text.quantized,
            history=text.history,
        )

    def _free(self) -> list[dict[int, str]]:
        return [{i: a for i, a in enumerate(spec.shape) if isinstance(a, str)} for spec in self.signature.inputs]


def copy_graph(graph: GraphModule) -> GraphModule:
    """A deep copy, free to be changed."""
    with quiet_copies():
        return copy.deepcopy(graph)


@contextlib.contextmanager
def quiet_copies() -> Iterator[None]:
    """Keeps torch's warning about copying its own tree specs from the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        yield


def flatten_outputs(result: Any) -> tuple[Tensor, ...]:
    """The tensors of a model's result (tensor, tuple, dict, nested) in order."""
    import torch
    from torch.utils import _pytree

    return tuple(leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor))


def layer_of(node: Any) -> str:
    """The path of the user's layer that an fx node comes from ("" if unknown)."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else ""


def aten_name(node: Any) -> str:
    """ "conv2d" of an fx node that calls ``aten.conv2d.default``; "" of any other."""
    name = str(node.target) if node.op == "call_function" else ""
    return name.split(".")[1] if name.startswith("aten.") else ""


def unsupported(who: str, node: Any, why: str, remedy: str) -> UnsupportedOpError:
    """An UnsupportedOpError about an fx node."""
    return UnsupportedOpError(who, str(node.target), layer_of(node) or str(node.name), why, remedy)


def _attribute(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root


def _at_least_two(sample: Tensor, free: dict[int, str]) -> Tensor:
    """torch.export takes a size of one for a constant, so a free batch is traced with two rows."""
    if free.get(0) == "batch" and sample.shape[0] == 1:
        return sample.repeat(2, *[1] * (sample.ndim - 1))
    return sample


def _export(module: torch.nn.Module, call: Call, axes: Sequence[Free]) -> ExportedProgram:
    import torch

    try:
        with torch.no_grad(), without_the_wall(), free_steps():
            return torch.export.export(module, call.positional, call.keywords or None, dynamic_shapes=call.dynamic(axes))
    except Exception as error:  # torch raises a dozen types here
        raise ModelError(f"torch.export can't trace the model: {why(error)}") from error


def _unlift(program: ExportedProgram) -> GraphModule:
    import torch

    graph = program.module(check_guards=False)
    # torch's own check of input shapes reads symbols that later traces of the same graph may fix; our Signature says what fits.
    graph._forward_pre_hooks.clear()
    graph._forward_pre_hooks_with_kwargs.clear()
    # .to(dtype) leaves a check of what the input's type was; no format has an operator for it.
    for node in reversed(graph.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default and not node.users:
            graph.graph.erase_node(node)
    graph.recompile()
    for parameter in graph.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return graph  # type: ignore[return-value]


def flatten(graph: GraphModule, program: ExportedProgram, taken: set[str]) -> list[str]:
    """Makes a graph that takes nested or keyword arguments take plain tensors, in the order of its placeholders, and give plain ones;
    returns the names of these. ``taken`` are the names of the inputs."""
    import torch
    from torch.utils import _pytree

    (output,) = [n for n in graph.graph.nodes if n.op == "output"]
    leaves = _pytree.tree_leaves(output.args)
    output.args = (tuple(leaf for leaf in leaves if isinstance(leaf, torch.fx.Node)),)
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    graph._forward_pre_hooks.clear()  # torch's check that the arguments are nested as they were
    graph._forward_pre_hooks_with_kwargs.clear()
    graph.recompile()
    return output_names(program, leaves, taken)


def _signature(
    program: ExportedProgram,
    samples: tuple[Tensor, ...],
    axes: Sequence[dict[int, str]],
    input_names: Sequence[str],
    given_names: Sequence[str],
    graph: GraphModule,
) -> Signature:
    import torch
    from torch.utils import _pytree

    placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    inputs = []
    symbols: dict[str, str] = {}
    for i, (sample, node) in enumerate(zip(samples, placeholders, strict=True)):
        meta = node.meta.get("val")
        for axis, free in axes[i].items():
            if isinstance(meta, torch.Tensor):
                axes[i][axis] = symbols.setdefault(str(meta.shape[axis]), free)  # axes that torch found to be equal share a name
        shape = tuple(axes[i].get(a, int(size)) for a, size in enumerate(sample.shape))
        name = input_names[i] if i < len(input_names) else str(node.name)
        inputs.append(TensorSpec(name=name, shape=shape, dtype=_dtype(sample), layout="NCHW" if sample.ndim == 4 else ""))
    (output,) = [n for n in graph.graph.nodes if n.op == "output"]
    leaves = _pytree.tree_leaves(output.args)  # one result may be given twice: `return x, x`
    values = flatten_outputs([leaf.meta.get("val") for leaf in leaves if isinstance(leaf, torch.fx.Node)])
    names = list(given_names) or output_names(program, leaves, {spec.name for spec in inputs})
    outputs = []
    for name, value in zip(names, values, strict=False):
        shape = tuple(int(s) if str(s).lstrip("-").isdigit() else renamed(str(s), symbols) for s in value.shape)
        outputs.append(TensorSpec(name=name, shape=shape, dtype=_dtype(value), layout="NCHW" if value.ndim == 4 else ""))
    return Signature(tuple(inputs), tuple(outputs))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
