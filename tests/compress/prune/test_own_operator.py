"""docs/prune-operators.md, followed word by word: an operator without a rule is refused by name; with the two functions it prunes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from packlight.compress.prune.module import prune_module, restore
from packlight.compress.prune.ops.registry import couple_rules
from packlight.compress.prune.plan import PruneSettings
from packlight.core.errors import UnsupportedOpError

DOC = Path(__file__).resolve().parents[3] / "docs" / "prune-operators.md"


def load(source: str, name: str, folder: Path) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documented_way(prunes: Callable[..., Any], tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert couple_rules.find("mine.weigh.default") is None
    without = re.sub(r"@(couples|shrinks)\(.*?\)\n", "", code).replace("mine::weigh", "yours::weigh")
    with pytest.raises(UnsupportedOpError, match=r"yours\.weigh\.default"):
        prunes(load(without, "without_rules", tmp_path).Net(), torch.randn(2, 3, 8, 8))
    net = load(code, "with_rules", tmp_path).Net
    pruned, _, _ = prunes(net(), torch.randn(2, 3, 8, 8))
    assert pruned.graph.get_parameter("weight").shape == (4,)
    small = prune_module(net(), [torch.randn(2, 3, 8, 8)], PruneSettings(ratio=0.5))
    save_file(small.module.state_dict(), tmp_path / "net.safetensors")
    again = restore(net(), small.attributes, load_file(tmp_path / "net.safetensors"))
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(again(x), small.bundle.run(x)[0])
