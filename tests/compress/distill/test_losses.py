"""Every distillation loss: its formula written out in loops, zero where the student equals the teacher, and a gradient that leads there."""

from __future__ import annotations

import math

import pytest
import torch

from packlight.compress.distill.build import HintSettings, check  # noqa: F401  files every loss
from packlight.compress.distill.loss import hints, logit_losses

T = 3.0


def scores(seed: int, rows: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q))


def test_kd_by_its_formula() -> None:
    own, taught = scores(1), scores(2)
    expected = 0.0
    for s, t in zip(own, taught):
        expected += T * T * kl(torch.softmax(t / T, 0).tolist(), torch.softmax(s / T, 0).tolist()) / 6
    assert float(logit_losses.get("kd")(own, taught, LABELS, T)) == pytest.approx(expected)


def test_dkd_by_its_formula() -> None:
    own, taught = scores(1), scores(2)
    expected = 0.0
    for s, t, label in zip(own, taught, LABELS.tolist()):
        q, p = torch.softmax(s / T, 0).tolist(), torch.softmax(t / T, 0).tolist()
        target = kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        rest = [i for i in range(5) if i != label]
        others = kl([p[i] / (1 - p[label]) for i in rest], [q[i] / (1 - q[label]) for i in rest])
        expected += T * T * (target + 8 * others) / 6
    assert float(logit_losses.get("dkd")(own, taught, LABELS, T)) == pytest.approx(expected)


def test_dkd_is_kd_where_its_weights_are_those_of_kd() -> None:
    """KD = TCKD + (1 - p_true) NCKD (equation 6 of the paper), sample by sample."""
    own, taught = scores(3, rows=1), scores(4, rows=1)
    label = torch.tensor([2])
    p = float(torch.softmax(taught / T, 1)[0, 2])
    whole = float(logit_losses.get("kd")(own, taught, label, T))
    from packlight.compress.distill import dkd

    parts = {}
    for name, weights in (("target", (1.0, 0.0)), ("others", (0.0, 1.0))):
        kept = dkd.TARGET_WEIGHT, dkd.OTHERS_WEIGHT
        dkd.TARGET_WEIGHT, dkd.OTHERS_WEIGHT = weights
        parts[name] = float(dkd.dkd(own, taught, label, T))
        dkd.TARGET_WEIGHT, dkd.OTHERS_WEIGHT = kept
    assert parts["target"] + (1 - p) * parts["others"] == pytest.approx(whole)


def test_dist_by_numpy_correlation() -> None:
    import numpy as np

    own, taught = scores(1), scores(2)
    q, p = torch.softmax(own / T, 1).numpy(), torch.softmax(taught / T, 1).numpy()
    rows = np.mean([1 - np.corrcoef(q[i], p[i])[0, 1] for i in range(6)])
    columns = np.mean([1 - np.corrcoef(q[:, i], p[:, i])[0, 1] for i in range(5)])
    assert float(logit_losses.get("dist")(own, taught, None, T)) == pytest.approx(T * T * (rows + columns))


@pytest.mark.parametrize("name", logit_losses.names())
def test_a_logit_loss_is_least_at_the_teacher(name: str) -> None:
    taught = scores(2)
    loss = logit_losses.get(name)
    assert float(loss(taught, taught, LABELS, T)) == pytest.approx(0, abs=1e-9)
    own = scores(1).requires_grad_()
    optimizer = torch.optim.Adam([own], lr=0.05)
    first = float(loss(own.detach(), taught, LABELS, T))
    for _ in range(300):
        optimizer.zero_grad()
        loss(own, taught, LABELS, T).backward()
        optimizer.step()
    assert float(loss(own.detach(), taught, LABELS, T)) < 0.01 * first
    assert torch.equal(own.argmax(1), taught.argmax(1))
    assert math.isfinite(float(loss(own, taught, None, T)))


def maps(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_by_its_formula() -> None:
    mine, theirs = maps(1, 4, 3, 5, 5), maps(2, 4, 7, 5, 5)
    expected = 0.0
    for s, t in zip(mine, theirs):
        a, b = s.pow(2).sum(0).flatten(), t.pow(2).sum(0).flatten()
        expected += float((a / a.norm() - b / b.norm()).pow(2).sum()) / 4
    assert float(hints.get("attention").make((3, 5, 5), (7, 5, 5))(mine, theirs)) == pytest.approx(expected, rel=1e-5)


def test_similarity_by_its_formula() -> None:
    mine, theirs = maps(1, 4, 3, 2, 2), maps(2, 4, 7, 5, 5)
    total = 0.0
    for i in range(4):
        a = torch.stack([(mine[i] * mine[j]).sum() for j in range(4)])
        b = torch.stack([(theirs[i] * theirs[j]).sum() for j in range(4)])
        total += float((a / a.norm() - b / b.norm()).pow(2).sum())
    assert float(hints.get("similarity").make((3, 2, 2), (7, 5, 5))(mine, theirs)) == pytest.approx(total / 16, rel=1e-5)


def test_relations_by_their_formula() -> None:
    mine, theirs = maps(1, 5, 3).double(), maps(2, 5, 7).double()

    def relations(f: torch.Tensor) -> tuple[list[float], list[float]]:
        gaps = [float((f[i] - f[j]).norm()) for i in range(5) for j in range(5)]
        mean = sum(gaps) / 20
        angles = []
        for i in range(5):
            for j in range(5):
                for k in range(5):
                    a, b = f[j] - f[i], f[k] - f[i]
                    size = float(a.norm() * b.norm())
                    angles.append(float(a @ b) / size if size else 0.0)
        return [g / mean for g in gaps], angles

    def huber(a: list[float], b: list[float]) -> float:
        return sum(0.5 * d * d if d < 1 else d - 0.5 for d in (abs(x - y) for x, y in zip(a, b))) / len(a)

    (d1, a1), (d2, a2) = relations(mine), relations(theirs)
    loss = hints.get("relational").make((3,), (7,))(mine, theirs)
    assert float(loss) == pytest.approx(huber(d1, d2) + 2 * huber(a1, a2), rel=1e-5)


def test_fitnet_learns_its_adapter() -> None:
    torch.manual_seed(0)
    theirs = maps(2, 16, 4, 6, 6)
    mixing = maps(5, 6, 4)
    mine = torch.einsum("nchw,dc->ndhw", theirs, mixing)
    module = hints.get("fitnet").make((6, 6, 6), (4, 6, 6))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    first = float(module(mine, theirs))
    for _ in range(300):
        optimizer.zero_grad()
        loss = module(mine, theirs)
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.01 * first
    assert math.isfinite(float(hints.get("fitnet").make((6,), (4,))(maps(1, 8, 6), maps(2, 8, 4))))


@pytest.mark.parametrize("name", hints.names())
def test_a_hint_compares_maps_of_different_sizes_and_has_a_gradient(name: str) -> None:
    mine = maps(1, 4, 3, 4, 4).requires_grad_()
    hints.get(name).make((3, 4, 4), (7, 8, 8))(mine, maps(2, 4, 7, 8, 8)).backward()
    assert mine.grad is not None
    assert bool(torch.isfinite(mine.grad).all())
    assert float(mine.grad.abs().max()) > 0


@pytest.mark.parametrize("name", ["attention", "similarity", "relational"])
def test_a_hint_without_adapter_is_zero_at_the_teacher(name: str) -> None:
    theirs = maps(2, 4, 7, 4, 4)
    assert float(hints.get(name).make((7, 4, 4), (7, 4, 4))(theirs.clone(), theirs)) == pytest.approx(0, abs=1e-6)
