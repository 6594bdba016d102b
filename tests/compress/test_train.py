"""The training engine: modes against torch's own, augmentation against loops, schedules in closed form, and exact resumption."""

from __future__ import annotations

import copy
import csv
import dataclasses
import hashlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from packlight.compress.finetune import augmentation
from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.compress.training.augment import Augment, draw, erase, mix, recolour, shift_flip, zoom
from packlight.compress.training.checkpoint import load_checkpoint
from packlight.compress.training.feed import Feed
from packlight.compress.training.modes import twin, undecayed
from packlight.compress.training.schedule import Budget, factor
from packlight.core.bundle import Bundle
from packlight.core.errors import RecipeError
from packlight.core.preprocess import Preprocess
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import Splits

TASK = load_task("classification")
SPEC = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def corners(count: int = 480, mirrored: bool = False, side: int = 8) -> Splits:
    """Noisy images with a bright patch; its place is the class: one of four corners, or, mirrored alike, top, middle, bottom."""
    random = np.random.default_rng(5)
    x = random.integers(0, 90, (count, side, side, 3), dtype=np.uint8)
    y = np.arange(count) % (3 if mirrored else 4)
    for image, label in zip(x, y):
        if mirrored:
            image[label * 3 : label * 3 + 2] += 120
        else:
            top, left = (0, side // 2)[label // 2], (0, side // 2)[label % 2]
            image[top : top + side // 2, left : left + side // 2] += 60
    return splits_of({"all": (x, y)}, preprocess=SPEC)


class Net(nn.Module):
    def __init__(self, width: int = 8, classes: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width * 16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(torch.relu(self.bn1(self.conv1(x))))
        return self.linear(torch.relu(self.bn2(self.conv2(x))).flatten(1))


def network(seed: int = 0, **arguments: Any) -> Bundle:
    torch.manual_seed(seed)
    return Bundle.capture(Net(**arguments), [torch.zeros(2, 3, 8, 8)], name="net", task="classification")


def context(splits: Splits, **fields: Any) -> Context:
    return Context(target=None, task=TASK, train=splits.train, val=splits.val, **fields)  # type: ignore[arg-type]


def digest(bundle: Bundle) -> str:
    told = hashlib.sha256()
    for name, value in sorted(bundle.graph.state_dict().items()):
        told.update(name.encode() + value.numpy().tobytes())
    return told.hexdigest()


def accuracy(bundle: Bundle, samples: Any) -> float:
    (x,), y = samples.batch(range(len(samples)))
    return float((bundle.run(torch.from_numpy(x))[0].argmax(1).numpy() == y).mean())


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
        self.plain = nn.InstanceNorm2d(3)
        self.drop, self.drop2 = nn.Dropout(0.3), nn.Dropout2d(0.3)
        self.lstm = nn.LSTM(8, 5, 2, dropout=0.2, batch_first=True)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        x = self.plain(self.norm(self.bn(x)))
        x = self.drop2(self.drop(x))
        return {"a": self.lstm(x.flatten(1, 2))[0], "b": [x, x]}


def test_a_training_twin_does_what_the_module_does_in_training_mode() -> None:
    module = Everything()
    bundle = Bundle.capture(module, [torch.randn(2, 3, 4, 8)])
    x = torch.randn(6, 3, 4, 8)
    train, infer = twin(bundle.graph, training=True, taps=("batch_norm",)), twin(bundle.graph, training=False)
    module.train()
    torch.manual_seed(1)
    expected = torch.utils._pytree.tree_leaves(module(x))
    torch.manual_seed(1)
    got = train(x)
    assert len(got) == 4
    for mine, theirs in zip(got, expected):
        assert torch.allclose(mine, theirs, atol=1e-6)
    assert got[3].shape == x.shape
    for name, value in module.named_buffers():
        if "num_batches" not in name:
            assert torch.allclose(bundle.graph.get_buffer(name), value, atol=1e-6)
    module.eval()
    for mine, theirs in zip(infer(x), torch.utils._pytree.tree_leaves(module(x))):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_only_weights_with_more_than_one_axis_decay() -> None:
    decayed, plain = undecayed(network().graph)
    assert [tuple(p.shape)[:1] for p in decayed] == [(8,), (8,), (4,)]
    assert all(p.ndim == 1 for p in plain)
    assert len(plain) == 6


def test_shift_and_flip_against_a_loop() -> None:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (9, 6, 7, 3), dtype=np.uint8))
    plan = Augment(shift=2, flip=True)
    draws = draw(plan, 20, seed=3, view=1)
    rows = torch.tensor([4, 0, 19, 3, 3, 8, 11, 12, 1])
    got = shift_flip(images, plan, draws, rows)
    for i, row in enumerate(rows.tolist()):
        padded = np.pad(images[i].numpy(), ((2, 2), (2, 2), (0, 0)))
        down, right = draws.offset[row].tolist()
        crop = padded[down : down + 6, right : right + 7]
        assert np.array_equal(got[i].numpy(), crop[:, ::-1] if draws.flip[row] else crop)
    again = draw(plan, 20, seed=3, view=1)
    assert torch.equal(again.offset, draws.offset)
    assert not torch.equal(draw(plan, 20, seed=3, view=2).offset, draws.offset)
    assert 0 < int(draws.flip.sum()) < 20


def test_zoom_stays_inside_and_is_the_identity_for_the_whole() -> None:
    images = torch.rand(50, 2, 6, 6)
    draws = draw(Augment(zoom=0.35), 50, 0, 0)
    top, left, height, width = draws.box.unbind(1)
    assert bool((top >= 0).all() and (left >= 0).all() and (top + height <= 1 + 1e-6).all() and (left + width <= 1 + 1e-6).all())
    assert bool((height * width >= 0.35 * 0.75).all())
    whole = dataclasses.replace(draws, box=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(50, 1))
    assert torch.allclose(zoom(images, whole, torch.arange(50)), images, atol=1e-5)


def test_colours_move_as_the_formula_says_and_a_square_is_erased() -> None:
    images, rows = torch.rand(6, 3, 8, 8), torch.tensor([4, 0])
    plan = Augment(colour=0.4, erase=0.5)
    draws = draw(plan, 6, 0, 0)
    moved = recolour(images[rows], plan, draws, rows).numpy()
    for row, got in zip(rows.tolist(), moved):
        x = images[row].numpy().astype(np.float64)
        b, k, t = draws.colour[row].tolist()
        mean, spread = x.mean((1, 2), keepdims=True), x.std((1, 2), ddof=1, keepdims=True)
        x = (1 + 0.4 * k) * (x - mean) + mean + 0.4 * b * spread
        assert np.allclose(got, x + 0.4 * t * (x - x.mean(0)), atol=1e-5)
    assert set(draws.colour.sign().flatten().tolist()) == {-1.0, 1.0}
    inside = dataclasses.replace(draws, hole=torch.full((6, 2), 0.5))
    cut = erase(images, plan, inside, torch.arange(6))
    means = images.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)
    assert torch.equal(cut[:, :, 2:6, 2:6], means)
    cut[:, :, 2:6, 2:6] = images[:, :, 2:6, 2:6]
    assert torch.equal(cut, images)


def test_mixing_gives_each_pixel_its_share() -> None:
    images = torch.arange(6.0)[:, None, None, None].expand(6, 1, 8, 8).contiguous()
    mixed, pairing = mix(images, 1.0, 0.0, (1,))
    assert pairing is not None
    assert torch.allclose(mixed, images * pairing.share + images[pairing.partner] * (1 - pairing.share))
    cut, pairing = mix(images, 0.0, 1.0, (4,))
    assert pairing is not None
    for i in range(6):
        own = float((cut[i] == images[i]).float().mean())
        assert own == pytest.approx(1 if int(pairing.partner[i]) == i else pairing.share)
    assert mix(images, 0, 0, (1,))[1] is None


def test_schedules_in_closed_form() -> None:
    assert factor(0.05, "cosine", 0.1) == pytest.approx(0.5)
    assert factor(0.1, "cosine", 0.1) == pytest.approx(1.0)
    assert factor(0.55, "cosine", 0.1) == pytest.approx(0.5)
    assert factor(1.0, "cosine", 0.1) == pytest.approx(0.0)
    assert [factor(p, "step", 0.0) for p in (0.49, 0.5, 0.76)] == [1.0, 0.1, 0.01]
    assert factor(0.9, "constant", 0.0) == 1.0


def test_a_budget_ends_in_time_and_its_progress_at_one() -> None:
    budget = Budget(1000, 100.0)
    for step in range(10_000):
        budget.measure(spent=step * 0.5, per_step=0.5, reserve=2.0)
        if budget.over:
            break
        budget.step()
    assert budget.cut
    assert budget.done == pytest.approx((98 - 2) / 0.5, abs=2)
    assert budget.progress == pytest.approx(1.0, abs=0.02)
    plain = Budget(40, None)
    while not plain.over:
        plain.measure(1e9, 1e9, 1e9)
        plain.step()
    assert (plain.done, plain.cut, plain.progress) == (40, False, pytest.approx(1.0))


def test_batches_are_what_the_samples_give_and_every_sample_comes_once() -> None:
    train = corners(200).train
    assert train is not None
    feed = Feed(train, Augment(), 0, torch.device("cpu"), channels_last=True)
    rows = np.array([5, 1, 9])
    (reference,), target = train.batch([5, 1, 9])
    for _ in range(2):  # decoded, then from memory
        batch = feed.batch(rows, 0)
        assert torch.allclose(batch.inputs[0], torch.from_numpy(reference), atol=1e-6)
        assert batch.inputs[0].is_contiguous(memory_format=torch.channels_last)
        assert batch.target is not None
        assert batch.target.tolist() == target.tolist()  # type: ignore[union-attr]
    order = np.concatenate(feed.order(0, 20))
    assert len(set(order.tolist())) == len(order) == len(train) // 20 * 20
    assert not np.array_equal(order, np.concatenate(feed.order(1, 20)))


def test_it_learns_and_gives_the_same_weights_again() -> None:
    splits = corners()
    bundle = network()
    settings = {"epochs": 8, "lr": 0.05, "batch-size": 32, "augment": "none"}
    state = torch.get_rng_state()
    after = run_passes(bundle, [make_pass("finetune", settings)], context(splits))
    assert torch.equal(torch.get_rng_state(), state)
    assert accuracy(bundle, splits.test) < 0.5
    assert accuracy(after, splits.test) > 0.95
    changes = after.history[-1].changes
    assert changes["steps"] == 8 * (len(splits.train) // 32)  # type: ignore[arg-type]
    assert changes["validation"][1] == pytest.approx(accuracy(after, splits.val))
    assert not torch.equal(after.graph.bn1.running_mean, bundle.graph.bn1.running_mean)
    again = run_passes(network(), [make_pass("finetune", settings)], context(splits))
    assert digest(again) == digest(after)
    other = run_passes(network(), [make_pass("finetune", settings)], context(splits, seed=1))
    assert digest(other) != digest(after)


def test_a_teacher_alone_can_teach() -> None:
    splits = corners()
    taught = run_passes(network(), [make_pass("finetune", {"epochs": 8, "lr": 0.05, "batch-size": 32, "augment": "none"})], context(splits))
    shuffled = splits.train
    assert shuffled is not None
    wrong = type(shuffled)(shuffled.x, np.roll(shuffled.y, 1), shuffled.rows, shuffled.spec, shuffled.classes)  # type: ignore[attr-defined, call-arg]
    student = run_passes(
        network(seed=7, width=4),
        [make_pass("finetune", {"epochs": 10, "lr": 0.05, "batch-size": 32, "alpha": 1.0, "augment": "none", "views": 1})],
        Context(target=None, task=TASK, train=wrong, val=splits.val, teacher=taught),  # type: ignore[arg-type]
    )
    assert accuracy(student, splits.test) > 0.9


def test_kept_teacher_outputs_change_nothing() -> None:
    splits = corners(300)
    teacher = network(seed=3)
    settings = {"epochs": 2, "lr": 0.05, "batch-size": 32, "augment": "none"}
    plain = run_passes(network(), [make_pass("finetune", settings)], context(splits, teacher=teacher))
    kept = run_passes(network(), [make_pass("finetune", {**settings, "views": 1})], context(splits, teacher=teacher))
    assert digest(plain) == digest(kept)


def test_every_option_of_the_loop_trains() -> None:
    splits = corners()
    settings = {"epochs": 6, "lr": 0.01, "batch-size": 16, "accumulate": 2, "optimizer": "adamw", "clip": 1.0, "ema": 0.9}
    settings |= {"label-smoothing": 0.1, "mixup": 0.2, "cutmix": 0.2, "augment": "shift-zoom", "schedule": "step", "patience": 5}
    after = run_passes(network(), [make_pass("finetune", settings)], context(splits, teacher=network(seed=3)))
    assert accuracy(after, splits.test) > 0.6


def test_augmentation_is_chosen_by_what_the_teacher_bears() -> None:
    for mirrored in (True, False):
        splits = corners(600, mirrored=mirrored)
        settings = {"epochs": 8, "lr": 0.05, "batch-size": 32, "augment": "none"}
        classes = 3 if mirrored else 4
        teacher = run_passes(network(classes=classes), [make_pass("finetune", settings)], context(splits))
        assert augmentation("auto", teacher, context(splits, teacher=teacher)).flip is mirrored
    assert augmentation("auto", teacher, context(splits)) == Augment()
    assert augmentation("shift-flip", teacher, context(splits)) == Augment(shift=1, flip=True)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_train_helpers as t
import packlight.compress.train as train
train.CHECKPOINT_SECONDS = 0.0

class Killer:
    def step(self, label, done, total, note=""):
        if done >= 30:
            os.kill(os.getpid(), signal.SIGKILL)
    def say(self, line):
        pass

t.run(Path(sys.argv[2]), Killer())
"""


def run(work: Path | None, progress: Any = None) -> Bundle:
    """What the killed process does too: 50 steps with everything that has a state."""
    settings = {"epochs": 5, "lr": 0.05, "batch-size": 32, "ema": 0.9, "augment": "shift-flip", "mixup": 0.1}
    extra = {"progress": progress} if progress is not None else {}
    return run_passes(network(), [make_pass("finetune", settings)], context(corners(), work=work, teacher=network(seed=3), **extra))


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "test_train_helpers.py").write_text(Path(__file__).read_text())
    work = tmp_path / "work"
    source = Path(__file__).resolve().parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(work)], env=environment, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    (checkpoint,) = work.glob("finetune-*.pt")
    state = load_checkpoint(checkpoint)
    assert state is not None
    assert 20 <= state["step"] <= 30
    assert state["step"] % 10  # in the middle of an epoch of ten steps
    lines: list[str] = []

    class Listener:
        def step(self, *_: Any) -> None: ...

        def say(self, line: str) -> None:
            lines.append(line)

    resumed, straight = run(work, Listener()), run(None)
    assert any("goes on from step" in line for line in lines)
    assert digest(resumed) == digest(straight)
    with open(next(work.glob("*.csv"))) as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
    assert digest(run(work)) == digest(straight)  # finished: nothing is left to do


def test_a_network_learns_from_its_own_past_as_a_loop_says() -> None:
    """Two epochs against a loop of torch's own: the second mixes in what the weights at the end of the first say, the more the later."""
    splits = corners(200)
    assert splits.train is not None
    settings = {"epochs": 2, "lr": 0.05, "batch-size": 32, "augment": "none", "schedule": "constant", "warmup": 0.0, "own-past": 0.8}
    bundle = network(dropout=0.0)
    after = run_passes(bundle, [make_pass("finetune", settings)], dataclasses.replace(context(splits), val=None))
    assert after.history[-1].changes["teacher"] == "its own past"
    torch.manual_seed(0)
    net = Net(dropout=0.0).train()
    decayed, plain = [p for p in net.parameters() if p.ndim > 1], [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    feed = Feed(splits.train, Augment(), 0, torch.device("cpu"), channels_last=True)
    steps, past = 0, None
    for epoch in range(2):
        order = feed.order(epoch, 32)
        for rows in order:
            batch = feed.batch(rows, epoch)
            (x,), y = batch.inputs, batch.target
            assert y is not None
            scores = net(x)
            loss = nn.functional.cross_entropy(scores, y)
            if past is not None:
                share = 0.8 * steps / (2 * len(order))
                with torch.no_grad():
                    said = past(x).softmax(1)
                soft = (said * (said.log() - scores.log_softmax(1))).sum(1).mean()
                loss = (1 - share) * loss + share * soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        past = copy.deepcopy(net).eval()
    for name, value in net.state_dict().items():
        if "num_batches" not in name:
            assert torch.allclose(after.graph.state_dict()[name], value, atol=2e-4), name


def test_the_past_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    """A run stopped in its second epoch and taken up again ends as one that was not stopped."""

    class Stop(Exception): ...

    class Stopper:
        def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
            if label == "finetune" and done >= 20:
                raise Stop

        def say(self, line: str) -> None: ...

    settings = {"epochs": 4, "lr": 0.05, "batch-size": 32, "augment": "none", "own-past": 0.8}
    with pytest.raises(Stop):
        run_passes(network(), [make_pass("finetune", settings)], context(corners(), work=tmp_path, progress=Stopper()))
    resumed = run_passes(network(), [make_pass("finetune", settings)], context(corners(), work=tmp_path))
    straight = run_passes(network(), [make_pass("finetune", settings)], context(corners()))
    assert digest(resumed) == digest(straight)


def test_a_damaged_checkpoint_is_not_used(tmp_path: Path) -> None:
    straight = run(tmp_path)
    (checkpoint,) = tmp_path.glob("*.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert digest(run(tmp_path)) == digest(straight)


def test_time_ends_a_run(tmp_path: Path) -> None:
    settings = {"epochs": 100_000, "max-minutes": 0.05, "lr": 0.05, "augment": "none"}
    after = run_passes(network(), [make_pass("finetune", settings)], context(corners(), work=tmp_path))
    step = after.history[-1]
    assert step.seconds is not None
    assert 1.5 < step.seconds < 15  # three seconds and, on a busy machine, a long last step and validation
    assert "fitted into the time" in step.changes["cut"]
    with open(next(tmp_path.glob("*.csv"))) as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates[-1] < 0.05 * 0.3  # the schedule ended in time, not cut off at its peak


def test_a_trained_bundle_survives_saving(tmp_path: Path) -> None:
    settings = {"epochs": 1, "batch-size": 400, "accumulate": 8, "augment": "none"}  # fewer batches than a step may gather
    after = run_passes(network(), [make_pass("finetune", settings)], context(corners()))
    after.save(tmp_path / "b")
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(Bundle.load(tmp_path / "b").run(x)[0], after.run(x)[0])
    assert all(p.grad is None and p.is_contiguous() for p in after.graph.parameters())


def test_small_data_gets_enough_steps() -> None:
    splits = corners(100)
    after = run_passes(network(), [make_pass("finetune", {"epochs": 1, "min-steps": 7, "augment": "none"})], context(splits))
    assert after.history[-1].changes["steps"] == 7


def test_a_run_that_makes_nothing_better_gives_back_what_came_in() -> None:
    splits = corners()
    good = run_passes(network(), [make_pass("finetune", {"epochs": 8, "lr": 0.05, "batch-size": 32, "augment": "none"})], context(splits))
    assert accuracy(good, splits.val) == 1.0
    wrong = type(splits.train)(  # type: ignore[misc]
        splits.train.x,
        (splits.train.y + 1) % 4,
        splits.train.rows,
        splits.train.spec,  # type: ignore[union-attr, attr-defined]
    )
    settings = {"epochs": 3, "lr": 0.05, "alpha": 0.0, "augment": "none"}
    after = run_passes(good, [make_pass("finetune", settings)], Context(target=None, task=TASK, train=wrong, val=splits.val))  # type: ignore[arg-type]
    assert after.graph is good.graph
    assert "no epoch scored better" in after.history[-1].changes["why"]


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.linear = nn.Linear(256, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).view(x.shape[0], 256))


def test_a_graph_with_a_view_trains_in_the_plain_order() -> None:
    bundle = Bundle.capture(Views(), [torch.zeros(2, 3, 8, 8)])
    splits = corners()
    after = run_passes(bundle, [make_pass("finetune", {"epochs": 6, "batch-size": 32, "augment": "none"})], context(splits))
    assert accuracy(after, splits.test) > 0.9


def test_divergence_is_told() -> None:
    with pytest.raises(RecipeError, match=r"diverged at step \d+: the loss is .*; lower lr \(now 1e\+30\)"):
        run_passes(network(), [make_pass("finetune", {"epochs": 5, "lr": 1e30, "augment": "none"})], context(corners()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": None}, "needs training data"),
        ({"task": None}, "needs a task"),
        ({"teacher": "wide"}, "they must read the same data"),
        ({"settings": {"augment": "rotate"}}, "augment 'rotate' is unknown; known: auto, none"),
        ({"settings": {"device": "cuda"}}, "finds no GPU"),
        ({"bundle": "fixed"}, "fixed batch"),
        ({"bundle": "quantized"}, "train before 'quantize'"),
        ({"bundle": "few"}, "the model has 3 classes"),
    ],
)
def test_what_cannot_be_trained_is_told(change: dict[str, Any], words: str) -> None:
    if "device" in change.get("settings", {}) and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    splits = corners(100)
    bundle = network()
    if change.get("bundle") == "fixed":
        bundle = Bundle.capture(Net(), [torch.zeros(1, 3, 8, 8)], free_batch=False)
    elif change.get("bundle") == "quantized":
        bundle = bundle.replace(quantized={"scheme": "any"})
    elif change.get("bundle") == "few":
        bundle = network(classes=3)
    fields: dict[str, Any] = {"target": None, "task": TASK, "train": splits.train, "val": splits.val}
    fields |= {k: v for k, v in change.items() if k in ("train", "task")}
    if change.get("teacher"):
        fields["teacher"] = Bundle.capture(nn.Flatten(), [torch.zeros(2, 3, 9, 9)])
    with pytest.raises(RecipeError, match=words):
        run_passes(bundle, [make_pass("finetune", change.get("settings", {}))], Context(**fields))


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"lr": 0}, {"alpha": 1.5}, {"batch-size": 0}, {"epoch": 3}, {"schedule": "sine"}):
        with pytest.raises(RecipeError, match="pass 'finetune': .*its settings are: epochs, min-steps"):
            make_pass("finetune", settings)


def test_cosine_is_what_the_optimizer_gets(tmp_path: Path) -> None:
    run_passes(
        network(),
        [make_pass("finetune", {"epochs": 4, "lr": 0.2, "warmup": 0.0, "batch-size": 336, "augment": "none"})],
        context(corners(), work=tmp_path),
    )
    with open(next(tmp_path.glob("*.csv"))) as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.2 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])


SPREAD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_train_helpers as t
bundle = t.spread()
import os
Path(sys.argv[1], f"digest-{os.environ['RANK']}").write_text(" ".join(f"{v:.9g}" for v in t.flat(bundle)[:2000].tolist()))
"""


class Plain(nn.Module):
    """Without statistics over the batch, so that cutting batches in two changes nothing but rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.linear = nn.Linear(96, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.conv(x)).flatten(1))


def spread() -> Bundle:
    torch.manual_seed(0)
    bundle = Bundle.capture(Plain(), [torch.zeros(2, 3, 8, 8)])
    settings = {"epochs": 3, "lr": 0.05, "batch-size": 32, "augment": "shift-flip", "ema": 0.9}
    return run_passes(
        bundle, [make_pass("finetune", settings)], context(corners(), teacher=Bundle.capture(Plain(), [torch.zeros(2, 3, 8, 8)]))
    )


def flat(bundle: Bundle) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in bundle.graph.parameters()])


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    from processes import two_processes

    first, second = two_processes(tmp_path, SPREAD, Path(__file__), "test_train_helpers", "digest")
    assert np.array_equal(first, second)
    assert np.allclose(first, flat(spread())[:2000].numpy(), atol=1e-5)
