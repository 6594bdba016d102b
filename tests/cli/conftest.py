"""A small real model with weights and data on disk, and a way to call the program in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)) + y)
        return self.head(y.mean((2, 3)))


class Strange(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return torch.special.bessel_j0(self.conv(x)).mean((2, 3))


def net(width=8):
    return Net(width)


def strange():
    return Strange()


def number():
    return 7


def broken():
    raise RuntimeError("the factory is broken")
"""


class Place(NamedTuple):
    """Files for the program: a model source, its weights, and data."""

    folder: Path
    model: str
    weights: Path
    data: Path


class Done(NamedTuple):
    """What a call ended with."""

    code: int
    out: str
    err: str


def colours(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy 8x8 images of four colours: uint8 (N, 8, 8, 3) and labels."""
    rng = np.random.default_rng(seed)
    base = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [190, 190, 60]], np.float32)
    y = np.arange(count) % 4
    x = base[y][:, None, None, :] + rng.normal(0, 45, (count, 8, 8, 3))
    return np.clip(x, 0, 255).astype(np.uint8), y.astype(np.int64)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("program")
    (folder / "model.py").write_text(MODEL)
    space: dict[str, Callable[..., torch.nn.Module]] = {}
    exec(MODEL, space)
    torch.manual_seed(0)
    net = space["net"]()
    x, y = colours(480, 0)
    images = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(y)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    net.train()
    for step in range(40):
        rows = slice(step % 4 * 120, step % 4 * 120 + 120)
        loss = torch.nn.functional.cross_entropy(net(images[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_file(net.state_dict(), folder / "net.safetensors")
    test = colours(200, 1)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=test[0], y_test=test[1])
    return Place(folder, f"{folder / 'model.py'}:net", folder / "net.safetensors", folder / "data.npz")


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the program in this process."""

    def run(*arguments: object) -> Done:
        from packlight.cli.main import main

        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        said = capfd.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run
