"""Interpolation of measured times."""

from __future__ import annotations

from pathlib import Path

import pytest

from packlight.core.errors import InputError
from packlight.core.latency import LatencyTable, Layer, Times


def test_a_product_is_met_exactly() -> None:
    """a + b x + c y + d x y is what multilinear interpolation gives back, inside the grid and outside."""
    axes = ((8, 16, 32), (4, 8))

    def truth(x: float, y: float) -> float:
        return 3 + 0.5 * x + 0.25 * y + 0.125 * x * y

    times = Times(axes=axes, seconds=tuple(truth(x, y) for x in axes[0] for y in axes[1]))
    for x, y in ((8, 4), (16, 8), (11, 5), (20, 7.5), (32, 6), (4, 2), (40, 10)):
        assert times.at((x, y)) == pytest.approx(truth(x, y))


def test_never_below_zero() -> None:
    assert Times(axes=((8, 16),), seconds=(0.1, 1.0)).at((1,)) == 0.0


def test_an_axis_of_one_size() -> None:
    assert Times(axes=((3,), (2, 4)), seconds=(1.0, 2.0)).at((3, 3)) == pytest.approx(1.5)


def test_equal_layers_have_equal_keys() -> None:
    one = Layer(kind="conv", input=(1, -1, 8, 8), sizes=(16, 8), settings={"stride": [1, 1], "bias": True})
    other = Layer(kind="conv", input=(1, -1, 8, 8), sizes=(16, 8), settings={"bias": True, "stride": [1, 1]})
    assert one.key == other.key


def test_a_table_on_disk(tmp_path: Path) -> None:
    layer = Layer(kind="linear", input=(1, -1), sizes=(4, 8))
    table = LatencyTable(
        runtime="onnxruntime",
        precision="fp32",
        threads=1,
        device="local",
        whole_s=1e-3,
        times={layer.key: Times(axes=((2, 4), (8,)), seconds=(1e-6, 2e-6))},
    )
    table.write(tmp_path / "t.json")
    assert LatencyTable.read(tmp_path / "t.json") == table
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(InputError):
        LatencyTable.read(tmp_path / "t.json")
