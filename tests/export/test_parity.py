import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from packlight.core.artifact import Parity
from packlight.core.bundle import Bundle
from packlight.core.errors import ContractError, ParityError
from packlight.export import parity
from packlight.export.prove import References, judged, run_double


@given(st.floats(1e-4, 1e3), st.integers(1, 64))
def test_sqnr_closed_form(relative: float, n: int) -> None:
    """A constant relative error r gives exactly -20 log10 r."""
    a = np.linspace(1, 2, n)
    assert parity.sqnr_db(a, a * (1 + relative)) == pytest.approx(-20 * np.log10(relative), abs=1e-6)


def test_sqnr_of_rounding_is_six_db_a_bit() -> None:
    """Uniform values rounded to b bits: SQNR = 6.02 b dB (Widrow and Kollar, Quantization Noise, 2008)."""
    x = np.random.default_rng(0).uniform(0, 1, 1_000_000)
    for bits in (4, 8, 12):
        step = 2.0**-bits
        got = parity.sqnr_db(x, np.rint(x / step) * step)
        assert got == pytest.approx(10 * np.log10((1 / 3) / (step**2 / 12)), abs=0.05)


def test_equal_and_broken() -> None:
    a = np.array([1.0, -2.0])
    assert parity.sqnr_db(a, a) is None
    assert parity.max_abs(a, a) == 0.0
    assert parity.max_abs(a, np.array([1.5, -2.0])) == 0.5
    assert parity.sqnr_db(a, np.array([1.0, np.nan])) == -np.inf
    assert parity.max_abs(a, np.array([1.0, np.nan])) == np.inf
    assert parity.sqnr_db(np.zeros(2), a) == -np.inf


def test_the_worst_output_counts() -> None:
    good, bad = np.ones(10), np.ones(10)
    figures = parity.measure("torch", [good, bad], [good * 1.001, bad * 1.1], 10)
    assert figures.sqnr_db == pytest.approx(20)
    assert figures.max_abs == pytest.approx(0.1)


def test_shapes_and_counts_must_agree() -> None:
    with pytest.raises(ContractError, match="2 outputs"):
        parity.measure("torch", [np.ones(1)], [np.ones(1), np.ones(1)], 1)
    with pytest.raises(ContractError, match=r"shape \[2\]"):
        parity.measure("torch", [np.ones(1)], [np.ones(2)], 1)


def test_judge_names_file_figure_and_limit() -> None:
    bad = Parity(against="torch", max_abs=0.5, sqnr_db=12.34, samples=7, runtime="onnxruntime")
    with pytest.raises(ParityError, match=r"'m\.fp32\.onnx' in onnxruntime.* 12\.3 dB over 7 samples.* 80 dB"):
        parity.judge("m.fp32.onnx", "fp32", bad)
    parity.judge("m.int8.onnx", "int8", bad)  # int8 against float is reported, not judged
    parity.judge("m.fp32.onnx", "fp32", Parity(against="torch", max_abs=0.0, sqnr_db=None, samples=7))


def test_an_integer_file_may_be_as_far_from_float_as_the_quantized_graph() -> None:
    def figure(db: float | None) -> Parity:
        return Parity(against="any", max_abs=0.5, sqnr_db=db, samples=64, runtime="openvino")

    parity.judge_quantized("m.int8.onnx", "int8", own=figure(25.0), far=figure(1.0), graph=figure(30.0))
    parity.judge_quantized("m.int8.onnx", "int8", own=figure(15.0), far=figure(12.1), graph=figure(13.0))
    parity.judge_quantized("m.int8.onnx", "int8", own=figure(None), far=figure(12.0), graph=figure(13.0))
    with pytest.raises(ParityError, match=r"15\.0 dB over 64 samples.* 20 dB; and from the float graph by 11\.9 dB .* has 13\.0 dB"):
        parity.judge_quantized("m.int8.onnx", "int8", own=figure(15.0), far=figure(11.9), graph=figure(13.0))


def test_a_float_file_as_near_to_float64_as_torch_is_right() -> None:
    """A net that amplifies rounding: torch and the file are 74 dB apart, each some 77 dB from the exact answer."""
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((4, 1000))
    torch_gives, file_gives, wrong = (exact + rng.standard_normal(exact.shape) * size for size in (1.4e-4, 1.4e-4, 1e-3))
    x = (np.zeros((4, 1), np.float32),)
    known = References(x, [torch_gives], None, exact=lambda: [exact])
    own, far = judged("f.onnx", "onnxruntime", "fp32", known, [file_gives])
    assert 73 < own.sqnr_db < 75
    assert far.against == "torch in float64"
    with pytest.raises(ParityError, match="in float64 by 60"):
        judged("f.onnx", "onnxruntime", "fp32", known, [wrong])
    with pytest.raises(ParityError, match="the limit for fp32"):
        judged("f.onnx", "onnxruntime", "fp32", References(x, [torch_gives], None), [file_gives])


def test_a_graph_in_float64() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.SiLU()).eval()
    x = torch.randn(2, 3, 8, 8)
    bundle = Bundle.capture(net, [x])
    (got,) = run_double(bundle, [x.numpy()]) or ()
    assert got.dtype == np.float64
    with torch.no_grad():
        np.testing.assert_allclose(got, net.double()(x.double()).numpy(), rtol=1e-12)
