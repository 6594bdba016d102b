"""The ten graphs: half of every group at random, equal to the masked dense model; then the pass, to half the multiply-accumulates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from zoo import ZOO

from packlight.compress.passes import run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs


@pytest.mark.parametrize("name", list(ZOO))
def test_random_channels(captured: Callable[..., Bundle], prunes: Callable[..., Any], name: str) -> None:
    prunes(captured(name))


@pytest.mark.parametrize("name", list(ZOO))
def test_half_the_work(captured: Callable[..., Bundle], avx2: Callable[..., Any], name: str, tmp_path: Path) -> None:
    bundle = captured(name)
    pruned = run_passes(bundle, [make_pass("prune", {"macs": 0.5})], avx2())
    least = 0.4 if name == "convlstm" else 0.47  # one of its eight hidden units is more than a tenth of the work
    assert least * macs(bundle) <= macs(pruned) <= 0.505 * macs(bundle)
    again = Bundle.load(pruned.save(tmp_path / "pruned"))
    x = ZOO[name].input(3)
    torch.testing.assert_close(again.run(x)[0], pruned.run(x)[0], rtol=1e-4, atol=1e-5)
