"""The house keeps its order: who imports whom, relatively, and nothing heavy at import. Parsed, not imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "core": {"core"},
    "tasks": {"core", "tasks"},
    "targets": {"core", "targets"},
    "compress": {"core", "tasks", "targets", "compress"},
    "export": {"core", "tasks", "targets", "export"},
    "bench": {"core", "tasks", "targets", "bench"},
    "search": {"core", "tasks", "targets", "compress", "export", "bench", "search"},
    "cli": {"core", "tasks", "targets", "compress", "export", "bench", "search", "cli"},
    "": {"core", "cli"},
}
# numpy and scipy may stand at the head of a module that is arithmetic (bench/stats.py); --help loads no such module, which
# test_public_api.py measures.
HEAVY = {
    "ai_edge_litert", "flatbuffers", "google", "jinja2", "lightning_fabric", "matplotlib", "onnx", "onnx_ir", "onnxruntime", "onnxscript",
    "openvino", "pandas", "PIL", "sklearn", "sympy", "tflite_runtime", "torch", "torchao", "torchvision",
}  # fmt: skip
FILES = sorted(
    p for p in [*ROOT.glob("*.py"), *(f for room in ROOMS if room for f in (ROOT / room).rglob("*.py"))] if "__pycache__" not in p.parts
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[int, str, bool, bool]]:
    """(line, dotted name, relative, at module level and run at import) of every import in ``path``.

    Relative ones are resolved from the package's root: "core.errors". The root itself is "".
    """
    here = list(path.relative_to(ROOT).parts[:-1])

    def walk(node: ast.AST, runs: bool) -> Iterator[tuple[int, str, bool, bool]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, False, runs
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or "", False, runs
        elif isinstance(node, ast.ImportFrom):
            assert node.level - 1 <= len(here), f"{name_of(path)}:{node.lineno} climbs out of the package"
            base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            base = [part for part in base if part]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name]), True, runs
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from walk(child, False)
            for child in node.orelse:
                yield from walk(child, runs)
        else:
            inner = runs and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, inner)

    yield from walk(ast.parse(path.read_text(encoding="utf-8"), str(path)), True)


def room_of(dotted: str) -> str:
    first = dotted.partition(".")[0]
    return first if first in ROOMS else ""


def broken(path: Path) -> list[str]:
    """What is wrong with the imports of one file."""
    room = path.relative_to(ROOT).parts[0] if path.parent != ROOT else ""
    found = []
    for line, dotted, relative, runs in imports(path):
        place = f"{name_of(path)}:{line}"
        top = dotted.partition(".")[0]
        if not relative:
            if top == "packlight" or (top in ROOMS and (ROOT / top).is_dir()):
                found.append(f"{place} imports {dotted} absolutely; inside the package imports are relative")
            if runs and top in HEAVY:
                found.append(f"{place} imports {top} at module level; import it where it is used")
        elif room_of(dotted) == "":
            if room and dotted != "__version__":
                found.append(f"{place} imports {dotted or 'the package'} from the root; only __version__ lives there")
        elif room_of(dotted) not in ROOMS[room]:
            found.append(f"{place}: {room} must not import {room_of(dotted)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_keep_the_directions(path: Path) -> None:
    assert broken(path) == []


def test_every_room_is_there_and_linked() -> None:
    for room in filter(None, ROOMS):
        assert (ROOT / room / "__init__.py").is_file()
        assert (ROOT / "src" / "packlight" / room).resolve() == ROOT / room


def test_the_agent_is_alone() -> None:
    """bench/agent.py is pushed to devices: the standard library and numpy, and one runtime late; nothing of ours anywhere."""
    agent = ROOT / "bench" / "agent.py"
    at_import = set()
    for line, dotted, relative, runs in imports(agent):
        assert not relative, f"bench/agent.py:{line} imports {dotted} of ours"
        if runs:
            at_import.add(dotted.partition(".")[0])
    assert at_import <= sys.stdlib_module_names | {"numpy"}, at_import - sys.stdlib_module_names


@pytest.mark.parametrize(
    ("where", "text", "word"),
    [
        ("core/x.py", "from ..targets.target import Target", "core must not import targets"),
        (
            "bench/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..export.run import f",
            "bench must not import export",
        ),
        ("tasks/x.py", "def f():\n    from ..targets import target", "tasks must not import targets"),
        ("export/tflite/x.py", "from packlight.core import errors", "absolutely"),
        ("export/x.py", "from .. import Bundle", "only __version__"),
        ("search/x.py", "class A:\n    import torch", "torch at module level"),
        ("cli/x.py", "try:\n    import torch.nn\nexcept ImportError:\n    pass", "torch at module level"),
    ],
)
def test_the_checker_sees_a_breach(where: str, text: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / where
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (found,) = broken(path)
    assert word in found


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    import torch",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        "from ..core.errors import require",
    ],
)
def test_the_checker_lets_the_rest_pass(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "bench" / "x.py"
    path.parent.mkdir()
    path.write_text(text)
    assert broken(path) == []
