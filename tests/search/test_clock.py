"""The clock that measures: layers alone at other sizes, the runtime's steps, and a model pruned to a latency on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from packlight.compress.passes import Context, run_passes
from packlight.compress.prune.timed import timed_layers
from packlight.compress.prune.trace import couple
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import TargetError
from packlight.core.latency import Layer
from packlight.search.clock import RuntimeClock, open_clock, step_of
from packlight.search.one_layer import axes_of, bundle_of, input_shape
from packlight.targets.link.local import Local
from packlight.targets.load import load_target

CONTEXT = Context(target=load_target("x86-64-avx2"))


@pytest.mark.parametrize("step", [1, 2, 4, 8, 16])
def test_steps_of_a_staircase(step: int) -> None:
    counts = list(range(48, 65))
    assert step_of(counts, [1e-5 + 1e-6 * (-(-c // step)) * step for c in counts]) == step


def test_axes_are_multiples_of_the_step() -> None:
    layer = Layer(kind="conv", input=(1, -1, 8, 8), sizes=(64, 32), settings={"groups": 1})
    assert axes_of(layer, 8, (True, True)) == ((16, 32, 48, 64), (8, 16, 24, 32))
    assert axes_of(layer, 8, (True, False)) == ((16, 32, 48, 64), (32,))
    assert axes_of(Layer(kind="linear", input=(1, -1), sizes=(10, 64)), 8, (True, True))[0] == (8, 10)


MODULES = {
    "conv": (nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 8, 8)),
    "same": (nn.Conv2d(6, 8, 3, padding="same"), (2, 6, 8, 8)),
    "transposed": (nn.ConvTranspose2d(6, 8, 3, stride=2, output_padding=1), (2, 6, 4, 4)),
    "depthwise": (nn.Conv1d(6, 12, 3, groups=6), (2, 6, 9)),
    "grouped": (nn.Conv2d(6, 8, 1, groups=2, bias=False), (2, 6, 5, 5)),
    "linear": (nn.Linear(6, 8), (2, 6)),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_layer_alone_is_the_layer(name: str) -> None:
    """At the whole's sizes it has the layer's own shapes: of what it reads, gives and learns."""
    module, shape = MODULES[name]
    (timed,) = timed_layers(couple(Bundle.capture(module.eval(), (torch.randn(shape),))))
    alone = bundle_of(timed.layer, timed.layer.sizes, "alone")
    assert input_shape(timed.layer, timed.layer.sizes) == (1, *shape[1:])
    assert [tuple(p.shape) for p in alone.graph.parameters()] == [tuple(p.shape) for p in module.parameters()]
    x = torch.randn(1, *shape[1:])
    assert alone.run(x)[0].shape == module(x).shape


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(TargetError, match="has no coreml in fp32; it has: "), open_clock(CONTEXT, runtime="coreml"):
        pass


def test_measured_here(tmp_path: Path) -> None:
    """The table comes from this machine's runtime, and is found again without measuring."""
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 4)).eval()
    bundle = Bundle.capture(net, (torch.randn(2, 1),), name="net")
    target = load_target("x86-64-avx2")
    layers = [timed.layer for timed in timed_layers(couple(bundle))][:1]
    with Local() as link:
        table = RuntimeClock(target, target.runtimes[0], link, cache=tmp_path).table(layers, bundle)
        clock = RuntimeClock(target, target.runtimes[0], link, cache=tmp_path)
        again = clock.table(layers, bundle)
    assert again.times == table.times
    (times,) = table.times.values()
    assert all(0 < s < 0.1 for s in times.seconds)
    assert table.runtime == target.runtimes[0].name


@pytest.mark.slow
def test_pruned_to_half_the_time() -> None:
    def block(a: int, b: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())

    net = nn.Sequential(block(3, 32), block(32, 64), block(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()
    bundle = Bundle.capture(net, (torch.randn(1, 3, 32, 32),), name="net")
    with open_clock(CONTEXT) as clock:
        before = clock.seconds(bundle)
        pruned = run_passes(bundle, [make_pass("prune", {"latency": before * 0.5e3})], dataclasses.replace(CONTEXT, clock=clock))
        assert clock.seconds(pruned) < 0.6 * before
