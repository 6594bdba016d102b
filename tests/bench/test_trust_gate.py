"""The gate: finds one class that died under a healthy average, doesn't cry wolf, and refuses to certify on too little."""

import numpy as np
import pytest
from numpy.typing import NDArray

from packlight.bench.trust import slices
from packlight.bench.trust.calibration import calibration, confidence, ece, mean_interval, probabilities
from packlight.bench.trust.certify import certify
from packlight.bench.trust.gate import trust_fidelity, trust_labels, trust_text, trust_values
from packlight.bench.trust.text import text
from packlight.bench.trust.values import mean_bca, mean_loss_p, values
from packlight.core.errors import DataError, RecipeError
from packlight.core.trust import TrustLimits
from packlight.tasks.measures.text import edits

CLASSES = 10


def made(rng: np.random.Generator, n: int, accuracy: float = 0.92) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(truth, answers) of a model that is right with ``accuracy`` and else answers a neighbour."""
    truth = np.arange(n) % CLASSES
    wrong = rng.random(n) > accuracy
    return truth, np.where(wrong, (truth + rng.integers(1, CLASSES, n)) % CLASSES, truth)


def shaken(rng: np.random.Generator, truth: NDArray[np.int64], answers: NDArray[np.int64], rate: float = 0.012) -> NDArray[np.int64]:
    """What a harmless rounding does: a few answers near a border flip, as often to the truth as away from it."""
    right = answers == truth
    leave = right & (rng.random(len(truth)) < rate / 2)
    come = ~right & (rng.random(len(truth)) < rate / 2 * right.mean() / (~right).mean())
    out = np.where(come, truth, answers)
    return np.where(leave, (truth + rng.integers(1, CLASSES, len(truth))) % CLASSES, out)


def test_planted_damage_is_found_in_100_of_100_and_noise_passes() -> None:
    """One class loses 4.5 points of recall on top of the noise, so the average loses 0.45: the limit of the whole (1.0) holds."""
    found = alarms = seen_by_average = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth, before = made(rng, 10_000)
        healthy = shaken(rng, truth, before)
        alarms += not trust_labels(before, healthy, truth).ok
        hurt = healthy.copy()
        own = np.flatnonzero((truth == seed % CLASSES) & (healthy == truth))
        hurt[rng.choice(own, 45, replace=False)] = (seed + 3) % CLASSES
        result = trust_labels(before, hurt, truth)
        seen_by_average += not result.checks[0].ok
        found += any(c.where == f"class '{seed % CLASSES}'" for c in result.failed)
    assert found == 100
    assert alarms <= 5
    assert seen_by_average == 0


def test_the_error_rate_holds_at_the_limit() -> None:
    """The hardest harmless file: every class loses exactly what is tolerated. At most 5 % are refused; 11 of 100 would be rare."""
    refused = 0
    limits = TrustLimits(drop=None, class_errors=None, ece_rise=None, class_drop=2.0)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth, before = made(rng, 5_000)
        drawn = rng.random(5_000)
        after = np.where((before == truth) & (drawn < 0.02 / 0.92), (truth + 1) % CLASSES, before)
        refused += not trust_labels(before, after, truth, limits=limits).ok
    assert refused <= 10


def test_a_class_that_swallows_others_is_found() -> None:
    """Its recall rises and every other class loses a little: only the errors that involve it tell."""
    rng = np.random.default_rng(1)
    truth, before = made(rng, 10_000)
    after = before.copy()
    for k in range(1, CLASSES):
        own = np.flatnonzero((truth == k) & (before == k))
        after[rng.choice(own, 5, replace=False)] = 0
    result = trust_labels(before, after, truth)
    assert [(c.name, c.where) for c in result.failed] == [("class-errors", "class '0'")]
    assert result.failed[0].value == pytest.approx(4.5)
    assert "class-errors: class '0', 4.50 points worse" in result.why
    assert not result.certified


def test_few_samples_are_not_certified_and_the_need_is_told() -> None:
    truth, before = made(np.random.default_rng(0), 400)
    result = trust_labels(before, before, truth)
    assert result.ok
    assert not result.certified
    assert result.why == (
        "not certified: 400 samples; 1,000 are needed; "
        "'class 0' has 40; 50 are needed (and 9 more are short): about 500 samples at this mix"
    )
    assert result.enough.needed["samples"] == 1000
    assert result.enough.detectable_points is not None
    assert result.enough.detectable_points > 10


def test_certify_says_how_many() -> None:
    limits = TrustLimits()
    assert certify(1000, {"a": 50, "b": 950}, limits).ok
    short = certify(2000, {"class a": 10, "class b": 1990}, limits)
    assert short.needed == {"samples": 10_000, "class a": 50}
    assert short.why == "'class a' has 10; 50 are needed: about 10,000 samples at this mix"


def test_groups_and_the_worst_slice() -> None:
    """Damage in one class of one group: the group fails, and the crossing is the worst slice."""
    rng = np.random.default_rng(2)
    truth, before = made(rng, 8_000)
    group = np.where(np.arange(8_000) // 10 % 8 == 0, "night", "day")
    after = before.copy()
    hit = np.flatnonzero((truth == 4) & (group == "night") & (before == truth))[:60]
    after[hit] = 5
    result = trust_labels(before, after, truth, group=group, names=[f"n{k}" for k in range(CLASSES)])
    assert ("group-drop", "group 'night'") in {(c.name, c.where) for c in result.failed}
    assert [g.name for g in result.groups] == ["day", "night"]
    assert result.worst_slice is not None
    assert (result.worst_slice.kind, result.worst_slice.name) == ("class in group", "n4 in night")
    assert result.worst_slice.lost == 60


def test_per_class_figures_by_hand() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    before = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    after = np.array([0, 1, 0, 0, 1, 0, 0, 0])
    zero, one = slices.classes(before, after, truth, ["cat", "dog"], margin=0.01, alpha=0.05, checks=6)
    assert (zero.recall.name, zero.recall.before, zero.recall.after, zero.recall.lost, zero.recall.gained) == ("cat", 0.75, 0.75, 1, 1)
    assert (one.recall.before, one.recall.after, one.recall.lost, one.recall.gained) == (0.75, 0.25, 2, 0)
    assert (zero.precision_before, zero.precision_after) == (0.75, 0.5)
    assert (zero.new_errors, zero.mended_errors) == (3, 1)
    assert (one.new_errors, one.mended_errors) == (3, 1)  # two classes share their errors
    assert one.recall.p_exact == pytest.approx(0.5)


def test_ece_closed_forms() -> None:
    n = 1000
    right = np.arange(n) < 600
    assert ece(np.full(n, 0.8), right) == pytest.approx(0.2)
    assert ece(np.full(n, 0.6), right) == pytest.approx(0.0)
    both = np.concatenate([np.full(n, 0.8), np.full(n, 0.5)])  # |0.6 - 0.8| and |0.6 - 0.5|, half each
    assert ece(both, np.concatenate([right, right])) == pytest.approx(0.15)
    assert ece(np.array([1.0, 1.0]), np.array([True, True])) == 0.0


def test_calibration_is_paired_and_finds_overconfidence() -> None:
    """Labels drawn from the model's own probabilities: well calibrated, so that sharper ones have a known surplus of confidence."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (4000, 5))
    p = probabilities(scores)
    truth = np.array([rng.choice(5, p=row) for row in p])
    sharp = probabilities(scores * 1.5)
    same, worse = calibration(p, p, truth), calibration(p, sharp, truth)
    assert same.rise == 0
    assert same.rise_ci95 == (0, 0)
    assert same.before < 0.03
    surplus = float(sharp.max(1).mean() - (sharp.argmax(1) == truth).mean())
    assert worse.after == pytest.approx(surplus, abs=0.02)
    assert worse.rise_ci95[0] < worse.rise < worse.rise_ci95[1]
    result = trust_labels(p.argmax(1), sharp.argmax(1), truth, scores=(scores, scores * 1.5))
    assert [c.name for c in result.failed] == ["ece-rise"]
    assert result.confidence is not None
    assert result.confidence.answer_after > result.confidence.answer_before


def test_probabilities_pass_and_log_probabilities_come_back() -> None:
    p = np.array([[0.2, 0.8], [0.5, 0.5]])
    assert probabilities(p) is not None
    np.testing.assert_allclose(probabilities(p), p)
    np.testing.assert_allclose(probabilities(np.log(p)), p)
    np.testing.assert_allclose(probabilities(np.array([[1000.0, 1000.0]])), [[0.5, 0.5]])


def test_confidence_shift_by_hand() -> None:
    before, after = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.3, 0.7], [0.3, 0.7]])
    found = confidence(before, after, np.array([0, 1]), ["a", "b"])
    assert found.truth_change == pytest.approx(-0.35)
    assert found.collapsed == 0.5
    assert (found.worst_class, found.worst_class_change) == ("a", pytest.approx(-0.6))


def test_mean_interval_is_students() -> None:
    low, high = mean_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (low, high) == (pytest.approx(3 - 2.7764 * np.sqrt(2.5 / 5), abs=1e-3), pytest.approx(3 + 2.7764 * np.sqrt(2.5 / 5), abs=1e-3))


def test_worst_flips_are_those_that_lost_most() -> None:
    p_before = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    p_after = np.array([[0.4, 0.6], [0.1, 0.9], [0.1, 0.9], [0.45, 0.55]])
    truth = np.array([0, 0, 1, 0])
    result = trust_labels(p_before.argmax(1), p_after.argmax(1), truth, scores=(p_before, p_after), names=["cat", "dog"])
    assert [(w.index, w.truth, w.after) for w in result.worst] == [(0, "cat", "dog"), (1, "cat", "dog"), (3, "cat", "dog")]
    assert result.worst[0].loss == pytest.approx(0.5)


def test_values_mean_loss_and_its_limit() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(30, 3, 1200)
    after = before - rng.normal(0.8, 0.5, 1200)
    result = trust_values(before, after, metric="psnr", unit="dB")
    check, ruined = result.checks
    assert (check.name, check.ok) == ("value-drop", False)
    assert check.value == pytest.approx(0.8, abs=0.05)
    assert (ruined.name, ruined.ok) == ("bad-share", True)
    assert "psnr" in result.why
    assert "dB" in result.why
    assert result.worst[0].index == int(np.argmax(before - after))
    assert trust_values(before, before - 0.01 * rng.random(1200), metric="psnr", unit="dB").certified
    shares = trust_values(np.full(1000, 0.8), np.full(1000, 0.75), metric="iou", unit="%")
    assert shares.checks[0].value == pytest.approx(5.0)
    assert not shares.ok


def test_a_few_ruined_images_are_found_behind_a_good_mean() -> None:
    rng = np.random.default_rng(4)
    before = rng.normal(30, 3, 500)
    after = before + 0.2
    after[:15] -= 9
    group = np.where(np.arange(500) < 60, "night", "day")
    ssim = (np.full(500, 0.9), np.full(500, 0.86))
    result = trust_values(before, after, metric="psnr", unit="dB", others={"ssim": ssim}, group=group)
    checks = {c.name: c for c in result.checks if c.name != "group-drop"}
    assert checks["value-drop"].ok
    assert not checks["bad-share"].ok
    assert checks["bad-share"].value == pytest.approx(3.0)
    assert not checks["ssim-drop"].ok
    assert [v.name for v in result.group_values] == ["day", "night"]
    assert result.worst_group is not None
    assert result.worst_group.name == "night"
    assert any("group 'night'" in str(c) for c in result.failed)
    one = before.copy()
    one[0] -= 20
    assert trust_values(before, one, metric="psnr", unit="dB").ok  # one of five hundred is no proof of more than one in a hundred


def test_few_images_are_not_certified() -> None:
    before = np.random.default_rng(5).normal(30, 3, 40)
    result = trust_values(before, before - 0.01, metric="psnr", unit="dB")
    assert result.ok
    assert not result.certified
    assert result.why == "not certified: 40 samples; 100 are needed"
    assert trust_values(np.tile(before, 3), np.tile(before, 3), metric="psnr", unit="dB").certified


def test_generated_images_are_judged_by_their_fidelity() -> None:
    rng = np.random.default_rng(6)
    good, bad = rng.normal(32, 3, 300), rng.normal(23, 3, 300)
    assert trust_fidelity(good, metric="psnr", unit="dB").certified
    result = trust_fidelity(bad, metric="psnr", unit="dB", others={"ssim": np.full(300, 0.8)})
    assert not result.ok
    assert result.failed[0].name == "fidelity"
    assert result.failed[0].value == pytest.approx(2.0, abs=0.5)
    assert result.worst[0].index == int(np.argmin(bad))
    assert trust_fidelity(bad, metric="psnr", unit="dB", limits=TrustLimits(fidelity=20)).ok


def test_values_statistics() -> None:
    before, after = np.array([3.0, 5.0, 4.0, np.inf]), np.array([2.0, 5.5, 4.0, np.inf])
    found = values(before[:3], after[:3], "psnr", "dB")
    assert found.loss == pytest.approx(0.5 / 3)
    assert found.quantiles["1"] == 1.0
    assert trust_values(before, after, metric="psnr").values.loss == pytest.approx(0.125)  # type: ignore[union-attr]
    assert mean_bca(np.ones(5)) == (1.0, 1.0)
    assert mean_loss_p(np.ones(5), 0.5) == 0.0
    assert mean_loss_p(np.zeros(5), 0.5) == 1.0


def test_edits_by_length() -> None:
    assert edits("kitten", "sitting") == 3  # the usual example
    assert edits("", "abc") == 3
    assert edits("abc", "abc") == 0
    found = text(np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 2.0]), ["ab", "ab", "abcd"])
    assert found.before == pytest.approx(100 / 8)
    assert found.after == pytest.approx(400 / 8)
    assert [(r.length, r.n, r.before, r.after) for r in found.by_length] == [(2, 2, 25.0, 50.0), (4, 1, 0.0, 50.0)]


def test_text_gate() -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdef"), rng.integers(3, 9))) for _ in range(1500)]
    hurt = [w[:-1] if len(w) > 6 else w for w in words]
    result = trust_text(words, hurt, words)
    assert {c.name for c in result.failed} == {"drop", "edit-rise"}
    assert result.text is not None
    assert [r.after > 0 for r in result.text.by_length] == [r.length > 6 for r in result.text.by_length]
    assert trust_text(words, words, words).certified


def test_limits_are_checked_and_can_be_left_out() -> None:
    with pytest.raises(RecipeError, match="class-drop is -1"):
        TrustLimits(class_drop=-1.0)
    with pytest.raises(RecipeError, match="alpha"):
        TrustLimits(alpha=0.9)
    truth, before = made(np.random.default_rng(0), 2000)
    off = TrustLimits(drop=None, class_drop=None, class_errors=None, group_drop=None, ece_rise=None)
    assert trust_labels(before, (before + 1) % CLASSES, truth, limits=off).checks == ()
    flipped = trust_labels(before, (before + 1) % CLASSES, truth, limits=TrustLimits(flips=3.0))
    assert "flips" in {c.name for c in flipped.failed}


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="3 samples on one side, 2 on the other"):
        trust_labels(np.zeros(3, int), np.zeros(2, int), np.zeros(3, int))
    with pytest.raises(DataError, match="whole number"):
        trust_labels(np.zeros(3), np.zeros(3, int), np.zeros(3, int))
    with pytest.raises(DataError, match="no samples"):
        trust_labels(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int))
