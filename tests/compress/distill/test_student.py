"""Pairs of layers found in real graphs, and students that learn by every loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from packlight.compress.distill.loss import hints, logit_losses
from packlight.compress.distill.pairs import named, pair
from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import load_passes, make_pass, read_recipe
from packlight.core.bundle import Bundle
from packlight.core.errors import RecipeError
from packlight.core.stages import stages
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import Splits

load_passes()
TASK = load_task("classification")


class Net(nn.Module):
    """Three stages at 8, 4 and 2 pixels."""

    def __init__(self, width: int, blocks: int = 1, classes: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for stage in range(3):
            for block in range(blocks):
                outputs = width * 2**stage
                layers += [
                    nn.Conv2d(inputs, outputs, 3, 2 if stage and not block else 1, 1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                ]
                inputs = outputs
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def network(seed: int, *arguments: int) -> Bundle:
    torch.manual_seed(seed)
    return Bundle.capture(Net(*arguments), [torch.zeros(2, 1, 8, 8)], name=f"net{arguments[0]}")


@pytest.fixture(scope="module")
def data() -> Splits:
    random = np.random.default_rng(5)
    x, y = random.integers(0, 90, (480, 8, 8), dtype=np.uint8), np.arange(480) % 4
    for image, label in zip(x, y):
        top, left = (0, 4)[label // 2], (0, 4)[label % 2]
        image[top : top + 4, left : left + 4] += 50
    return splits_of({"all": (x, y)})


@pytest.fixture(scope="module")
def teacher(data: Splits) -> Bundle:
    settings = {"epochs": 8, "batch-size": 32, "lr": 0.1, "augment": "none"}
    return run_passes(network(0, 8, 2), [make_pass("finetune", settings)], context(data))


def context(data: Splits, **fields: Any) -> Context:
    return Context(**{"target": None, "task": TASK, "train": data.train, "val": data.val, **fields})


def accuracy(bundle: Bundle, samples: Any) -> float:
    (x,), y = samples.batch(range(len(samples)))
    return float((bundle.run(torch.from_numpy(x))[0].argmax(1).numpy() == y).mean())


def test_stages_end_where_the_resolution_changes() -> None:
    found = stages(network(0, 4, 3))
    assert [s.shape for s in found] == [(4, 8, 8), (8, 4, 4), (16, 2, 2)]
    assert [s.node for s in found] == ["relu_2", "relu_5", "relu_8"]


def test_pairs_of_networks_of_different_depth_and_width() -> None:
    found = pair(network(0, 4, 1), network(0, 8, 3))
    assert [(p.student.node, p.teacher.node) for p in found] == [("relu", "relu_2"), ("relu_1", "relu_5"), ("relu_2", "relu_8")]


def test_stages_of_a_residual_graph(captured: Callable[..., Bundle]) -> None:
    bundle = captured("resnet18")
    found = stages(bundle)
    sizes = [s.shape[1:] for s in found]
    assert len(found) >= 4
    assert sizes == sorted(sizes, reverse=True)
    assert len(pair(bundle, bundle)) == len(found)


def test_layers_can_be_named() -> None:
    bundle = network(0, 4, 2)
    assert named(bundle, "body.2", "student").node == "relu"
    assert named(bundle, "body", "student").node == "relu_5"
    with pytest.raises(RecipeError, match=r"unknown student layer 'body\.22' \(did you mean 'body\.2'\?\)"):
        named(bundle, "body.22", "student")


@pytest.mark.parametrize("loss", [*logit_losses.names(), "task"])
def test_a_student_learns_from_outputs_alone(loss: str, data: Splits, teacher: Bundle) -> None:
    (x,), _ = data.train.batch(range(len(data.train)))  # type: ignore[union-attr, arg-type]
    unlabelled = splits_of(
        {"train": (np.rint(x * 255).astype(np.uint8)[:, 0], None), "test": (np.rint(x * 255).astype(np.uint8)[:, 0], None)}
    ).train
    settings = {"epochs": 8, "batch-size": 32, "loss": loss, "augment": "none", "views": 1}
    student = run_passes(network(1, 4, 1), [make_pass("distill", settings)], context(data, train=unlabelled, teacher=teacher))
    assert accuracy(teacher, data.test) > 0.95
    assert accuracy(student, data.test) > 0.9


@pytest.mark.parametrize("use", hints.names())
def test_a_student_learns_with_hints(use: str, data: Splits, teacher: Bundle) -> None:
    settings = {"epochs": 8, "batch-size": 32, "augment": "none", "hints": [{"use": use}]}
    before = network(1, 4, 1)
    student = run_passes(before, [make_pass("distill", settings)], context(data, teacher=teacher))
    assert accuracy(student, data.test) > 0.85
    assert student.graph.state_dict().keys() == before.graph.state_dict().keys()  # adapters are gone
    pairs = student.history[-1].changes["hints"][use]
    assert (
        pairs
        == {"all": ["relu->relu_1", "relu_1->relu_3", "relu_2->relu_5"], "middle": ["relu_1->relu_3"], "last": ["relu_2->relu_5"]}[
            hints.get(use).where
        ]
    )


def test_hints_pull_features_to_the_teacher(data: Splits, teacher: Bundle) -> None:
    """The attention of a student trained with attention transfer is nearer to the teacher's than without."""
    from packlight.compress.distill.attention import attention
    from packlight.compress.training.modes import twin

    (x,), _ = data.val.batch(range(40))  # type: ignore[union-attr]
    images = torch.from_numpy(x)
    theirs = attention(twin(teacher.graph, training=False, taps=("relu_1",))(images)[1])
    far = []
    for chosen in ([], [{"use": "attention", "weight": 50.0, "layers": [["body.2", "body.5"]]}]):
        settings = {"epochs": 6, "batch-size": 32, "augment": "none", "hints": chosen}
        student = run_passes(network(1, 4, 1), [make_pass("distill", settings)], context(data, teacher=teacher))
        mine = attention(twin(student.graph, training=False, taps=("relu",))(images)[1])
        far.append(float((mine - theirs).pow(2).sum(1).mean()))
    assert far[1] < 0.7 * far[0]


def test_a_recipe_with_hints() -> None:
    text = """
    schema = 1
    [[pass]]
    use = "finetune"
    loss = "dkd"
    hints = [{ use = "attention", weight = 2.0, until = 0.5 }, { use = "fitnet", layers = [["layer2", "layer2"]] }]
    """
    recipe = read_recipe(text, "recipe 'r'", "r")
    assert read_recipe(recipe.to_toml(), "again", "again") == recipe
    with pytest.raises(RecipeError, match=r"unknown field `wieght`"):
        read_recipe(text.replace("weight", "wieght"), "recipe 'r'", "r")


@pytest.mark.parametrize(
    ("settings", "fields", "words"),
    [
        ({}, {"teacher": None}, "needs a teacher"),
        ({"loss": "ckd"}, {}, r"unknown distillation loss 'ckd'.*known: boxes, boxes-softmax, dist, dkd, kd, sequence, task"),
        ({"hints": [{"use": "atention"}]}, {}, r"unknown hint 'atention' \(did you mean 'attention'\?\)"),
        ({"hints": [{"use": "fitnet", "layers": [["none", "body"]]}]}, {}, "unknown student layer 'none'"),
        ({}, {"teacher": network(0, 8, 2, 3)}, "they must give the same outputs"),
    ],
)
def test_what_cannot_be_distilled_is_told(settings: dict[str, Any], fields: dict[str, Any], words: str, data: Splits) -> None:
    with pytest.raises(RecipeError, match=words):
        run_passes(network(1, 4, 1), [make_pass("distill", settings)], context(data, **{"teacher": network(0, 8, 2), **fields}))
