"""Reading and writing ``torch.export`` programs without running code from the file.

``torch.export.load`` unpickles tensors and constants where the archive says so, evaluates symbolic shape expressions
as Python, and resolves operator names by attribute look-up. ``read_program`` looks at the archive first and refuses
what could run code; what remains is JSON and raw tensor bytes.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

MAX_JSON_BYTES = 512 << 20
_SAFE_TARGET = re.compile(
    r"(torch\.ops\.(aten|quantized_decomposed|prims|torchao)\.\w+(\.\w+)?|torch\.sym_\w+|torch\._sym_sqrt|math\.\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|abs|eq|ne|lt|le|gt|ge|getitem|and_|or_|not_))"
)
# Symbols, integers, arithmetic, and the functions that torch itself writes; no attribute access, no quotes, no dunders.
_SYMBOL = re.compile(r"Symbol\('\w+'(, \w+=(True|False))*\)")
_SAFE_EXPRESSION = re.compile(r"[A-Za-z0-9_+\-*/%(),.<>=&|~\s]*")
_ATTRIBUTE = re.compile(r"[A-Za-z_)]\s*\.|__")
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
_SAFE_CALLS = frozenset(
    (
        *("Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Abs", "Pow", "PowByNatural", "ModularIndexing", "Where"),
        *("ToFloat", "IntTrueDiv", "FloatTrueDiv", "Integer", "Rational", "Add", "Mul"),
    )
)


def check_archive(path: Path) -> None:
    """Raises ModelError unless ``path`` is a ``.pt2`` archive that can be loaded without running code from it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                if member.filename.startswith("/") or ".." in member.filename.split("/"):
                    raise ModelError(f"'{path}' holds the path '{member.filename}' that leads outside the archive; it is not loaded")
            for member in members:
                name = member.filename.partition("/")[2]
                if name.startswith("data/") and name.endswith("_config.json"):
                    _check_payloads(path, _json(path, archive, member))
                elif name.startswith("models/") and name.endswith(".json"):
                    _check_graph(path, _json(path, archive, member))
                elif name.startswith("data/sample_inputs/"):
                    _check_samples(path, archive.read(member))
                elif name.startswith("data/aotinductor"):
                    raise ModelError(f"'{path}' holds compiled code ({name}); export it again with torch.export.save")
            if not any(m.filename.partition("/")[2].startswith("models/") for m in members):
                raise ModelError(f"'{path}' holds no exported program; write it with torch.export.save(program, '{path.name}')")
    except zipfile.BadZipFile:
        raise ModelError(f"'{path}' is not a .pt2 archive; write it with torch.export.save(program, '{path.name}')") from None


def read_program(path: Path) -> ExportedProgram:
    """Loads a checked ``.pt2`` file."""
    import torch

    check_archive(path)
    _register_quantized_ops()
    try:
        program = torch.export.load(str(path))
        program._guards_code = []  # source text that .module() would compile; shapes are checked by our Signature
        return program
    except Exception as error:
        told = f"{first_line(error)}; export it again with this version"
        raise ModelError(f"'{path}' can't be loaded by torch {torch.__version__}: {told}") from error


def write_program(program: ExportedProgram, path: Path) -> None:
    """Writes the graph of ``program`` without its weights (each shrunk to one element); they are kept as safetensors.

    ``program`` is used up: its state dict is replaced. Stack traces are dropped: they hold paths of the machine that
    traced the model, and would make two equal programs differ.
    """
    import torch

    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    thin: dict[str, Any] = {}
    for key, value in program.state_dict.items():
        small = torch.zeros((), dtype=value.dtype).expand(value.shape)
        thin[key] = torch.nn.Parameter(small, requires_grad=value.requires_grad) if isinstance(value, torch.nn.Parameter) else small
    program.state_dict.update(thin)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")
        buffer = io.BytesIO()  # torch's own writer aborts the process on a full disk
        torch.export.save(program, buffer)
    path.write_bytes(buffer.getvalue())


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, for one-line messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _register_quantized_ops() -> None:
    import torch.ao.quantization.fx._decomposed  # noqa: F401  registers torch.ops.quantized_decomposed


def _json(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    if member.file_size > MAX_JSON_BYTES:
        raise ModelError(f"'{path}': {member.filename} unpacks to {member.file_size} bytes; it is not loaded")
    try:
        return json.loads(archive.read(member))
    except ValueError as error:
        raise ModelError(f"'{path}': {member.filename} is not JSON ({error})") from error


def _check_payloads(path: Path, config: Any) -> None:
    for name, entry in config.get("config", {}).items():
        if entry.get("use_pickle") or not str(entry.get("path_name", "")).startswith(("weight_", "tensor_")):
            raise ModelError(f"'{path}' stores '{name}' as a pickle, which can run code; save it again with plain tensors")


def _check_samples(path: Path, data: bytes) -> None:
    import torch

    if data:  # torch falls back to a full unpickle where this fails
        try:
            torch.load(io.BytesIO(data), weights_only=True)
        except Exception as error:
            told = "a pickle that can run code; export it again with tensors only"
            raise ModelError(f"'{path}' stores its sample inputs as {told}") from error


def _check_graph(path: Path, model: Any) -> None:
    for key, value in _walk(model):
        if key == "target" and isinstance(value, str) and (value.startswith(("torch", "_operator", "math", "#"))):
            if not _SAFE_TARGET.fullmatch(value):
                raise ModelError(f"'{path}' calls '{value[:80]}', which is not an operator that packlight loads")
        elif key == "expr_str" and not _safe_expression(str(value)):
            raise ModelError(f"'{path}' holds the shape expression '{str(value)[:80]}', which is not plain arithmetic; it is not loaded")


def _safe_expression(text: str) -> bool:
    text = _SYMBOL.sub("s", text)
    return bool(_SAFE_EXPRESSION.fullmatch(text)) and not _ATTRIBUTE.search(text) and all(c in _SAFE_CALLS for c in _CALL.findall(text))


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            for key, inner in item.items():
                yield key, inner
                stack.append(inner)
        elif isinstance(item, list):
            stack.extend(item)
