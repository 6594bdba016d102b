"""What the plan makes of the constructions that real models hold: fewest scales, no needless pairs, and the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from packlight.compress.graph import drop_identities, functionalize
from packlight.compress.passes import run_passes
from packlight.compress.quantize.affine import sqnr_db
from packlight.compress.quantize.lower import lower
from packlight.compress.quantize.ops.role import known_operators
from packlight.compress.quantize.plan import Plan, make_plan
from packlight.compress.quantize.static import Quantize
from packlight.compress.quantize.torchao import installed
from packlight.core.bundle import Bundle


class Lambda(nn.Module):
    """A function of ``self`` (with layers ``a``, ``b``, ``c`` of 4 channels) and x."""

    def __init__(self, body: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.body = body
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.fc = nn.Linear(4, 5)
        self.prelu = nn.PReLU(4)
        self.norm = nn.BatchNorm2d(4)
        self.inorm = nn.InstanceNorm2d(4)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def capture(body: Callable[[Any, Tensor], Any]) -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = Lambda(body)
        with torch.no_grad():
            module.norm.running_mean.normal_()
            module.norm.running_var.uniform_(0.5, 2)
        return Bundle.capture(module.eval(), (torch.randn(2, 4, 8, 8),))


def planned(body: Callable[[Any, Tensor], Any], keep_float: tuple[str, ...] = ()) -> Plan:
    graph = capture(body).copy_graph()
    lower(graph)
    return make_plan(graph, keep_float)


def scales(plan: Plan) -> int:
    return len(set(plan.scales.values()))


def group(plan: Plan, name: str) -> int | None:
    """The group of the value that a node of this name makes."""
    return next((g for (value, reader), g in plan.scales.items() if value.name == name and reader is None), None)


def names(nodes: Any) -> set[str]:
    return {n.name for n in nodes}


BODIES: dict[str, Callable[[Any, Tensor], Any]] = {
    "conv relu": lambda s, x: F.relu(s.a(x)),
    "conv relu6 in place": lambda s, x: F.relu6(s.a(x), inplace=True),
    "residual, added in place": lambda s, x: F.relu(s.b(F.relu(s.a(x), inplace=True)).add_(x), inplace=True),
    "option A shortcut": lambda s, x: F.relu(F.pad(s.a(x)[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))[:, 2:6] + F.max_pool2d(s.b(x), 2)),
    "dropout": lambda s, x: s.b(F.dropout(F.relu(s.a(x)), 0.5, s.training)),
    "numbers": lambda s, x: s.b(F.relu((s.a(x) * 0.5 + 1.0) / 4 - 0.1)),
    "rsub": lambda s, x: s.b(1 - s.a(x)),
    "silu": lambda s, x: s.b(F.silu(s.a(x))),
    "hardswish": lambda s, x: s.b(F.hardswish(s.a(x), inplace=True)),
    "hardsigmoid": lambda s, x: s.b(x) * F.hardsigmoid(s.a(x)),
    "leaky": lambda s, x: s.b(F.leaky_relu(s.a(x), 0.1)),
    "prelu": lambda s, x: s.b(s.prelu(s.a(x))),
    "hardtanh": lambda s, x: s.b(F.hardtanh(s.a(x), -0.5, 0.5)),
    "clamp": lambda s, x: s.b(s.a(x).clamp(0, 0.7)),
    "clamp above zero": lambda s, x: s.b(s.a(x).clamp(0.2, 0.7)),
    "squeeze-excite": lambda s, x: (lambda y: s.c(y * torch.sigmoid(s.b(y.mean((2, 3), keepdim=True)))))(F.relu(s.a(x))),
    "concat": lambda s, x: torch.cat([s.a(x), s.b(x)], 1)[:, 2:6] + x,
    "concat of clipped": lambda s, x: torch.cat([F.relu(s.a(x)), F.relu(s.b(x))], 1)[:, :4],
    "concat of clipped and free": lambda s, x: torch.cat([F.relu(s.a(x)), s.b(x)], 1)[:, :4],
    "concat of prescribed": lambda s, x: torch.cat([torch.sigmoid(s.a(x)), s.b(x), torch.tanh(s.c(x))], 1),
    "norm after concat": lambda s, x: s.b(F.relu(s.norm(torch.cat([s.a(x)[:, :2], x[:, 2:]], 1)))),
    "instance norm": lambda s, x: s.b(F.relu(s.inorm(s.a(x)))),
    "reflect": lambda s, x: s.b(F.pad(s.a(x), (1, 1, 1, 1), mode="reflect")),
    "shuffle": lambda s, x: F.pixel_shuffle(s.a(x), 2) + F.interpolate(x[:, :1], scale_factor=2, mode="nearest"),
    "resize": lambda s, x: s.b(F.interpolate(s.a(x), scale_factor=2, mode="bilinear", align_corners=True)),
    "up": lambda s, x: F.avg_pool2d(s.up(s.a(x)), 2),
    "chunk": lambda s, x: (lambda p: torch.cat([p[1], p[0]], 1))(s.a(x).chunk(2, 1)),
    "chunk of the input": lambda s, x: s.b(torch.cat(x.chunk(2, 1)[::-1], 1)),
    "head": lambda s, x: s.fc(F.adaptive_avg_pool2d(F.relu(s.a(x)), 1).flatten(1)).softmax(-1),
    "attention": lambda s, x: (lambda y: y @ y.transpose(1, 2))(s.a(x).flatten(2)),
    "views with a free batch": lambda s, x: s.a(x).view(x.size(0), -1, 8).permute(0, 2, 1).reshape(x.size(0), 8, 4, 8).sum(1),
    "output twice": lambda s, x: (s.a(x), F.relu(s.b(x))),
    "gelu": lambda s, x: s.b(F.gelu(s.a(x))),
}


@pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")
@pytest.mark.parametrize("name", BODIES)
def test_a_construction_quantizes_close_and_exports_free_and_fixed(name: str, avx2, noise) -> None:
    bundle = capture(BODIES[name])
    after = run_passes(bundle, [Quantize()], avx2(127, calib=noise(64, 4, 8, 8)))
    x = torch.from_numpy(noise(16, 4, 8, 8, seed=3).inputs[0])
    for wanted, got in zip(bundle.run(x), after.run(x), strict=True):
        assert sqnr_db(wanted.numpy(), got.numpy()) > 26
    assert [t.shape for t in after.run(x[:3])] == [t.shape for t in bundle.run(x[:3])]
    if name in ("option A shortcut", "views with a free batch", "chunk", "output twice"):
        free = after.export().module(check_guards=False)
        assert all(torch.equal(a, b) for a, b in zip(_flat(free(x)), after.run(x), strict=True))


def _flat(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("conv relu", 2),  # input, result
        ("residual, added in place", 4),  # input, first relu, second convolution, last relu
        ("dropout", 3),
        ("concat", 3),  # input; both parts, the concatenation and its slice; the sum
        ("concat of clipped", 2),
        ("concat of clipped and free", 3),  # the clipped part keeps its own scale and is requantized into the other's
        ("concat of prescribed", 6),
        ("squeeze-excite", 7),
        ("reflect", 3),
        ("resize", 3),
        ("up", 3),
        ("chunk", 2),
        ("silu", 5),
        ("hardtanh", 3),
        ("clamp above zero", 4),
    ],
)
def test_there_are_no_more_scales_than_kernels_need(name: str, count: int) -> None:
    assert scales(planned(BODIES[name])) == count


def test_what_clips_is_fused_and_its_input_has_no_scale() -> None:
    plan = planned(BODIES["residual, added in place"])
    assert {k.name: v.name for k, v in plan.fused.items()} == {"relu_": "conv2d", "relu__1": "add_"}
    assert group(plan, "conv2d") is None
    assert group(plan, "add_") is None
    assert group(plan, "conv2d_1") is not None


def test_a_value_read_twice_is_not_hidden_by_fusing() -> None:
    plan = planned(lambda s, x: (lambda y: F.relu(y) + y)(s.a(x)))
    assert plan.fused == {}
    assert group(plan, "conv2d") is not None


def test_sigmoid_tanh_and_softmax_have_the_prescribed_scales() -> None:
    plan = planned(BODIES["concat of prescribed"])
    found = {n: plan.fixed[group(plan, n)] for n in ("sigmoid", "tanh")}  # type: ignore[index]
    assert {n: (q.scale, q.zero_point) for n, q in found.items()} == {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0)}
    plan = planned(BODIES["head"])
    assert plan.fixed[group(plan, "softmax")].scale == 1 / 256  # type: ignore[index]


def test_float_islands_have_no_pairs_inside() -> None:
    plan = planned(BODIES["instance norm"])
    assert names(plan.floats) == {"instance_norm", "relu"}
    assert plan.floats[next(n for n in plan.floats if n.name == "relu")].startswith("its inputs are float")
    assert scales(plan) == 4  # input, first convolution, what enters the second, its result
    assert ("relu", "conv2d_1") in {(v.name, r.name) for v, r in plan.scales if r is not None}


def test_an_input_carried_to_a_sum_of_integers_is_quantized_once() -> None:
    plan = planned(BODIES["shuffle"])
    assert plan.floats == {}
    assert scales(plan) == 3  # input (and its enlarged copy), convolution, sum


def test_keeping_a_layer_float_keeps_only_that_layer() -> None:
    plan = planned(lambda s, x: s.c(F.relu(s.b(F.relu(s.a(x))))), keep_float=("b",))
    assert plan.layers() == ("a", "c")
    assert {n.name: why for n, why in plan.floats.items()}["conv2d_1"] == "kept float by the settings"


def test_lowering_changes_no_value() -> None:
    x = torch.randn(3, 4, 8, 8)
    for name, body in BODIES.items():
        bundle = capture(body)
        graph = bundle.copy_graph()
        lower(graph)
        operators = [n.target for n in graph.graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
        for wanted, got in zip(bundle.run(x), _flat(graph(x)), strict=True):
            assert torch.allclose(wanted, got, atol=1e-5), name
        assert not any(o._schema.is_mutable for o in operators), name
        assert not any(word in str(o) for o in operators for word in ("dropout", "batch_norm", "silu")), name


def test_an_in_place_operator_whose_memory_is_seen_elsewhere_stays() -> None:
    bundle = capture(lambda s, x: (lambda y: (y[:, :2].mul_(2), y)[1])(s.a(x)))
    graph = bundle.copy_graph()
    functionalize(graph)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(graph(x), bundle.run(x)[0])


def test_identities_are_dropped_and_nothing_else() -> None:
    bundle = capture(lambda s, x: s.a(x.clone().contiguous()[:, :, :])[:, :, 0:4])
    graph = bundle.copy_graph()
    drop_identities(graph)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(graph(x), bundle.run(x)[0])
    assert [str(n.target) for n in graph.graph.nodes if n.op == "call_function"].count("aten.slice.Tensor") == 1


def test_a_norm_that_became_a_convolution_has_exact_weights(avx2, noise) -> None:
    after = run_passes(capture(BODIES["norm after concat"]), [Quantize()], avx2(calib=noise(16, 4, 8, 8)))
    weight = after.graph.state_dict()["norm.folded_weight"]
    assert weight.dtype == torch.int8
    assert torch.all(weight.abs() == 63)


def test_every_rule_names_an_operator_that_exists() -> None:
    for name in known_operators():
        if name == "getitem":
            continue
        _, packet, overload = name.split(".")
        assert hasattr(getattr(torch.ops.aten, packet), overload), name


def test_a_chain_of_many_concatenations_is_planned_in_reasonable_time() -> None:
    import time

    def dense(s: Any, x: Tensor) -> Tensor:
        for _ in range(60):
            x = torch.cat([x[:, 2:], s.a(x)[:, :2]], 1)
        return x

    graph = capture(dense).copy_graph()
    lower(graph)
    began = time.perf_counter()
    plan = make_plan(graph)
    assert time.perf_counter() - began < 5
    assert np.unique(list(plan.scales.values())).size <= 2


def test_a_view_outlives_the_copy_before_it() -> None:
    """Channel shuffle as it is often written: a copy in one piece, then a view."""

    class Shuffle(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.view(x.shape[0], 2, 3, *x.shape[2:]).transpose(1, 2).contiguous()
            return y.view(x.shape)

    x = torch.randn(2, 6, 4, 4)
    graph = Bundle.capture(Shuffle(), (x,)).copy_graph()
    assert drop_identities(graph) == 1
    torch.testing.assert_close(graph(x), Shuffle()(x))


class FirstState(nn.Module):
    """A recurrent cell of convolutions whose first state is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.head = nn.Conv2d(3 + 4, 8, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 4, 6, 6)
        c = torch.zeros_like(h)
        for t in range(2):
            i, g = self.gates(torch.cat([x[:, t], h], 1)).chunk(2, 1)
            c = torch.sigmoid(i) * c + g
            h = torch.tanh(c)
        return self.head(h)


def test_a_first_state_of_zeros_costs_nothing() -> None:
    """The product with it is gone, exactly; the input beside it is quantized before it is joined to it."""
    bundle = Bundle.capture(FirstState().eval(), (torch.randn(2, 2, 3, 6, 6),))
    graph = bundle.copy_graph()
    lower(graph)
    x = torch.randn(5, 2, 3, 6, 6)
    torch.testing.assert_close(graph(x), bundle.run(x)[0], rtol=0, atol=0)
    names = [str(n.target) for n in graph.graph.nodes]
    assert names.count("aten.mul.Tensor") == 1
    plan = make_plan(graph)
    assert sum(str(n.target) == "aten.cat.default" for n in plan.roles) == 2
