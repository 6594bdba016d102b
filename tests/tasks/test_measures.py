"""PSNR, SSIM, edits, CTC and the Frechet distance against closed forms and slow ways of counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from packlight.core.errors import DataError
from packlight.tasks.measures.frechet import frechet_distance
from packlight.tasks.measures.image import luma, psnr, ssim
from packlight.tasks.measures.text import edits, greedy


def test_psnr_in_closed_form() -> None:
    truth = np.full((3, 16, 16), 0.25)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0)
    assert psnr(255 * truth + 25.5, 255 * truth, 255) == pytest.approx(20.0)
    assert psnr(truth, truth) == 100.0
    assert psnr(np.full_like(truth, np.nan), truth) == -math.inf


def test_ssim_against_its_definition_window_by_window() -> None:
    random = np.random.default_rng(0)
    a = random.random((1, 13, 14))
    b = np.clip(a + random.normal(0, 0.1, a.shape), 0, 1)
    g = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    w = np.outer(g, g) / np.outer(g, g).sum()
    found = []
    for y, x in itertools.product(range(3), range(4)):
        p, q = a[0, y : y + 11, x : x + 11], b[0, y : y + 11, x : x + 11]
        mp, mq = (w * p).sum(), (w * q).sum()
        vp, vq, both = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum(), (w * (p - mp) * (q - mq)).sum()
        found.append((2 * mp * mq + 1e-4) * (2 * both + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    assert ssim(a, b) == pytest.approx(float(np.mean(found)), abs=1e-12)
    assert ssim(a, a) == pytest.approx(1.0)
    assert ssim(a[:, :10], b[:, :10]) is None


def test_luma_of_white_and_black_and_green() -> None:
    image = np.zeros((3, 1, 3))
    image[:, 0, 0] = 1
    image[1, 0, 2] = 1
    assert (luma(image)[0, 0] * 255).tolist() == pytest.approx([235.0, 16.0, 16 + 128.553])


def test_edits_against_trying_all() -> None:
    assert [edits(*p) for p in (("kitten", "sitting"), ("", "abc"), ("abc", "abc"), ("flaw", "lawn"))] == [3, 3, 0, 2]


def test_the_best_path_drops_repeats_then_blanks() -> None:
    assert greedy([0, 1, 1, 0, 1, 2, 2, 0], "ab") == "aab"
    assert greedy([2, 0, 0, 2, 0, 1, 2], "ab", blank=2) == "aab"


def test_the_frechet_distance_of_known_normals() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(4000, 3))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T  # mean 0, covariance exactly 1
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + [3, 0, 4]) == pytest.approx(25, abs=1e-9)
    assert frechet_distance(x, x * [2, 1, 3]) == pytest.approx(1 + 4, abs=1e-9)  # (s - 1)^2 of each axis
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0].numpy()
    wide, tall = (x * [2, 1, 3]) @ turn, x * [1, 5, 1]
    s1, s2 = np.cov(wide, rowvar=False), np.cov(tall, rowvar=False)
    cross = np.sqrt(np.linalg.eigvals(s1 @ s2).real).sum()
    assert frechet_distance(wide, tall) == pytest.approx(np.trace(s1) + np.trace(s2) - 2 * cross, rel=1e-9)
    with pytest.raises(DataError, match="two rows or more"):
        frechet_distance(x[:1], x)
