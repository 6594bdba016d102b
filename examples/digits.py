"""A user's own file: a model and its data, each made by a function that the command line calls by name.

``packlight quantize examples/digits.py:model --calib examples/digits.py:images ...``
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def model(width: int = 16) -> nn.Module:
    """A small CNN for 8x8 grey images; its last layer is fitted to the digits in closed form, so that it classifies."""
    torch.manual_seed(0)
    features = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
    )
    x, y = images("train")
    with torch.no_grad():
        hidden = features(torch.from_numpy(x))
    hidden = torch.cat([hidden, torch.ones(len(hidden), 1)], 1).double()
    wanted = nn.functional.one_hot(torch.from_numpy(y), 10).double()
    fitted = torch.linalg.solve(hidden.T @ hidden + 1e-2 * torch.eye(hidden.shape[1]), hidden.T @ wanted).float()
    head = nn.Linear(hidden.shape[1] - 1, 10)
    head.weight.data, head.bias.data = fitted[:-1].T.contiguous(), fitted[-1]
    return nn.Sequential(features, head)


def images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The digits of scikit-learn as the model reads them: float32 (N, 1, 8, 8) in [0, 1] and labels; a fifth is kept for "test"."""
    digits = load_digits()
    x, y = (digits.images / 16).astype(np.float32)[:, None], digits.target.astype(np.int64)
    last = np.arange(len(x)) % 5 == 4
    keep = last if split == "test" else ~last
    return x[keep], y[keep]
