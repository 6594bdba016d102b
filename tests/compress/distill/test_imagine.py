"""Images made from BatchNorm statistics, and students that never saw data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from packlight.compress.distill.imagine import ImagineSettings, _Maker, distance, imagine, variation
from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import load_passes, make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import PacklightError
from packlight.core.preprocess import Preprocess
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import Splits

load_passes()
TASK = load_task("classification")


def net(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * 16, 4),
    )


def bundle(seed: int, width: int) -> Bundle:
    torch.manual_seed(seed)
    spec = Preprocess(colour="GREY")
    return Bundle.capture(net(width), [torch.zeros(2, 1, 8, 8)], name=f"net{width}", preprocess=spec)


@pytest.fixture(scope="module")
def data() -> Splits:
    random = np.random.default_rng(5)
    x, y = random.integers(0, 90, (480, 8, 8), dtype=np.uint8), np.arange(480) % 4
    for image, label in zip(x, y):
        top, left = (0, 4)[label // 2], (0, 4)[label % 2]
        image[top : top + 4, left : left + 4] += 80
    return splits_of({"all": (x, y)})


@pytest.fixture(scope="module")
def teacher(data: Splits) -> Bundle:
    settings = {"epochs": 8, "batch-size": 32, "lr": 0.1, "augment": "none", "alpha": 0.0}
    context = Context(target=None, task=TASK, train=data.train, val=data.val)  # type: ignore[arg-type]
    return run_passes(bundle(0, 8), [make_pass("finetune", settings)], context)


def accuracy(model: Bundle, data: Splits) -> float:
    assert data.test is not None
    (x,), y = data.test.batch(range(len(data.test)))
    return float((model.run(torch.from_numpy(x))[0].argmax(1).numpy() == y).mean())


def test_the_distance_is_the_sum_of_norms() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 4, 4, generator=random)
    mean, variance = torch.randn(3, generator=random), torch.rand(3, generator=random)
    flat = x.permute(1, 0, 2, 3).reshape(3, -1).numpy().astype(np.float64)
    wanted = np.linalg.norm(flat.mean(1) - mean.numpy()) + np.linalg.norm(flat.var(1) - variance.numpy())
    assert float(distance([x], [(mean, variance)])) == pytest.approx(wanted, rel=1e-5)


def test_the_variation_of_a_step_is_its_height() -> None:
    image = torch.zeros(1, 1, 3, 3)
    image[..., 1:] = 2.0
    # right: 3 edges of 2; below: none; both diagonals: 2 edges of 2 each
    assert float(variation(image)) == pytest.approx(np.sqrt(12) + 2 * np.sqrt(8))


def test_images_have_the_statistics_that_batchnorm_remembers(teacher: Bundle) -> None:
    made = imagine(teacher, ImagineSettings(images=64, batch=64, steps=150), seed=3)
    (x,), target = made.batch(range(64))
    assert target is None
    assert x.shape == (64, 1, 8, 8)
    assert x.min() >= 0.0
    assert x.max() <= 1.0
    maker = _Maker(teacher, ImagineSettings())

    def apart(images: torch.Tensor) -> float:
        with torch.no_grad():
            return float(distance(maker.net(images)[1:], maker.wanted))

    noise = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert apart(torch.from_numpy(x)) < 0.35 * apart(noise)


def test_images_repeat_by_seed_and_are_kept(teacher: Bundle, tmp_path: Path) -> None:
    settings = ImagineSettings(images=12, batch=8, steps=5)
    first = imagine(teacher, settings, seed=1, work=tmp_path)
    (kept,) = tmp_path.glob("imagined-*.pt")
    parts = torch.load(kept, weights_only=True)["parts"]
    assert [len(p) for p in parts] == [8, 4]
    torch.save({"parts": parts[:1]}, kept)  # as a run leaves it that was stopped between the batches
    assert np.array_equal(imagine(teacher, settings, seed=1, work=tmp_path).x, first.x)
    assert np.array_equal(imagine(teacher, settings, seed=1).x, first.x)
    assert not np.array_equal(imagine(teacher, settings, seed=2).x, first.x)


def test_a_student_learns_without_data(teacher: Bundle, data: Splits) -> None:
    settings = {"epochs": 12, "batch-size": 32, "augment": "none", "imagine": {"images": 256, "steps": 100}}
    context = Context(target=None, task=TASK, teacher=teacher)  # type: ignore[arg-type]
    student = run_passes(bundle(1, 4), [make_pass("distill", settings)], context)
    assert accuracy(teacher, data) > 0.95
    assert accuracy(student, data) > 0.8
    assert student.history[-1].changes["imagined"] == 256


def test_a_network_without_batchnorm_is_refused() -> None:
    plain = Bundle.capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 4)), [torch.zeros(2, 1, 8, 8)], name="plain")
    context = Context(target=None, task=TASK, teacher=plain)  # type: ignore[arg-type]
    with pytest.raises(PacklightError, match="'plain' has no BatchNorm whose statistics images could be made from; give data instead"):
        run_passes(bundle(1, 4), [make_pass("distill", {"imagine": {"images": 8}})], context)
