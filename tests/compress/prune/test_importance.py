"""Criteria against closed forms, and evidence from data against explicit gates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import hadamard
from torch import Tensor, nn

from packlight.compress.prune.allocate import Allocator, Floors, Limits
from packlight.compress.prune.group import Group, groups_of
from packlight.compress.prune.importance import criteria, normalised
from packlight.compress.prune.importance.criterion import Slices, View, reduced
from packlight.compress.prune.importance.curvature import curvature
from packlight.compress.prune.importance.evidence import gather
from packlight.compress.prune.trace import couple
from packlight.core.bundle import Bundle

ROWS = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]], np.float32)


def view(**more: Any) -> View:
    return View((Slices(ROWS, "out"),), 3, np.random.default_rng(0), **more)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("l1", [7, 0, 1]),
        ("l2", [5, 0, 1]),
        ("lamp", [1, 0, 1 / 26]),
        ("geometric-median", [5 + np.sqrt(20), 6, np.sqrt(20) + 1]),
    ],
)
def test_closed_forms(name: str, told: list[float]) -> None:
    np.testing.assert_allclose(criteria.get(name)(view()), told, atol=1e-9)


def test_batchnorm_scale() -> None:
    rule = criteria.get("batchnorm")
    assert rule(view()) is None
    scales = View((Slices(np.array([[-2.0], [0.5]], np.float32), "scale"), Slices(ROWS[:2], "out")), 2, np.random.default_rng(0))
    np.testing.assert_allclose(rule(scales), [2, 0.5])


def test_data_terms() -> None:
    gates = np.array([[1.0, -2.0, 0.0], [-1.0, 4.0, 0.0]], np.float32)
    np.testing.assert_allclose(criteria.get("taylor")(view(gates=gates)), [1, 3, 0])
    np.testing.assert_allclose(criteria.get("fisher")(view(gates=gates)), [0.5, 5, 0])


def test_reduction_and_normalisation() -> None:
    parts = [np.array([1.0, 2.0]), np.array([3.0, 6.0])]
    assert [reduced(parts, how).tolist() for how in ("mean", "sum", "max", "first")] == [[2, 4], [4, 8], [3, 6], [1, 2]]
    scores = np.array([1.0, 4.0, 3.0])
    assert normalised(scores, "max").tolist() == [0.25, 1, 0.75]
    assert normalised(scores, "mean").mean() == pytest.approx(1)
    assert normalised(scores, "rank").tolist() == pytest.approx([1 / 3, 1, 2 / 3])
    assert normalised(np.zeros(3), "mean").tolist() == [0, 0, 0]


class Gated(nn.Module):
    """A residual net whose channels carry explicit gates, one a sample and channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.c, self.d = nn.Conv2d(6, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor, outer: Tensor | None = None, inner: Tensor | None = None) -> Tensor:
        one = torch.ones(1, 1)
        outer, inner = (one if g is None else g for g in (outer, inner))
        y = torch.tanh(self.a(x))
        z = y + torch.tanh(self.b(y * outer[:, :, None, None]))
        w = torch.tanh(self.c(z * outer[:, :, None, None]))
        return self.d(w.mean((2, 3)) * inner)


def test_gates_equal_explicit_gates() -> None:
    torch.manual_seed(0)
    net = Gated()
    x, target = torch.randn(6, 3, 7, 7), torch.randint(5, (6,))
    outer, inner = torch.ones(6, 6, requires_grad=True), torch.ones(6, 4, requires_grad=True)
    loss = F.cross_entropy(net(x, outer, inner), target, reduction="sum")
    told = torch.autograd.grad(loss, [outer, inner])
    coupling = couple(Bundle.capture(net, (x[:2],)))
    batches = [((x[:4],), target[:4]), ((x[4:],), target[4:])]
    evidence = gather(coupling, batches, lambda outputs, t: F.cross_entropy(outputs[0], t))
    for name, wanted in (("a.weight", told[0]), ("c.weight", told[1])):
        units = coupling.unit[coupling.weights[name][0].ids]
        np.testing.assert_allclose(evidence.gates[:, units], wanted.numpy(), rtol=1e-4, atol=1e-6)


class Rows:
    """Draws the rows of a Hadamard matrix: over all of them, v_i v_j averages to exactly 0 for i != j."""

    def __init__(self, size: int) -> None:
        self.rows = iter(hadamard(size))

    def choice(self, _values: np.ndarray, size: int) -> np.ndarray:
        return next(self.rows)[:size].astype(np.float32)


def test_curvature_is_the_hessian_of_explicit_gates() -> None:
    torch.manual_seed(0)
    net = Gated()
    x, target = torch.randn(4, 3, 7, 7), torch.randint(5, (4,))

    def loss(gates: Tensor) -> Tensor:
        return F.cross_entropy(net(x, gates[None, :6], gates[None, 6:]), target)

    ones = torch.ones(10)
    slope, hessian = torch.autograd.functional.jacobian(loss, ones), torch.autograd.functional.hessian(loss, ones)
    coupling = couple(Bundle.capture(net, (x[:2],)))
    size = 1 << int(np.ceil(np.log2(coupling.units)))
    found = curvature(coupling, [((x,), target)], lambda outputs, t: F.cross_entropy(outputs[0], t), Rows(size), probes=size)
    units = np.concatenate([coupling.unit[coupling.weights[name][0].ids] for name in ("a.weight", "c.weight")])
    np.testing.assert_allclose(found[0, units], slope.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1, units], hessian.diagonal().numpy(), rtol=1e-3, atol=1e-5)


def test_hessian_term() -> None:
    np.testing.assert_allclose(criteria.get("hessian")(view(curvature=np.array([[1.0, -2, 0], [2.0, 2, 3]]))), [0, 3, 1.5])


def test_isomorphic_groups_lose_the_same_share() -> None:
    """Ranked globally the small figures of one kind would all go first."""
    groups = [Group(np.arange(8) + 8 * i, ()) for i in range(4)]
    scores = [np.linspace(1, 2, 8) * scale for scale in (1, 1.01, 100, 101)]
    coupling = couple(Bundle.capture(nn.Conv2d(3, 4, 1), (torch.randn(1, 3, 2, 2),)))
    floors = Floors(coupling, [])

    def left(scope: str) -> list[int]:
        removed = Allocator(groups, scores, 32, Limits(), scope, floors, ["a", "a", "b", "b"]).by_ratio(0.5)
        return [8 - int(removed[g.units].sum()) for g in groups]

    assert left("global") == [1, 1, 8, 8]
    assert sum(left("isomorphic")[:2]) == sum(left("isomorphic")[2:]) == 8


def test_energy_is_what_readers_lose() -> None:
    """A unit's energy is the mean square of what its channel adds to its only reader, a 1x1 convolution."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1))
    x = torch.randn(8, 3, 6, 6)
    coupling = couple(Bundle.capture(net, (x[:2],)))
    evidence = gather(coupling, [((x,), None)], None)
    with torch.no_grad():
        y = net[:2](x)
        told = [float((F.conv2d(y[:, i : i + 1], net[2].weight[:, i : i + 1])).pow(2).sum(1).mean()) for i in range(6)]
    units = coupling.unit[coupling.weights["0.weight"][0].ids]
    np.testing.assert_allclose(evidence.energy[units], told, rtol=1e-5)
    assert evidence.gates.shape[0] == 0


def test_groups_hold_every_free_unit_once() -> None:
    coupling = couple(Bundle.capture(Gated(), (torch.randn(2, 3, 7, 7),)))
    units = np.concatenate([g.units for g in groups_of(coupling) if not g.protected])
    assert len(units) == len(set(units.tolist())) == 6 + 6 + 4 - 6
    names = {g.name for g in groups_of(coupling) if not g.protected}
    assert names == {"a", "c"}
