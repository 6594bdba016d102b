"""Pruning in steps, and training under a penalty: schedules in closed form, penalties against autograd, units against the pruner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.finetune import FinetuneSettings, train
from packlight.compress.passes import Context, make, run_passes
from packlight.compress.prune.gradual import IterativeSettings, left_after
from packlight.compress.prune.plan import PruneSettings, plan, rank
from packlight.compress.prune.sparse.penalties import GroupLasso, Growing, rise
from packlight.compress.prune.sparse.units import Units
from packlight.compress.prune.surgery import tensor_of
from packlight.compress.recipe import load_passes
from packlight.compress.training.rider import KeepZeros
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.errors import RecipeError
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task

SHORT = {"epochs": 1, "batch-size": 32, "augment": "none"}
load_passes()


class Net(nn.Module):
    """A residual pair. (N, 3, 8, 8) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.up, self.mid, self.down = nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24), nn.Conv2d(24, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.down(torch.relu(self.mid(self.up(x)))))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Bundle.capture(Net(), (torch.randn(2, 3, 8, 8),), name="net", task="classification")


@pytest.fixture(scope="module")
def corners() -> Context:
    """Noise with one bright corner, which is the class."""
    random = np.random.default_rng(5)
    x, y = random.integers(0, 90, (320, 8, 8, 3), dtype=np.uint8), np.arange(320) % 4
    for image, label in zip(x, y, strict=True):
        image[label // 2 * 4 :][:4, label % 2 * 4 :][:, :4] += 60
    splits = splits_of({"all": (x, y)})
    return Context(target=None, task=load_task("classification"), train=splits.train, val=splits.val)  # type: ignore[arg-type]


def test_what_is_left_after_each_step_is_the_published_curve() -> None:
    final = 0.2
    for steps in (3, 10):
        for t in range(steps + 1):
            sparsity = (1 - final) + (0 - (1 - final)) * (1 - t / steps) ** 3  # equation 1 of arXiv:1710.01878, s_i = 0, t_0 = 0
            assert left_after(t, steps, final, "polynomial") == pytest.approx(1 - sparsity)
            assert left_after(t, steps, final, "linear") == pytest.approx(1 - (1 - final) * t / steps)


@pytest.mark.parametrize("schedule", ["linear", "polynomial"])
def test_steps_follow_the_curve_in_multiply_accumulates(net: Bundle, corners: Context, schedule: str) -> None:
    made = make("prune-iterative", {"macs": 0.4, "steps": 3, "schedule": schedule, "reconstruct": False, "finetune": SHORT})
    after = run_passes(net, [made], corners)
    told = after.history[-1].changes
    whole = macs(net)
    for number, step in enumerate(told["steps"], 1):
        asked = left_after(number, 3, 0.4, schedule) * whole
        assert 0.9 * asked <= step["macs"] <= 1.02 * asked
        assert ("validation" in step) == (number < 3), "trained between the steps, not after the last"
    assert told["macs"] == [whole, macs(after)]
    assert told["layers"]["up"] == [[24, 16], list(after.graph.state_dict()["up.weight"].shape[:2])]
    assert told["macs-by-layer"]["up"][0] == 24 * 16 * 64


def test_a_ratio_in_steps_ends_at_that_ratio_of_the_whole(net: Bundle, corners: Context) -> None:
    made = make("prune-iterative", {"ratio": 0.5, "steps": 3, "schedule": "linear", "reconstruct": False, "finetune": SHORT})
    state = run_passes(net, [made], corners).graph.state_dict()
    assert (state["up.weight"].shape[0], state["stem.weight"].shape[0]) == (12, 8)


def test_most_counts_from_the_whole_not_from_the_step_before(net: Bundle, corners: Context) -> None:
    settings = {"macs": 0.45, "steps": 3, "most": 0.5, "reconstruct": False, "finetune": SHORT}
    state = run_passes(net, [make("prune-iterative", settings)], corners).graph.state_dict()
    assert state["up.weight"].shape[0] >= 12
    assert state["stem.weight"].shape[0] >= 8


def test_a_step_that_is_reached_already_is_passed_over() -> None:
    settings = IterativeSettings(macs=0.5, steps=2)
    assert settings.of_step(1, 40.0, 100.0, {}) is None
    asked = settings.of_step(2, 80.0, 100.0, {"a": 0.25})
    assert asked is not None
    assert asked.macs == pytest.approx(0.5 / 0.8)
    assert asked.limits == {"a": 0.25}


def penalised(net: Bundle, kind: type, strength: float, progress: float) -> tuple[float, dict[str, Tensor], Any]:
    """The penalty's value and the gradients that it leaves on zero gradients, by one of its riders."""
    ranked = rank(net, PruneSettings(ratio=0.5))
    chosen = np.zeros(ranked.coupling.units, bool)
    for group in ranked.free:
        chosen[group.units] = True
    rider = kind(Units(ranked.coupling, chosen), strength, 0.5)
    graph = net.copy_graph()
    for parameter in graph.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rider.board(graph)
    value = float(rider.before_step(progress))
    return value, {name: p.grad.clone() for name, p in graph.named_parameters() if p.grad is not None}, ranked


@pytest.mark.parametrize("kind", [GroupLasso, Growing])
def test_penalties_and_their_gradients_are_those_of_the_formula(net: Bundle, kind: type) -> None:
    """Held against autograd through the sum over groups, members and rows, written out."""
    value, found, ranked = penalised(net, kind, 0.3, 0.25)
    graph = net.copy_graph()
    parameters = dict(graph.named_parameters())
    total = torch.zeros(())
    for group in ranked.free:
        for row in range(len(group)):
            parts = [parameters[m.name].movedim(m.dim, 0)[m.indices[row]].flatten() for m in group.members if m.name in parameters]
            w = torch.cat(parts)
            total = total + (len(w) ** 0.5 * w.norm() if kind is GroupLasso else 0.5 * w.square().sum())
    (0.5 * 0.3 * total).backward()  # a quarter of the run is half of the rise
    assert value == pytest.approx(float(0.5 * 0.3 * total.detach()), rel=1e-5)
    for name, parameter in parameters.items():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6, msg=name)
    assert any(bool(g.abs().max() > 0) for g in found.values())


def test_a_unit_at_zero_is_not_torn() -> None:
    assert rise(0.2, 0.4) == 0.5
    assert rise(0.9, 0.4) == 1.0
    net = Net()
    with torch.no_grad():
        for part in (net.up.weight, net.up.bias, net.mid.weight, net.mid.bias):
            part[3] = 0.0
        net.down.weight[:, 3] = 0.0
    bundle = Bundle.capture(net, (torch.randn(2, 3, 8, 8),))
    _, found, _ = penalised(bundle, GroupLasso, 1.0, 1.0)
    assert all(bool(torch.isfinite(g).all()) for g in found.values())
    assert float(found["mid.weight"][3]) == 0.0


@pytest.mark.parametrize("penalty", ["growing", "group-lasso"])
def test_training_presses_on_what_the_pruner_takes(net: Bundle, corners: Context, penalty: str) -> None:
    settings = {**SHORT, "epochs": 6, "lr": 0.05, "penalty": penalty, "prune": {"macs": 0.5}} | (
        {"strength": 0.01} if penalty != "growing" else {}
    )
    after = run_passes(net, [make("sparse-train", settings)], corners)
    told = after.history[-1].changes
    assert told["norm-left"]["median"] < 0.9
    assert {k: v.shape for k, v in after.graph.state_dict().items()} == {k: v.shape for k, v in net.graph.state_dict().items()}
    if penalty == "growing":
        first, then = plan(net, PruneSettings(macs=0.5)), plan(after, PruneSettings(macs=0.5))
        assert np.array_equal(first.removed, then.removed), "what was trained away is what goes"
        assert told["units"] == first.removed.sum()
        assert told["norm-left"]["median"] < 0.3


def test_growing_needs_to_know_what_goes() -> None:
    with pytest.raises(RecipeError, match="growing' needs to know what will go"):
        make("sparse-train", {"epochs": 1})
    with pytest.raises(RecipeError, match="decided before"):
        make("sparse-train", {"prune": {"latency": 1.0}})


def test_zeros_stay_zero_in_training(net: Bundle, corners: Context) -> None:
    graph = net.copy_graph()
    masks = {}
    with torch.no_grad():
        for name in ("up.weight", "down.weight"):
            weight = tensor_of(graph, name)
            masks[name] = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5
            weight.mul_(masks[name])
    before = graph.state_dict()["up.weight"].clone()
    settings = FinetuneSettings(epochs=2, batch_size=32, augment="none", lr=0.1)
    train(net.replace(graph=graph), settings, corners, "finetune", 0.0, riders=[KeepZeros(masks)], keep_last=True)
    for name, mask in masks.items():
        weight = graph.state_dict()[name]
        assert float(weight[~mask].abs().max()) == 0.0
        assert bool((weight[mask] != 0).all())
    assert not torch.equal(before, graph.state_dict()["up.weight"])
