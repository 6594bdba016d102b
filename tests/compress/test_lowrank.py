"""Low-rank layers: the best approximation in closed form, the same function where the rank suffices, and the clock's word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.lowrank.decompose import Kind, decompose, rank_of
from packlight.compress.lowrank.layers import alone, candidates, put
from packlight.compress.passes import run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.errors import RecipeError

KINDS: tuple[Kind, ...] = ("channel", "spatial", "tucker")


def low_rank(out: int, into: int, kernel: tuple[int, int], kind: str, rank: int) -> Tensor:
    """A weight that a form of this rank gives exactly."""
    g = torch.Generator().manual_seed(1)

    def r(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g) / 4

    if kind == "channel":
        return torch.einsum("or,rikl->oikl", r(out, rank), r(rank, into, *kernel))
    if kind == "spatial":
        return torch.einsum("rik,orl->oikl", r(rank, into, kernel[0]), r(out, rank, kernel[1]))
    return torch.einsum("or,rskl,is->oikl", r(out, rank), r(rank, rank, *kernel), r(into, rank))


class Layers(nn.Module):
    """(N, 16, 12, 10): a convolution with everything that it may have, then a linear layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 32, (3, 5), stride=(2, 1), padding=(1, 3), dilation=(1, 2))
        self.fc = nn.Linear(32, 128)
        with torch.no_grad():
            self.conv.weight.copy_(low_rank(32, 16, (3, 5), kind, 4))
            self.fc.weight.copy_(torch.randn(128, 3, generator=torch.Generator().manual_seed(2)) @ torch.randn(3, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def test_no_matrix_of_that_rank_lies_closer() -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    for energy in (0.5, 0.9):
        parts, error = decompose(weight, "linear", energy)
        rank = parts[0].weight.shape[0]
        kept = np.cumsum(values**2) / np.sum(values**2)
        assert kept[rank - 1] >= energy
        assert rank == 1 or kept[rank - 2] < energy
        assert error == pytest.approx(np.sqrt(1 - kept[rank - 1]), rel=1e-6)
        torch.testing.assert_close(float((parts[1].weight @ parts[0].weight - weight).norm() / weight.norm()), error, rtol=1e-4, atol=1e-6)


def test_ranks() -> None:
    values = torch.tensor([3.0, 2.0, 1.0, 0.0])
    assert [rank_of(values, e) for e in (0.5, 0.65, 0.93, 1.0)] == [1, 2, 3, 3]
    assert rank_of(values, 0.5, step=2) == 2
    assert rank_of(values, 0.93, step=8) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_function_where_the_rank_suffices(kind: Kind) -> None:
    bundle = Bundle.capture(Layers(kind).eval(), (torch.randn(2, 16, 12, 10),))
    conv, fc = candidates(bundle)
    assert (conv.name, fc.name) == ("conv", "fc")
    assert conv.macs + fc.macs == macs(bundle)
    graph = bundle.copy_graph()
    nodes = dict(zip(bundle.graph.graph.nodes, graph.graph.nodes, strict=True))
    made = conv.factorised(kind, 1 - 1e-9, 1), fc.factorised("linear", 1 - 1e-9, 1)
    assert made[0].ranks == ([4, 4] if kind == "tucker" else [4])
    assert made[0].error < 1e-5
    for candidate, form in zip((conv, fc), made, strict=True):
        put(graph, nodes[candidate.node], form)
    graph.recompile()
    after = bundle.replace(graph=graph)
    assert macs(after) == made[0].macs + made[1].macs
    x = torch.randn(3, 16, 12, 10)
    torch.testing.assert_close(after.run(x)[0], bundle.run(x)[0], rtol=1e-3, atol=1e-4)
    single = alone(conv, made[0].steps, "one")
    y = torch.randn(3, 16, 12, 10)
    truth = torch.nn.functional.conv2d(y, conv.whole.weight, conv.bias, (2, 1), (1, 3), (1, 2))
    torch.testing.assert_close(single.run(y)[0], truth.detach(), rtol=1e-3, atol=1e-4)


class Fake:
    """Each convolution or matrix product takes ``call``, and each of its multiply-accumulates ``each`` seconds."""

    def __init__(self, call: float, each: float = 1e-9) -> None:
        self.call, self.each = call, each

    def seconds(self, whole: Bundle) -> float:
        calls = sum("conv2d" in str(n.target) or "linear" in str(n.target) for n in whole.graph.graph.nodes)
        return self.call * calls + self.each * macs(whole)

    def race(self, bundles: Sequence[Bundle]) -> list[float]:
        return [self.seconds(b) for b in bundles]


@pytest.fixture(scope="module")
def net() -> Bundle:
    torch.manual_seed(0)
    return Bundle.capture(Layers("channel").eval(), (torch.randn(2, 16, 12, 10),), name="net")


def test_only_what_measures_faster_stays(net: Bundle, avx2: Callable[..., Any]) -> None:
    settings = {"energy": 0.999, "round-to": 1}
    fast = run_passes(net, [make_pass("factorise", settings)], avx2(clock=Fake(1e-9)))
    told = fast.history[-1].changes
    assert set(told["layers"]) == {"conv", "fc"}
    assert told["layers"]["conv"]["ranks"] == [4]
    assert told["whole-model-ms"][1] < told["whole-model-ms"][0]
    assert told["macs"] == [macs(net), macs(fast)]
    assert {"conv.part0.weight", "conv.part1.weight", "conv.bias"} <= set(fast.graph.state_dict())
    fast.export(1)
    x = torch.randn(3, 16, 12, 10)
    torch.testing.assert_close(fast.run(x)[0], net.run(x)[0], rtol=1e-3, atol=1e-3)
    slow = run_passes(net, [make_pass("factorise", settings)], avx2(clock=Fake(1.0)))
    told = slow.history[-1].changes
    assert told["changed"] is False
    assert "of the whole layer's time at best" in told["whole"]["conv"]
    some = run_passes(net, [make_pass("factorise", settings)], avx2(clock=Fake(2e-5)))  # worth it for the convolution alone
    assert set(some.history[-1].changes["layers"]) == {"conv"}


def test_without_a_clock_by_multiply_accumulates(net: Bundle, avx2: Callable[..., Any]) -> None:
    with pytest.raises(RecipeError, match="needs a device to measure on"):
        run_passes(net, [make_pass("factorise", {})], avx2())
    after = run_passes(net, [make_pass("factorise", {"macs": 0.5, "measure": False, "round-to": 1})], avx2())
    told = after.history[-1].changes
    assert macs(after) <= 0.5 * macs(net)
    assert told["layers"]["conv"]["measured"] is False
    with pytest.raises(RecipeError, match="can't be reached; the least possible"):
        run_passes(net, [make_pass("factorise", {"macs": 0.0001, "measure": False})], avx2())
    kept = run_passes(net, [make_pass("factorise", {"measure": False, "round-to": 1, "protect": ["conv"]})], avx2())
    assert set(kept.history[-1].changes["layers"]) == {"fc"}
    with pytest.raises(RecipeError, match="'nowhere', which is no layer"):
        run_passes(net, [make_pass("factorise", {"measure": False, "protect": ["nowhere"]})], avx2())
