"""Adversarial distillation: losses by their formulas, steps against a loop, resumption to the same weights, two processes, and refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from packlight.compress import train
from packlight.compress.distill.adversarial import discriminator_loss, student_loss
from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.compress.training.checkpoint import load_checkpoint
from packlight.compress.training.schedule import Budget, factor
from packlight.core.bundle import Bundle
from packlight.core.errors import RecipeError
from packlight.tasks.data.load import load_data
from packlight.tasks.load import load_task
from packlight.tasks.samples import View

LATENTS, COUNT, BATCH = (4, 1, 1), 96, 16


class Draw(nn.Module):
    """(N, 4, 1, 1) -> (N, 1, 8, 8) in [-1, 1]."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, width, 4)
        self.out = nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.out(torch.relu(self.up(z))))


class Tell(nn.Module):
    """(N, 1, 8, 8) -> a score for each of four places; with ``norm`` it also has everything that has a state."""

    def __init__(self, norm: bool = False, last: nn.Module | None = None) -> None:
        super().__init__()
        extra = [nn.BatchNorm2d(5), nn.Dropout(0.2)] if norm else []
        self.net = nn.Sequential(nn.Conv2d(1, 5, 4, 2, 1), *extra, nn.LeakyReLU(0.2), nn.Conv2d(5, 1, 3), *([last] if last else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def made(kind: type[nn.Module], seed: int, **arguments: Any) -> Bundle:
    torch.manual_seed(seed)
    shape = (2, *LATENTS) if kind is Draw else (2, 1, 8, 8)
    return Bundle.capture(kind(**arguments), [torch.zeros(shape)], name=kind.__name__)


def latents() -> View:
    train = load_data(f"latents:{'x'.join(map(str, LATENTS))},n={COUNT}").train
    assert train is not None
    return View(train, tuple(range(COUNT)))


def context(**fields: Any) -> Context:
    fields = {"teacher": made(Draw, 1, width=9), "discriminator": made(Tell, 2), "task": load_task("generation"), **fields}
    return Context(target=None, train=latents(), **fields)  # type: ignore[arg-type]


def test_losses_by_their_formulas() -> None:
    r, f = [0.5, -1.0, 2.0], [0.25, -2.0, 1.5]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    wanted = {
        "least-squares": (mean([0.5 * (x - 1) ** 2 for x in f]), mean([0.5 * (x - 1) ** 2 for x in r]) + mean([0.5 * x * x for x in f])),
        "hinge": (-mean(f), mean([max(0, 1 - x) for x in r]) + mean([max(0, 1 + x) for x in f])),
        "non-saturating": (
            mean([math.log(1 + math.exp(-x)) for x in f]),
            mean([math.log(1 + math.exp(-x)) for x in r]) + mean([math.log(1 + math.exp(x)) for x in f]),
        ),
    }
    for form, (student, own) in wanted.items():
        real, fake = torch.tensor(r), torch.tensor(f)
        assert float(student_loss(form, [fake])) == pytest.approx(student, rel=1e-6)  # type: ignore[arg-type]
        assert float(discriminator_loss(form, [real], [fake])) == pytest.approx(own, rel=1e-6)  # type: ignore[arg-type]
        assert float(student_loss(form, [fake, fake])) == pytest.approx(student, rel=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["least-squares", "hinge", "non-saturating"])
def test_steps_are_those_of_a_loop(form: Any) -> None:
    chosen = {"form": form, "weight": 2.0, "lr": 0.01}
    settings = {"epochs": 3, "batch-size": BATCH, "lr": 0.05, "momentum": 0.0, "weight-decay": 0.0, "alpha": 1.0, "adversarial": chosen}
    where = context(seed=4)
    after = run_passes(made(Draw, 0), [make_pass("distill", settings)], where)

    torch.manual_seed(0)
    student = Draw()
    torch.manual_seed(1)
    teacher = Draw(9)
    torch.manual_seed(2)
    judge = Tell()
    steps = torch.optim.SGD(student.parameters(), lr=0.05)
    own = torch.optim.Adam(judge.parameters(), lr=0.01, betas=(0.5, 0.999))
    noise = torch.from_numpy(latents().batch(range(COUNT))[0][0])
    budget = Budget(3 * (COUNT // BATCH), None)
    for epoch in range(3):
        order = np.random.default_rng((4, 77, epoch)).permutation(COUNT)
        for start in range(0, COUNT - BATCH + 1, BATCH):
            share = factor(budget.progress, "cosine", 0.05)
            steps.param_groups[0]["lr"], own.param_groups[0]["lr"] = 0.05 * share, 0.01 * share
            z = noise[order[start : start + BATCH]]
            image, truth = student(z), teacher(z).detach()
            loss = ((image - truth) ** 2 + 1e-6).sqrt().mean() + 2.0 * student_loss(form, [judge(image)])
            steps.zero_grad()
            loss.backward()
            steps.step()
            own.zero_grad()
            discriminator_loss(form, [judge(truth)], [judge(image.detach())]).backward()
            own.step()
            budget.step()
    for name, value in student.state_dict().items():
        assert torch.allclose(after.graph.state_dict()[name], value, atol=1e-5), name
    plain = run_passes(made(Draw, 0), [make_pass("distill", {**settings, "adversarial": None})], context(seed=4, discriminator=None))
    assert not torch.allclose(plain.graph.state_dict()["out.weight"], student.out.weight, atol=1e-4)


class Stop(Exception):
    pass


class Stopper:
    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        if done >= 10:
            raise Stop

    def say(self, line: str) -> None: ...


SETTINGS = {"epochs": 4, "batch-size": BATCH, "lr": 0.05, "alpha": 1.0, "ema": 0.5, "accumulate": 2, "adversarial": {"weight": 0.2}}


def test_a_run_that_stopped_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    judge = made(Tell, 2, norm=True)
    before = {k: v.clone() for k, v in judge.graph.state_dict().items()}

    def run(**fields: Any) -> Bundle:
        return run_passes(made(Draw, 0), [make_pass("distill", SETTINGS)], context(discriminator=judge, **fields))

    with pytest.raises(Stop):
        run(work=tmp_path, progress=Stopper())
    (file,) = tmp_path.glob("distill-*.pt")
    state = load_checkpoint(file)
    assert state is not None
    assert state["step"] == 9
    moved = {k.removeprefix("net."): v for k, v in state["opponent"]["net"].items()}
    assert not torch.equal(moved["net.0.weight"], before["net.0.weight"])
    assert not torch.equal(moved["net.1.running_mean"], before["net.1.running_mean"])
    assert len(state["opponent"]["optimizer"]["state"]) == 6
    resumed, straight = run(work=tmp_path), run()
    for name, value in straight.graph.state_dict().items():
        assert torch.equal(resumed.graph.state_dict()[name], value), name
    assert all(torch.equal(v, before[k]) for k, v in judge.graph.state_dict().items())  # the user's stays as it was
    rows = next(tmp_path.glob("*.csv")).read_text().splitlines()
    assert {"soft", "adversarial", "discriminator"} <= set(rows[0].split(","))
    assert straight.history[-1].changes["discriminator"] == "Tell"


SPREAD = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import adversarial_helpers as t
rank = os.environ["RANK"]
Path(sys.argv[1], f"weights-{rank}").write_text(" ".join(f"{v:.9g}" for v in t.flat(t.spread()).tolist()))
"""


def spread() -> Bundle:
    settings = {**SETTINGS, "adversarial": {"weight": 0.2, "lr": 0.01}}
    return run_passes(made(Draw, 0), [make_pass("distill", settings)], context())


def flat(bundle: Bundle) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in bundle.graph.parameters()])


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    from processes import two_processes

    first, second = two_processes(tmp_path, SPREAD, Path(__file__), "adversarial_helpers", "weights")
    assert np.array_equal(first, second)
    assert np.allclose(first, flat(spread()).numpy(), atol=1e-5)


class Score(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))


@pytest.mark.parametrize(
    ("fields", "settings", "words"),
    [
        ({"discriminator": None}, {"adversarial": {}}, "needs a discriminator; give --discriminator"),
        ({"discriminator": (Draw, {})}, {}, "the discriminator 'Draw' reads .*, but the student gives"),
        ({"discriminator": (Score, {})}, {}, "must have weights to train"),
        (
            {"discriminator": (Tell, {"last": nn.Sigmoid()})},
            {"adversarial": {"form": "hinge"}},
            "ends in sigmoid; 'hinge' wants the scores",
        ),
        ({"discriminator": (Tell, {"last": nn.Tanh()})}, {}, "ends in tanh"),
        ({"teacher": None}, {"alpha": 0.0}, "there is no teacher"),
    ],
)
def test_what_cannot_be_judged_is_refused(fields: dict[str, Any], settings: dict[str, Any], words: str) -> None:
    given = {k: made(v[0], 0, **v[1]) if isinstance(v, tuple) else v for k, v in fields.items()}
    with pytest.raises(RecipeError, match=words):
        run_passes(made(Draw, 0), [make_pass("finetune", settings)], context(**given))


def test_scores_of_classes_are_no_image() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    student = Bundle.capture(net, [torch.zeros(2, *LATENTS)], name="classes")
    given = {"train": latents(), "teacher": student, "discriminator": made(Tell, 0), "task": load_task("classification")}
    with pytest.raises(RecipeError, match=r"a discriminator judges images, and task 'classification' .* is none"):
        run_passes(student, [make_pass("distill", {})], Context(target=None, **given))  # type: ignore[arg-type]
