"""Classification against closed forms and against torch and scipy."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from packlight.core.errors import DataError, InputError
from packlight.core.tensor import Signature, TensorSpec
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task

TASK = load_task("classification")
SIGNATURE = Signature((TensorSpec(name="x", shape=("batch", 1, 4, 4), layout="NCHW"),), (TensorSpec(name="y", shape=("batch", 7)),))


def test_score_against_counting() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(500, 7)).astype(np.float32)
    target = random.integers(0, 6, 500)  # class 6 never occurs
    metric = TASK.score([scores], target)
    assert metric.value == np.mean([int(s.argmax() == t) for s, t in zip(scores, target)])
    assert metric.more["top5"] == np.mean([t in np.argsort(-s)[:5] for s, t in zip(scores, target)])
    assert sum(map(sum, metric.more["confusion"])) == 500
    assert metric.more["per_class"][6] == {"recall": None, "n": 0}
    assert metric.more["per_class"][2]["recall"] == np.mean(scores[target == 2].argmax(1) == 2)
    assert np.mean(TASK.per_sample([scores], target)) == metric.value
    assert (TASK.answers([scores]) == scores.argmax(1)).all()  # type: ignore[union-attr]


def test_wilson_interval_in_closed_form() -> None:
    hits, n, z = 9173, 10000, 1.959963984540054
    scores = np.zeros((n, 7), np.float32)
    scores[:hits, 0] = 1
    scores[hits:, 1] = 1
    low, high = TASK.score([scores], np.zeros(n, np.int64)).ci95  # type: ignore[misc]
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_losses_against_their_formulas() -> None:
    torch.manual_seed(0)
    own, taught, target = torch.randn(5, 7), torch.randn(5, 7), torch.tensor([0, 1, 2, 3, 6])
    expected = -torch.log_softmax(own, 1)[torch.arange(5), target].mean()
    assert torch.allclose(TASK.loss([own], target), expected)
    p, q = torch.softmax(taught / 4, 1), torch.softmax(own / 4, 1)
    assert torch.allclose(TASK.soft_loss([own], [taught], 4.0), 16 * (p * (p / q).log()).sum(1).mean(), atol=1e-6)
    assert float(TASK.soft_loss([own], [own], 2.0)) == pytest.approx(0, abs=1e-6)


def test_fits_says_what_does_not_fit() -> None:
    x = np.zeros((40, 4, 4), np.uint8)
    good = splits_of({"all": (x, np.arange(40) % 7)}).test
    assert good is not None
    assert TASK.fits(SIGNATURE, good)
    for arrays, words in (
        ((x, np.arange(40) % 9), "out of range: the model has 7 classes"),
        ((np.zeros((40, 5, 5), np.uint8), np.arange(40) % 7), "wants 1x4x4 a sample but .* gives 1x5x5"),
        ((x, np.zeros(40, np.float32)), "integer labels"),
    ):
        part = splits_of({"all": arrays}).test
        assert part is not None
        verdict = TASK.fits(SIGNATURE, part)
        assert not verdict
        assert re.search(words, verdict.why)
    images = Signature(SIGNATURE.inputs, (TensorSpec(name="y", shape=("batch", 3, 8, 8)),))
    assert "needs scores (batch, classes)" in TASK.fits(images, good).why


def test_scores_that_are_not_finite_are_refused() -> None:
    scores = np.zeros((3, 7), np.float32)
    scores[1, 2] = np.nan
    with pytest.raises(DataError, match="sample 1 are not finite"):
        TASK.score([scores], np.zeros(3, np.int64))


def test_an_unknown_task_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"unknown task 'clasification' \(did you mean 'classification'\?\); known: classification"):
        load_task("clasification")
