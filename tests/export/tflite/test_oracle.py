"""The emitter's files against litert-torch's, operator by operator: two converters that share no code, in one runtime.

The operators are those of test_ops.py. What litert-torch refuses, or computes further from torch than the emitter does, it can't judge:
torch alone does, in test_ops.py. Minutes, so not part of ``make test``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("litert_torch") is None, reason="needs packlight[oracle] (litert-torch)"),
]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tflite_test_ops", Path(__file__).with_name("test_ops.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPS = _load()
LIMIT = 1e-5


@pytest.mark.parametrize("group", OPS.GROUPS)
def test_both_converters_give_the_same(run_file: Callable[..., list[np.ndarray]], tmp_path: Path, group: str) -> None:
    from packlight.core.errors import InputError

    torch.manual_seed(0)
    names = OPS.GROUPS[group]
    modules = {name: OPS._module(name).eval() for name in names}
    x = torch.randn((OPS.LAYERS | OPS.FUNCTIONS)[names[0]][1])
    failed, refused = [], []
    try:
        failed += _differing(run_file, tmp_path, modules, x)
    except InputError:  # one of them is refused: each alone then
        for name, module in modules.items():
            try:
                failed += _differing(run_file, tmp_path, {name: module}, x)
            except InputError as error:
                refused.append(f"{name}: {error}")
    assert failed == []
    if len(refused) == len(names):
        pytest.skip("; ".join(refused))


def _differing(run_file: Any, folder: Path, modules: dict[str, torch.nn.Module], x: torch.Tensor) -> list[str]:
    """The outputs in which the two files differ by more than ``LIMIT`` of the largest number, where ours isn't torch's."""
    from packlight.core.bundle import Bundle
    from packlight.core.errors import InputError
    from packlight.export.exporter import Options
    from packlight.export.formats import exporter

    with torch.no_grad():
        counts = [len(torch.utils._pytree.tree_leaves(m(x))) for m in modules.values()]
    told = [name for name, count in zip(modules, counts, strict=True) for _ in range(count)]
    bundle = Bundle.capture(OPS.Several(modules), (x,), free_batch=False)
    results = []
    for converter in ("", "litert-torch"):
        place = folder / (converter or "packlight")
        place.mkdir(exist_ok=True)
        options = Options(converter=converter)
        written = exporter("tflite", converter).write(bundle, place, options, None)  # type: ignore[arg-type]
        try:
            results.append(run_file(place / written.file, written.signature, [x.numpy()]))
        except RuntimeError as error:
            if not converter:
                raise
            raise InputError(f"litert-torch's file does not run: {error}") from error
    found = []
    for name, ours, theirs, truth in zip(told, *results, bundle.run(x), strict=True):
        if theirs.shape != truth.shape:
            refused = f"{name}: litert-torch gives shape {list(theirs.shape)}, torch {list(truth.shape)}"
            found += [refused] if ours.shape != truth.shape else []
            continue
        scale = max(1.0, float(np.abs(theirs).max())) if theirs.size else 1.0
        off = float(np.abs(ours.astype(np.float64) - theirs).max()) / scale if ours.size else 0.0
        mine, other = _off(ours, truth, scale), _off(theirs, truth, scale)
        line = f"{name}: {off:.1e} apart; from torch ours {mine:.1e}, theirs {other:.1e}"
        if "PACKLIGHT_ORACLE_TABLE" in os.environ:
            with Path(os.environ["PACKLIGHT_ORACLE_TABLE"]).open("a") as file:
                file.write(line + "\n")
        if not off <= LIMIT and not mine < min(LIMIT, other):
            found.append(line)
    return found


def _off(got: np.ndarray, truth: torch.Tensor, scale: float) -> float:
    return float(np.abs(got.astype(np.float64) - truth.numpy()).max()) / scale if got.size else 0.0
