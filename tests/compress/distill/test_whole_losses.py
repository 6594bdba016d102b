"""Losses over whole outputs: texts and boxes, against loops, torch's own CTC and graphs that learn by them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from packlight.compress.distill.boxes import BoxLoss
from packlight.compress.distill.build import check
from packlight.compress.distill.loss import whole_losses
from packlight.compress.distill.sequence import best_paths
from packlight.core.bundle import Bundle
from packlight.tasks.load import load_task

T = 2.0


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_best_paths_take_out_repeats_and_blanks() -> None:
    paths = torch.tensor([[1, 1, 0, 1, 2], [0, 0, 0, 0, 0], [3, 3, 3, 2, 2]])
    scores = nn.functional.one_hot(paths, 4).double()
    assert best_paths(scores, 0).tolist() == [[1, 1, 2], [-1, -1, -1], [3, 2, -1]]
    assert best_paths(scores, 3).tolist()[0] == [1, 0, 1, 2]


def test_sequence_is_the_ctc_loss_of_the_teachers_texts() -> None:
    task = load_task("recognition", "abc")
    own, taught = random(3, 9, 4, seed=1), 3 * random(3, 9, 4, seed=2)
    expected = 0.0
    for s, t in zip(own, taught):
        best, text = t.argmax(-1).tolist(), []
        for step, label in enumerate(best):
            if label and (step == 0 or best[step - 1] != label):
                text.append(label)
        scores = s.log_softmax(-1)[:, None]
        loss = nn.functional.ctc_loss(scores, torch.tensor([text]), torch.tensor([9]), torch.tensor([len(text)]), reduction="sum")
        expected += float(loss) / len(text) / 3
    assert float(whole_losses.get("sequence")([own], [taught], task, T)) == pytest.approx(expected)


def test_boxes_by_their_formula() -> None:
    own, taught = (random(2, 5, 4, seed=1), random(2, 5, 3, seed=2)), (random(2, 5, 4, seed=3), random(2, 5, 3, seed=4))
    classes = boxes = weights = 0.0
    for n in range(2):
        for a in range(5):
            for c in range(3):
                p, q = (1 / (1 + math.exp(-float(side[1][n, a, c]) / T)) for side in (taught, own))
                classes += T * T * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))) / 10
            weight = max(1 / (1 + math.exp(-float(v))) for v in taught[1][n, a])
            weights += weight
            for k in range(4):
                d = abs(float(own[0][n, a, k] - taught[0][n, a, k]))
                boxes += weight * (0.5 * d * d if d < 1 else d - 0.5)
    assert float(BoxLoss(exclusive=False)(own, taught, None, T)) == pytest.approx(classes + boxes / weights)
    swapped = BoxLoss(exclusive=False)(own[::-1], taught[::-1], None, T)
    assert float(swapped) == pytest.approx(classes + boxes / weights)


def test_boxes_of_exclusive_classes_by_their_formula() -> None:
    own, taught = (random(1, 3, 4, seed=1), random(1, 3, 5, seed=2)), (random(1, 3, 4, seed=3), random(1, 3, 5, seed=4))
    classes = boxes = weights = 0.0
    for a in range(3):
        p, q = torch.softmax(taught[1][0, a] / T, 0).tolist(), torch.softmax(own[1][0, a] / T, 0).tolist()
        classes += T * T * sum(x * math.log(x / y) for x, y in zip(p, q)) / 3
        weight = 1 - float(torch.softmax(taught[1][0, a], 0)[0])
        weights += weight
        for k in range(4):
            d = abs(float(own[0][0, a, k] - taught[0][0, a, k]))
            boxes += weight * (0.5 * d * d if d < 1 else d - 0.5)
    assert float(BoxLoss(exclusive=True)(own, taught, None, T)) == pytest.approx(classes + boxes / weights)


@pytest.mark.parametrize("name", ["boxes", "boxes-softmax"])
def test_the_teachers_own_outputs_are_the_least(name: str) -> None:
    taught = (random(2, 6, 4, seed=5), random(2, 6, 3, seed=6))
    own = tuple((t + 0.5 * random(*t.shape, seed=7)).requires_grad_() for t in taught)
    loss = whole_losses.get(name)
    assert float(loss(taught, taught, None, T)) == pytest.approx(0, abs=1e-12)
    optimizer = torch.optim.Adam(own, lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(own, taught, None, T).backward()
        optimizer.step()
    assert loss(own, taught, None, T).item() < 1e-4


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.boxes, self.scores = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(3, 3, 4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.boxes(x).flatten(2).transpose(1, 2), self.scores(x).flatten(2).transpose(1, 2)


def test_losses_are_offered_where_they_fit() -> None:
    detector = Bundle.capture(Detector(), [torch.zeros(2, 3, 8, 8)], name="detector")
    classifier = Bundle.capture(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), [torch.zeros(2, 3, 8, 8)], name="classifier")
    task = load_task("classification")
    assert check("boxes", (), detector, detector, task)
    assert "compares boxes (N, anchors, 4) and scores" in check("boxes", (), classifier, classifier, task).why
    assert "it is for the task recognition" in check("sequence", (), classifier, classifier, task).why
    assert check("sequense", (), classifier, classifier, task).why == (
        "unknown distillation loss 'sequense' (did you mean 'sequence'?); known: boxes, boxes-softmax, dist, dkd, kd, sequence, task"
    )
