"""Every operator with random shapes, strides, paddings, axes and orders in memory against torch, in the interpreters.

The operator goes straight to the plan (no tracing), so that a case costs milliseconds. ``benchmarks/tflite/properties.py`` runs thousands
of the same cases; ``PACKLIGHT_EXAMPLES`` sets how many each row has here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_cases import CASES, Judge, cases
from tflite_cases.aside import Aside, missing

from packlight.export.tflite.layout import channels_last, identity, permuted, reshaped, same_memory, stored

COUNT = int(os.environ.get("PACKLIGHT_EXAMPLES", "6"))


@pytest.mark.parametrize("row", CASES)
def test_operator(row: str) -> None:
    """float32 and int8, in LiteRT with and without XNNPACK."""
    judge, right = Judge(), 0
    for case in cases(row, COUNT):
        for precision in ("float32", "int8"):
            outcome = judge(case, precision)
            assert outcome is None or outcome.kind in ("right", "refused"), str(outcome)
            right += outcome is not None and outcome.kind == "right"
    assert right >= COUNT // 2


@pytest.fixture(scope="module")
def older() -> Iterator[Aside]:
    if why := missing():
        pytest.skip(why)
    process = Aside()
    yield process
    process.close()


def test_the_older_runtime_agrees(older: Aside) -> None:
    """The first cases of every row, in tflite-runtime too."""
    judge = Judge(older)
    for row in CASES:
        for case in cases(row, 2):
            for precision in ("float32", "int8"):
                outcome = judge(case, precision)
                assert outcome is None or outcome.kind in ("right", "refused"), str(outcome)


@given(st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_reshape_without_moving(data: st.DataObject) -> None:
    """Where ``reshaped`` says that a reshape is free, reading the stored bytes in the new order gives torch's reshape."""
    factors = [data.draw(st.sampled_from([1, 2, 3])) for _ in range(data.draw(st.integers(1, 6)))]

    def merged() -> tuple[int, ...]:
        out = [1]
        for f in factors:
            if data.draw(st.booleans()):
                out.append(f)
            else:
                out[-1] *= f
        return tuple(out)

    shape, to = merged(), merged()
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    x = np.arange(int(np.prod(shape))).reshape(shape)
    memory = np.ascontiguousarray(x.transpose(order)).ravel()
    got = reshaped(shape, order, to)
    if same_memory(shape, order, identity(len(shape))):
        assert got is not None
    if got is not None:
        back = memory.reshape(stored(to, got)).transpose(np.argsort(got))
        np.testing.assert_array_equal(back, x.reshape(to))


@given(st.permutations(range(4)), st.permutations(range(4)))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_permutation_shares_memory(order: list[int], dims: list[int]) -> None:
    x = np.arange(120).reshape(2, 3, 4, 5)
    memory = x.transpose(order)
    new = permuted(tuple(order), dims)
    np.testing.assert_array_equal(memory.transpose(np.argsort(new)), x.transpose(dims))


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_channels_last(rank: int) -> None:
    assert channels_last(rank) == {2: (0, 1), 3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}[rank]
