"""The perceptual distance: its formula in closed form, a network against its own hooks, and what it makes of worse and worse images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from packlight.core.errors import DataError, InputError, ModelError
from packlight.tasks.load import load_task
from packlight.tasks.measures.perceptual import perceptual_distance
from packlight.tasks.perceptual import coloured, load_perceptual

SHARED = Path(__file__).resolve().parents[3] / "shared"
real = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="the trained networks of ../shared are not there")

NET = """
from torch import nn

def grey():
    maps = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU()]
    return nn.Sequential(*maps, nn.Flatten(), nn.Linear(96, 3))
"""


def test_the_distance_in_closed_form() -> None:
    def turned(angle: float, length: float) -> np.ndarray:
        return np.tile(np.array([math.cos(angle), math.sin(angle)]).reshape(1, 2, 1, 1) * length, (1, 1, 3, 5))

    for angle in (0.0, 0.3, 1.0, math.pi / 2):
        found = perceptual_distance([turned(0, 2)], [turned(angle, 7)])
        assert found == pytest.approx([2 - 2 * math.cos(angle)])  # lengths don't count
    layers = ([turned(0, 1), turned(0, 1)[..., :2]], [turned(0.3, 1), turned(1.0, 1)[..., :2]])
    assert perceptual_distance(*layers) == pytest.approx([4 - 2 * math.cos(0.3) - 2 * math.cos(1.0)])
    half = turned(0, 1)
    half[..., :1, :] = turned(math.pi / 2, 1)[..., :1, :]
    assert perceptual_distance([turned(0, 1)], [half]) == pytest.approx([2 / 3])  # one row of three
    assert perceptual_distance([0 * half], [0 * half]) == pytest.approx([0])
    assert perceptual_distance([half], [0 * half]) == pytest.approx([1])
    with pytest.raises(DataError, match="the same layers"):
        perceptual_distance([half], [half[:, :1]])


@real
def test_features_are_those_that_the_modules_hooks_see() -> None:
    import sys

    sys.path.insert(0, str(SHARED / "models"))
    try:
        import cifar_resnet
    finally:
        sys.path.pop(0)
    from safetensors.torch import load_file

    weights = SHARED / "models" / "cifar10-resnet20.safetensors"
    module = cifar_resnet.resnet20().eval()
    module.load_state_dict(load_file(weights), strict=False)
    seen: list[torch.Tensor] = []
    for layer in (module.layer1, module.layer2, module.layer3):
        layer.register_forward_hook(lambda *a: seen.append(a[2]))
    look = load_perceptual(
        f"{SHARED / 'models' / 'cifar_resnet.py'}:resnet20", weights=weights, layers=["auto"], mean=cifar_resnet.MEAN, std=cifar_resnet.STD
    )
    x = np.random.default_rng(0).random((2, 3, 40, 52)).astype(np.float32)  # not the size it was traced with
    with torch.no_grad():
        mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (cifar_resnet.MEAN, cifar_resnet.STD))
        module((torch.from_numpy(x) - mean) / std)
    found = look.features(x)
    assert len(found) == len(seen) == 3
    for a, b in zip(found, seen, strict=True):
        assert np.allclose(a, b.numpy(), atol=1e-4)


@real
@pytest.mark.parametrize("harm", ["blur", "noise"])
def test_worse_images_are_further_away(harm: str) -> None:
    models = SHARED / "models"
    look = load_perceptual(
        f"{models / 'cifar_resnet.py'}:resnet20",
        weights=models / "cifar10-resnet20.safetensors",
        layers=["layer1", "layer2", "layer3"],
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    files = sorted((SHARED / "data" / "set5").glob("*.png"))[:2]
    truths = [np.asarray(Image.open(f).convert("RGB"), np.float64)[64:128, 64:128].transpose(2, 0, 1) / 255 for f in files]
    grain = [np.random.default_rng(i).normal(size=t.shape) for i, t in enumerate(truths)]
    rows = []
    for level in (0.0, 0.5, 1.0, 2.0):
        if harm == "blur":
            worse = [gaussian_filter(t, (0, level, level)) if level else t for t in truths]
        else:
            worse = [np.clip(t + 0.03 * level * g, 0, 1) for t, g in zip(truths, grain, strict=True)]
        rows.append(look.distances(worse, truths))
    found = np.stack(rows)
    assert np.allclose(found[0], 0, atol=1e-9)
    assert (np.diff(found, axis=0) > 0).all(), found


def test_a_judge_of_pairs_is_told_beside_psnr(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    file = tmp_path / "judge.toml"
    file.write_text('model = "net.py:grey"\nlayers = ["1", "4"]\nchannels = 1\nsize = [12, 12]\n')
    torch.manual_seed(0)
    plain, task = load_task("restoration:shave=1"), load_task("restoration:shave=1", judge=file)
    random = np.random.default_rng(0)
    truth = random.random((3, 3, 14, 14)).astype(np.float32)
    outputs = np.clip(truth + random.normal(0, [[[[0.0]]], [[[0.05]]], [[[0.3]]]], truth.shape), 0, 1).astype(np.float32)
    figures = task.figures([outputs], truth)
    assert next(iter(figures)) == "psnr"
    assert np.array_equal(figures["psnr"], plain.figures([outputs], truth)["psnr"])
    first, second, third = figures["perceptual"]
    assert abs(first) < 1e-4  # 8 bits
    assert first > second > third
    metric = task.score([outputs], truth)
    assert metric.more["perceptual"] == pytest.approx(-figures["perceptual"].mean())
    assert "net.py:grey" in metric.more["perceptual_of"]
    assert "perceptual" not in plain.score([outputs], truth).more
    made = load_task("generation:low=0", judge=file)
    assert made.score([outputs], truth).more["perceptual"] > 0  # whole images here, no edge shaved
    assert "frechet" not in made.score([outputs], truth).more


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('model = "net.py:grey"', InputError, "asks for nothing"),
        ('model = "net.py:grey"\nchannels = 1\nsize = [12, 12]\nlayers = ["9"]', ModelError, "unknown judge layer '9'"),
        ('model = "net.py:grey"\nchannels = 1\nsize = [12, 12]\nlayers = ["6"]', ModelError, "compares feature maps"),
        ('model = "net.py:grey"\nchannels = 1\nsize = [12, 12]\nlayers = ["1"]\nmean = [0.5, 0.5]', ModelError, "reads 1 channels"),
    ],
)
def test_a_judge_that_cannot_look_is_refused(text: str, error: type[InputError], words: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "judge.toml").write_text(text)
    with pytest.raises(error, match=words):
        load_task("restoration", judge=tmp_path / "judge.toml")


def test_channels_are_made_to_fit() -> None:
    grey = torch.rand(2, 1, 4, 4)
    assert torch.equal(coloured(grey, 3)[:, 2:], grey)
    white = coloured(torch.ones(1, 3, 2, 2), 1)
    assert torch.allclose(white, torch.ones(1, 1, 2, 2))
    with pytest.raises(DataError, match="3 channels, these have 4"):
        coloured(torch.rand(1, 4, 2, 2), 3)
