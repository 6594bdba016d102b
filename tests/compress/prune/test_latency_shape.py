"""Pruning to a latency, against a device whose times are known in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.passes import run_passes
from packlight.compress.prune.plan import PruneSettings, rank
from packlight.compress.prune.shape import shape_to
from packlight.compress.prune.timed import Seconds, timed_layers
from packlight.compress.prune.trace import couple
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import RecipeError
from packlight.core.latency import LatencyTable, Layer, Times

STEP = 4


class Pair(nn.Module):
    """Two hidden layers with equally important units; the first works at four times the places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1, stride=2), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x))))).mean((2, 3))


class StairClock:
    """T = 1 us + 1 ns for each multiply-accumulate at channel counts rounded up to STEP. The whole has 10 us on top and is
    ``slower`` than the sum of its layers."""

    def __init__(self, slower: float = 1.0) -> None:
        self.slower = slower
        self.measured: list[float] = []

    def time(self, layer: Layer, sizes: Sequence[int]) -> float:
        outs, ins = (-(-s // STEP) * STEP for s in sizes)
        kernel = np.prod(layer.settings["kernel_size"])
        places = np.prod(layer.input[2:]) / np.prod(layer.settings["stride"])
        return 1e-6 + 1e-9 * float(outs * ins * kernel * places)

    def table(self, layers: Sequence[Layer], whole: Bundle) -> LatencyTable:
        times = {}
        for layer in layers:
            axes = tuple(tuple(range(STEP, s + 1, STEP)) if s >= STEP else (s,) for s in layer.sizes)
            times[layer.key] = Times(axes=axes, seconds=tuple(self.time(layer, sizes) for sizes in itertools.product(*axes)))
        return LatencyTable(
            runtime="stairs", precision="fp32", threads=1, device="closed form", step=STEP, whole_s=self.seconds(whole), times=times
        )

    def seconds(self, whole: Bundle) -> float:
        layers = [timed.layer for timed in timed_layers(couple(whole))]
        self.measured.append(self.slower * (10e-6 + sum(self.time(layer, layer.sizes) for layer in layers)))
        return self.measured[-1]


@pytest.fixture
def pair() -> Bundle:
    torch.manual_seed(0)
    net = Pair().eval()
    with torch.no_grad():
        for layer in (net.a, net.b):
            layer.weight.copy_(torch.sign(layer.weight) * 0.05)
            layer.bias.zero_()
    return Bundle.capture(net, (torch.randn(2, 3, 16, 16),), name="pair")


def widths(bundle: Bundle) -> tuple[int, int]:
    return tuple(bundle.graph.state_dict()[f"{name}.weight"].shape[0] for name in "ab")


@pytest.mark.parametrize("slower", [1.0, 1.5])
def test_the_target_is_met_by_the_whole(pair: Bundle, avx2: Callable[..., Any], slower: float) -> None:
    """Also where the whole is slower than its layers say."""
    clock = StairClock(slower)
    whole = clock.seconds(pair)
    pruned = run_passes(pair, [make_pass("prune", {"latency": 0.6 * whole * 1e3})], avx2(clock=clock))
    assert 0.45 * whole <= clock.seconds(pruned) <= 0.6 * whole
    assert all(width % STEP == 0 for width in widths(pruned))
    told = pruned.history[-1].changes["latency-ms"]
    assert told["after"] == pytest.approx(clock.seconds(pruned) * 1e3, rel=1e-3)
    assert told["step"] == STEP


def test_seconds_add_up(pair: Bundle) -> None:
    coupling, clock = couple(pair), StairClock()
    layers = timed_layers(coupling)
    seconds = Seconds(layers, clock.table([t.layer for t in layers], pair), coupling.unit)
    assert [t.name for t in layers] == ["conv2d", "conv2d_1", "conv2d_2"]
    assert seconds.rest == pytest.approx(10e-6)
    assert seconds(np.zeros(coupling.units, bool)) == pytest.approx(clock.seconds(pair))


def test_units_go_where_they_cost_time(avx2: Callable[..., Any]) -> None:
    """Two branches of equal importance; the one at four times the places is cut first."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dear = nn.Sequential(nn.Conv2d(4, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 1))
            self.cheap = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(4, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.dear(x).mean((2, 3)) + self.cheap(x).mean((2, 3))

    net = Branches().eval()
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    bundle = Bundle.capture(net, (torch.randn(2, 4, 16, 16),))
    clock = StairClock()
    settings = {"latency": 0.6 * clock.seconds(bundle) * 1e3}
    state = run_passes(bundle, [make_pass("prune", settings)], avx2(clock=clock)).graph.state_dict()
    assert state["dear.0.weight"].shape[0] <= 20
    assert state["cheap.1.weight"].shape[0] == 32


def test_a_layer_as_narrow_as_a_step_may_lose_half(pair: Bundle) -> None:
    ranked = rank(pair, PruneSettings(latency=1.0))
    assert [ranked.limits(PruneSettings(latency=1.0), step).steps for step in (16, 32)] == [(16, 16), (16, 16)]
    assert ranked.limits(PruneSettings(latency=1.0, round_to=32), 16).step(0) == 32
    clock = StairClock()
    layers = timed_layers(ranked.coupling)
    seconds = Seconds(layers, clock.table([t.layer for t in layers], pair), ranked.coupling.unit)
    limits = ranked.limits(PruneSettings(latency=1.0), 32)
    removed = shape_to(ranked.free, ranked.scores, ranked.coupling.units, limits, ranked.floors, seconds, 0.4 * clock.seconds(pair))
    assert [int((~removed[g.units]).sum()) for g in ranked.free] == [16, 16]


def test_what_cannot_be_reached_is_refused(pair: Bundle, avx2: Callable[..., Any]) -> None:
    clock = StairClock()
    with pytest.raises(RecipeError, match="can't be reached, the least possible is"):
        run_passes(pair, [make_pass("prune", {"latency": 0.011})], avx2(clock=clock))
    with pytest.raises(RecipeError, match="asks for nothing"):
        run_passes(pair, [make_pass("prune", {"latency": 99.0})], avx2(clock=clock))


def test_it_needs_a_clock(pair: Bundle, avx2: Callable[..., Any]) -> None:
    with pytest.raises(RecipeError, match="latency needs a device to measure on"):
        run_passes(pair, [make_pass("prune", {"latency": 1.0})], avx2())


LAYERS = {
    "conv1d": (nn.Conv1d(4, 8, 3), (2, 4, 10), ("conv", (8, 4))),
    "transposed": (nn.ConvTranspose2d(4, 8, 2, stride=2), (2, 4, 5, 5), ("conv_transpose", (8, 4))),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 6, 6), ("depthwise", (8,))),
    "grouped": (nn.Conv2d(4, 8, 3, groups=2), (2, 4, 6, 6), ("conv", (8, 4))),
    "linear": (nn.Linear(4, 8), (2, 4), ("linear", (8, 4))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_found(name: str) -> None:
    layer, shape, expected = LAYERS[name]
    (found,) = timed_layers(couple(Bundle.capture(layer.eval(), (torch.randn(shape),))))
    assert (found.layer.kind, found.layer.sizes) == expected


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_are_found(kind: type[nn.Module]) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = kind(6, 8, 2, bidirectional=True, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0])

    found = timed_layers(couple(Bundle.capture(Tagger().eval(), (torch.randn(2, 5, 6),))))
    assert [(t.layer.kind, t.layer.sizes) for t in found] == [
        (kind.__name__.lower(), (8, 6)),
        (kind.__name__.lower(), (8, 16)),
        ("linear", (3, 16)),
    ]
    assert found[0].layer.input == (1, 5, -1)
