"""The order of mends and when to stop, on outcomes made by hand; then a real repair in a real runtime."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from packlight.search.ladder import Candidate, Climbed, Outcome, OutOfTime, better, climb, pattern

LAYERS = [f"conv{i}" for i in range(9)]


def run(loses: Callable[[Candidate], float | None], limit: float, start: Candidate | None = None) -> Climbed:
    return climb(start or Candidate(), lambda c: Outcome(drop=loses(c), runtime="onnxruntime"), lambda c: LAYERS, limit)


def steps(climbed: Climbed) -> list[str]:
    return [t.step for t in climbed.log]


def test_nothing_is_tried_where_the_budget_holds() -> None:
    done = run(lambda c: 0.2, 0.5)
    assert done.held
    assert steps(done) == ["as the recipe has it"]
    assert done.candidate == Candidate()


def test_the_first_mend_that_holds_ends_it() -> None:
    done = run(lambda c: 0.4 if c.settings.get("calibrator") == "entropy" else 2.0, 0.5)
    assert done.held
    assert steps(done) == ["as the recipe has it", "calibrator percentile", "calibrator entropy"]
    assert done.candidate.settings == {"calibrator": "entropy"}
    assert done.log[-1].bought == pytest.approx(1.6)


def test_mends_that_help_add_up_and_those_that_do_not_are_left() -> None:
    def loses(c: Candidate) -> float:
        gains = [0.5 * (c.settings.get("calibrator") == "minmax"), 0.7 * c.equalize, 0.9 * (c.settings.get("rounding") == "learned")]
        return 2.0 - sum(gains) + 0.1 * (c.settings.get("bias-correction") == "empirical")

    done = run(loses, -0.5)
    assert done.candidate.equalize
    assert done.candidate.settings["calibrator"] == "minmax"
    assert done.candidate.settings["rounding"] == "learned"
    assert "bias-correction" not in done.candidate.settings
    assert not done.held
    assert done.why == "every mend was tried"
    assert [t.kept for t in done.log if t.step == "bias correction"] == [False]


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 6, 7])
def test_the_fewest_layers_that_will_do_stay_float(needed: int) -> None:
    done = run(lambda c: 0.0 if len(c.settings.get("keep-float", ())) >= needed else 1.0, 0.5)
    assert done.held
    assert done.candidate.settings["keep-float"] == LAYERS[:needed]


def test_a_file_that_can_not_be_made_is_never_taken() -> None:
    done = run(lambda c: None if c.equalize else 1.0, 0.5)
    assert not done.candidate.equalize
    assert done.outcome.drop == 1.0
    assert better(Outcome(drop=3.0), Outcome(drop=None))
    assert better(Outcome(drop=1.0, sqnr_db=20.0), Outcome(drop=1.0, sqnr_db=15.0))


def test_the_time_ends_it_with_the_best_so_far() -> None:
    count = 0

    def measure(c: Candidate) -> Outcome:
        nonlocal count
        count += 1
        if count > 3:
            raise OutOfTime
        return Outcome(drop=2.0 - 0.1 * count, runtime="onnxruntime")

    done = climb(Candidate(), measure, lambda c: LAYERS, 0.5)
    assert not done.held
    assert len(done.log) == 3
    assert done.outcome.drop == pytest.approx(1.7)
    assert "--repair-minutes" in done.why


def test_a_pattern_matches_its_layer_alone() -> None:
    import fnmatch

    assert fnmatch.fnmatchcase("a[0].b*", pattern("a[0].b*"))
    assert not fnmatch.fnmatchcase("a0.bc", pattern("a[0].b*"))


def test_sixteen_bits_are_tried_before_float_layers_where_every_file_can_have_them() -> None:
    def loses(c: Candidate) -> float:
        return 0.1 if c.settings.get("activation-bits") == 16 else 2.0

    done = climb(Candidate(), lambda c: Outcome(drop=loses(c), runtime="litert"), lambda c: LAYERS, 0.5, not_wide="")
    assert done.held
    assert steps(done)[-1] == "16-bit activations"
    assert done.candidate.settings == {"activation-bits": 16}
    without = climb(Candidate(), lambda c: Outcome(drop=loses(c), runtime="litert"), lambda c: LAYERS, 0.5, not_wide="onnx has none")
    (told,) = (t for t in without.log if t.step == "16-bit activations")
    assert told.why == "onnx has none"
    assert told.drop is None


def test_formats_that_lack_sixteen_bits_are_named() -> None:
    from packlight.search.repair import not_wide
    from packlight.targets.load import load_target

    target = load_target("x86-64-avx2")
    assert not_wide(("tflite",), target) == ""
    assert not_wide(("onnx", "tflite"), target).startswith("onnx have no kernels")
    assert "no runtime of 'nvidia-gpu-x86-64'" in not_wide(("onnx",), load_target("nvidia-gpu-x86-64"))
