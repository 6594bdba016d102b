"""Restoration, recognition, generation and segmentation against closed forms and torch; what does not fit is told."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from packlight.core.errors import DataError, InputError
from packlight.core.tensor import Signature, TensorSpec
from packlight.tasks.data.load import load_data, splits_of
from packlight.tasks.load import load_task
from packlight.tasks.samples import ragged, with_targets
from packlight.tasks.task import tasks

RANDOM = np.random.default_rng(0)


def signature(outputs: tuple[int | str, ...], inputs: tuple[int | str, ...] = ("batch", 1, 8, 8)) -> Signature:
    return Signature((TensorSpec(name="x", shape=inputs, layout="NCHW"),), (TensorSpec(name="y", shape=outputs),))


@pytest.mark.parametrize("name", [n for n, _ in tasks])
def test_every_task_is_called_by_its_name_again(name: str) -> None:
    task = load_task(name, "abc")
    assert load_task(task.name, "abc").name == name
    assert task.truth in ("data", "model")
    assert task.higher_is_better is True


def test_settings_are_in_the_name_and_checked() -> None:
    task = load_task("restoration:channel=y,shave=4,bits=0")
    assert task.name == "restoration:channel=y,shave=4,bits=0"
    for text, words in (
        ("restoration:chanel=y", "its settings are: channel, shave, bits"),
        ("restoration:shave", "is not SETTING=VALUE"),
        ("restoration:shave=-1", "must be 0 or more"),
        ("generation:low=1,high=0", "low=1 must be below high=0"),
    ):
        with pytest.raises(InputError, match=words):
            load_task(text)


def test_restoration_scores_what_an_app_shows() -> None:
    truth = np.full((2, 3, 16, 16), 0.5, np.float32)
    out = truth.copy()
    out[0] += 0.1
    out[1] += 0.2
    plain, shown = load_task("restoration:bits=0"), load_task("restoration")
    assert plain.per_sample([out], truth) == pytest.approx([20.0, -20 * np.log10(0.2)], abs=1e-5)
    levels = np.rint(np.asarray([0.6, 0.7]) * 255) / 255 - 0.5
    assert shown.per_sample([out], truth) == pytest.approx(-20 * np.log10(levels), abs=1e-5)
    metric = plain.score([out], truth)
    assert (metric.name, metric.unit, metric.n) == ("psnr", "dB", 2)
    assert metric.value == pytest.approx(plain.per_sample([out], truth).mean())
    assert 0 < metric.more["ssim"] < 1
    out[0, :, 0] = 9.0  # the edge, and beyond what can be shown
    assert load_task("restoration:shave=4,bits=0").per_sample([out], truth)[0] == pytest.approx(20.0, abs=1e-5)
    tanh = load_task("restoration:low=-1,bits=0")
    assert tanh.per_sample([2 * truth - 1], truth).tolist() == [100.0, 100.0]
    assert float(tanh.loss([torch.from_numpy(2 * truth - 1)], torch.from_numpy(truth))) == pytest.approx(1e-3)


def test_images_of_different_sizes_are_scored_one_by_one() -> None:
    truths = ragged([RANDOM.random((1, 16, 12)), RANDOM.random((1, 20, 24))])
    outputs = ragged([t + 0.1 for t in truths])
    assert load_task("restoration:bits=0").per_sample([outputs], truths) == pytest.approx([20, 20])
    with pytest.raises(DataError, match=r"output 0 is \[1, 16, 11\], the image it should be is \[1, 16, 12\]"):
        load_task("restoration").score([ragged([t[:, :, :-1] for t in truths])], truths)


def test_restoration_losses_against_their_formulas() -> None:
    own, truth = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    d = own - truth
    assert torch.allclose(load_task("restoration:loss=l1").loss([own], truth), d.abs().mean())
    assert torch.allclose(load_task("restoration:loss=mse").soft_loss([own], [truth], 4.0), (d * d).mean())
    assert torch.allclose(load_task("restoration").loss([own], truth), (d * d + 1e-6).sqrt().mean())


def test_restoration_says_what_does_not_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=RANDOM.integers(0, 256, (12, 16, 16), dtype=np.uint8))
    task, data = load_task("restoration"), load_data(str(tmp_path / "x.npz"), degrade="bicubic:2").test
    assert data is not None
    assert task.fits(signature(("batch", 1, 16, 16)), data)
    for outputs, words in (
        ((("batch", 1, 32, 32)), "images of 32x32"),
        (("batch", 3, 16, 16), "3 channels"),
        (("batch", 7), "needs an image"),
    ):
        assert re.search(words, task.fits(signature(outputs), data).why)
    assert "wants 1x9x9" in task.fits(signature(("batch", 1, 16, 16), ("batch", 1, 9, 9)), data).why
    labels = splits_of({"all": (np.zeros((40, 8, 8), np.uint8), np.arange(40))}).test
    assert labels is not None
    assert "--degrade" in task.fits(signature(("batch", 1, 8, 8)), labels).why


def scores_for(texts: list[str], alphabet: str, steps: int = 12) -> np.ndarray:
    """Scores whose best path spells the texts, a blank between characters."""
    out = np.zeros((len(texts), steps, len(alphabet) + 1), np.float32)
    for row, text in enumerate(texts):
        path = [k for c in text for k in (alphabet.index(c) + 1, 0)]
        for step in range(steps):
            out[row, step, path[step] if step < len(path) else 0] = 5
    return out


def test_words_are_counted_by_letters_and_digits() -> None:
    alphabet = "abcABC1-"
    task = load_task("recognition", alphabet)
    truth = np.asarray(["Ab-c", "cab", "1b", "ccc"])
    outputs = [scores_for(["abC", "cab", "1-A", "cc"], alphabet)]
    metric = task.score(outputs, truth)
    assert metric.value == 0.5
    assert task.answers(outputs).tolist() == ["abc", "cab", "1a", "cc"]  # type: ignore[union-attr]
    assert task.truths(truth).tolist() == ["abc", "cab", "1b", "ccc"]  # type: ignore[union-attr]
    assert task.figures(outputs, truth)["edits"].tolist() == [0, 0, -1, -1]
    assert metric.more["edits_per_100"] == pytest.approx(100 * 2 / 11)
    assert metric.more["by_length"] == [{"length": 2, "n": 1, "right": 0, "edits": 1}, {"length": 3, "n": 3, "right": 2, "edits": 1}]
    exact = load_task("recognition:case=keep,characters=all", alphabet)
    assert exact.score(outputs, truth).value == 0.25
    assert exact.score(outputs, exact.numbers(truth)).value == 0.25


def test_ctc_loss_is_least_for_the_text_that_is_spelt() -> None:
    alphabet = "abc"
    task = load_task("recognition", alphabet)
    scores = torch.from_numpy(scores_for(["abc", "ca"], alphabet)) * 10
    right, wrong = (torch.from_numpy(task.numbers(np.asarray(t))) for t in (["abc", "CA"], ["abc", "bb"]))
    assert right.tolist() == [[1, 2, 3], [3, 1, -1]]
    assert float(task.loss([scores], right)) < 1e-3 < 1 < float(task.loss([scores], wrong))
    assert float(task.soft_loss([scores], [scores], 2.0)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(DataError, match="which the alphabet lacks"):
        task.numbers(np.asarray(["axe"]))


def test_recognition_says_what_does_not_fit() -> None:
    images = np.zeros((40, 8, 8), np.uint8)
    texts = splits_of({"all": (images, np.asarray(["ab"] * 40))}).test
    labels = splits_of({"all": (images, np.arange(40))}).test
    assert texts is not None
    assert labels is not None
    task, three = load_task("recognition", "abc"), signature((9, "batch", 4))
    assert task.fits(three, texts)
    assert "give them with --alphabet" in load_task("recognition").fits(three, texts).why
    assert "the alphabet has 2 characters" in load_task("recognition", "ab").fits(three, texts).why
    assert "needs text" in task.fits(three, labels).why
    assert "a row, a step and a class axis" in task.fits(signature(("batch", 7)), texts).why


def test_generated_images_are_held_against_the_model_as_it_came() -> None:
    task = load_task("generation:bits=0")
    data = load_data("latents:4x1x1,n=6,seed=3").test
    assert data is not None
    assert np.array_equal(data.batch(range(6))[0][0], torch.randn(6, 4, 1, 1, generator=torch.Generator().manual_seed(3)).numpy())
    made = RANDOM.uniform(-0.5, 0.5, (6, 1, 16, 16)).astype(np.float32)
    assert task.truth == "model"
    assert task.per_sample([made], made).tolist() == [100.0] * 6
    assert task.per_sample([made + 0.2], made) == pytest.approx([20.0] * 6, abs=1e-4)  # 0.2 of a range of 2
    view = with_targets(data, made)
    assert np.array_equal(view.batch([4])[1], made[4:5])
    assert task.fits(signature(("batch", 1, 16, 16), ("batch", 4, 1, 1)), data)
    assert "latents of 9x1x1" in task.fits(signature(("batch", 1, 16, 16), ("batch", 9, 1, 1)), data).why


def test_segmentation_against_counting() -> None:
    task = load_task("segmentation")
    truth = np.asarray([[[0, 0, 1, 255]], [[1, 1, 2, 2]]])
    answer = np.asarray([[[0, 1, 1, 0]], [[1, 1, 2, 0]]])
    outputs = [np.eye(4, dtype=np.float32)[answer].transpose(0, 3, 1, 2)]
    metric = task.score(outputs, truth)
    iou = [1 / 3, 3 / 4, 1 / 2]  # class 3 does not occur
    assert metric.value == pytest.approx(np.mean(iou))
    assert metric.more["pixel_accuracy"] == pytest.approx(5 / 7)
    assert [c["iou"] for c in metric.more["per_class_iou"]] == pytest.approx([*iou, None])
    assert task.per_sample(outputs, truth) == pytest.approx([np.mean([1 / 2, 1 / 2]), np.mean([0, 1, 1 / 2])])
    scores = torch.randn(2, 4, 1, 4)
    expected = torch.nn.functional.cross_entropy(scores, torch.from_numpy(truth), ignore_index=255)
    assert torch.allclose(task.loss([scores], torch.from_numpy(truth)), expected)
    perfect = 1e3 * torch.from_numpy(np.eye(3, dtype=np.float32)[np.where(truth == 255, 0, truth)]).permute(0, 3, 1, 2)
    assert float(load_task("segmentation:loss=dice").loss([perfect], torch.from_numpy(truth))) == pytest.approx(0, abs=1e-6)
