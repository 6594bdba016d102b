"""The pass "quantize" on whole graphs: what becomes integer, how close it stays, and that it survives export and disk."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.passes import Context, make, run_passes
from packlight.compress.quantize.affine import sqnr_db
from packlight.compress.quantize.static import Quantize, QuantizeSettings, integer_layers
from packlight.compress.quantize.torchao import installed
from packlight.core.bundle import Bundle
from packlight.core.errors import DataError, RecipeError

pytestmark = pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")


@pytest.fixture(scope="module")
def quantized(captured: Callable[..., Bundle], avx2: Callable[..., Context], arrays: Any) -> Callable[[str], tuple[Bundle, Bundle]]:
    """``quantized(name)``: the zoo's model in float and in int8, calibrated on 8 samples."""
    import functools

    from zoo import ZOO as MODELS

    @functools.cache
    def get(name: str) -> tuple[Bundle, Bundle]:
        bundle = captured(name)
        calib = arrays(MODELS[name].input(8, seed=5).numpy())
        return bundle, run_passes(bundle, [Quantize()], avx2(calib=calib))

    return get


# dB against the float model on inputs that were not calibrated on. Random weights: deep ReLU6 and squeeze-excite nets are the hard ones.
ZOO = {
    "resnet18": 15,
    "mobilenetv2": 8,
    "efficientnet": 8,
    "unet": 15,
    "dcgan": 20,
    "cyclegan": 13,
    "superres": 22,
    "crnn": 20,
    "gruvideo": 22,
    "convlstm": 25,
}


@pytest.mark.parametrize("name", ZOO)
def test_zoo_stays_close_and_every_layer_is_integer(name: str, quantized: Callable[[str], tuple[Bundle, Bundle]]) -> None:
    from zoo import ZOO as MODELS

    before, after = quantized(name)
    x = MODELS[name].input(4, seed=9)
    assert sqnr_db(before.run(x)[0].numpy(), after.run(x)[0].numpy()) >= ZOO[name]
    weighted = {"aten.conv2d.default", "aten.conv_transpose2d.input", "aten.linear.default"}
    wanted = sum(str(n.target) in weighted for n in before.graph.graph.nodes)
    assert wanted == sum(str(n.target) in weighted and reads_int8(after, n) for n in after.graph.graph.nodes)
    assert integer_layers(after, 63) == set(after.quantized["layers"])


def reads_int8(bundle: Bundle, node: torch.fx.Node) -> bool:
    weight = node.args[1]
    return str(weight.target).startswith("quantized_decomposed.dequantize") and weight.args[0].op == "get_attr"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in ("unet", "convlstm") else pytest.mark.slow) for n in ZOO])
def test_zoo_exports_with_free_and_fixed_batch(name: str, quantized: Callable[[str], tuple[Bundle, Bundle]]) -> None:
    _, after = quantized(name)
    x = after.samples[0]
    wanted = after.run(x)[0]
    free = after.export().module(check_guards=False)
    assert torch.equal(free(x), wanted)
    assert torch.equal(free(torch.cat([x, x[:1]]))[:-1], wanted)
    # Another batch size rounds a float sum another way now and then, and a value on the edge falls to the next integer.
    assert sqnr_db(wanted[:1].numpy(), after.export(batch=1).module()(x[:1]).numpy()) > 20


@pytest.mark.parametrize("name", ["superres", pytest.param("resnet18", marks=pytest.mark.slow), "crnn"])
def test_a_quantized_bundle_survives_the_disk(name: str, quantized: Callable[[str], tuple[Bundle, Bundle]], tmp_path) -> None:
    _, after = quantized(name)
    again = Bundle.load(after.save(tmp_path / "b"))
    assert torch.equal(again.run(*after.samples)[0], after.run(*after.samples)[0])
    assert again.quantized == after.quantized
    assert integer_layers(again, 63) == integer_layers(after, 63)


@pytest.mark.parametrize("weight_max", [63, 127])
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_follow_the_scheme(weight_max: int, per_channel: bool, captured: Callable[..., Bundle], avx2, noise) -> None:
    bundle = captured("dcgan")
    after = run_passes(bundle, [Quantize()], avx2(weight_max, per_channel, calib=noise(4, 16, 1, 1)))
    weight, scale = after.graph.get_buffer("net.0.weight"), after.graph.state_dict().get("net.0.weight_scale")
    assert weight.dtype == torch.int8
    assert int(weight.abs().max()) == weight_max
    if not per_channel:
        assert scale is None
        return
    assert scale.shape == (weight.shape[1],)  # output channels of a transposed convolution are on axis 1
    assert torch.all(weight.abs().amax((0, 2, 3)) == weight_max)
    float_weight = captured("dcgan").graph.get_parameter("net.0.weight")
    norm = captured("dcgan").graph
    folded = float_weight * (norm.net.get_submodule("1").weight / torch.sqrt(norm.net.get_submodule("1").running_var + 1e-5)).reshape(
        1, -1, 1, 1
    )
    assert float(((weight * scale.reshape(1, -1, 1, 1)) - folded.detach()).abs().max()) <= float(scale.max()) * 0.5001


def test_the_same_seed_gives_the_same_model_and_another_draws_other_samples(captured, avx2, noise) -> None:
    bundle, calib = captured("superres"), noise(64, 3, 24, 24)
    settings = QuantizeSettings(samples=8)
    one, two, other = (run_passes(bundle, [Quantize(settings)], avx2(calib=calib, seed=s)) for s in (3, 3, 4))
    assert str(one.graph.graph) == str(two.graph.graph)
    assert all(torch.equal(a, b) for a, b in zip(one.graph.state_dict().values(), two.graph.state_dict().values(), strict=True))
    assert str(one.graph.graph) != str(other.graph.graph)


def test_a_model_of_fixed_batch_is_calibrated_in_whole_batches(captured, avx2, noise) -> None:
    bundle = captured("superres", free_batch=False)
    after = run_passes(bundle, [Quantize()], avx2(calib=noise(5, 3, 24, 24)))
    assert after.quantized["samples"] == 5
    assert after.run(bundle.samples[0])[0].shape[0] == 1


def test_keep_float_keeps_a_layer_and_says_so(captured, avx2, noise) -> None:
    after = run_passes(captured("superres"), [Quantize(QuantizeSettings(keep_float=("body.0",)))], avx2(calib=noise(4, 3, 24, 24)))
    assert "body.0" not in after.quantized["layers"]
    assert after.quantized["float"]["body.0 (aten.conv2d.default)"] == "kept float by the settings"
    assert after.graph.get_parameter("body.0.weight").dtype == torch.float32


def test_recurrent_layers_stay_float_and_are_named(quantized) -> None:
    _, after = quantized("crnn")
    (reason,) = [k for k in after.quantized["float"] if "lstm" in k]
    assert reason.startswith("rnn ")
    assert {"cnn.0.0", "head"} <= set(after.quantized["layers"])


class DeadChannel(nn.Module):
    """One output channel with weights near zero and a bias: what a folded BatchNorm leaves of a dead channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        with torch.no_grad():
            self.conv.weight[0] = 1e-12
            self.conv.bias[0] = 3.0

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_a_dead_channels_bias_fits_into_int32(avx2, noise) -> None:
    bundle = Bundle.capture(DeadChannel().eval(), (torch.randn(2, 3, 8, 8),))
    after = run_passes(bundle, [Quantize()], avx2(calib=noise(8, 3, 8, 8)))
    state = after.graph.state_dict()
    (quantize,) = [n for n in after.graph.graph.nodes if str(n.target).endswith("quantize_per_tensor.default") and n.args[0].name == "x"]
    stored = state["conv.bias"].double() / (quantize.args[1] * state["conv.weight_scale"].double())
    assert float(stored.abs().max()) < 2**31
    x = torch.randn(2, 3, 8, 8)
    assert sqnr_db(bundle.run(x)[0].numpy(), after.run(x)[0].numpy()) > 30


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"samples": 0}, "give 1 or more"), ({"percentile": 12}, "above 50"), ({"calibrator": "guess"}, "known: entropy, minmax")],
)
def test_wrong_settings_say_why(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        make("quantize", settings)


def test_calibration_needs_inputs(captured, avx2) -> None:
    with pytest.raises(RecipeError, match="no inputs to calibrate on"):
        run_passes(captured("superres"), [Quantize()], avx2())


def test_too_few_samples_for_a_fixed_batch_and_values_that_are_not_finite_are_refused(avx2, noise, arrays) -> None:
    fixed = Bundle.capture(nn.Conv2d(3, 4, 3).eval(), (torch.randn(8, 3, 8, 8),), free_batch=False)
    with pytest.raises(DataError, match="reads 8 samples at once and 'memory' has 4"):
        run_passes(fixed, [Quantize()], avx2(calib=noise(4, 3, 8, 8)))
    free = Bundle.capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), (torch.randn(2, 3, 8, 8),))
    spoilt = noise(4, 3, 8, 8).inputs[0].copy()
    spoilt[1, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match="infinities or NaN first in input"):
        run_passes(free, [Quantize()], avx2(calib=arrays(spoilt)))


def test_quantizing_twice_and_quantizing_nothing_are_refused(quantized, avx2, noise) -> None:
    _, after = quantized("superres")
    with pytest.raises(RecipeError, match="quantized already"):
        run_passes(after, [Quantize()], avx2(calib=noise(4, 3, 24, 24)))
    plain = Bundle.capture(nn.ReLU(), (torch.randn(2, 3),))
    with pytest.raises(RecipeError, match="no convolution or linear layer"):
        run_passes(plain, [Quantize()], avx2(calib=noise(4, 3)))


def test_a_wrong_setting_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="keep-float"):
        make("quantize", {"calibrater": "mse"})


def test_nothing_of_torchaos_import_reaches_the_user_or_stays(tmp_path) -> None:
    code = (
        "import logging, warnings\n"
        "before = (list(warnings.filters), logging.getLogger('torchao').level, logging.getLogger('torch.utils._pytree').level)\n"
        "from packlight.compress.quantize.torchao import pt2e\n"
        "pt2e('quantize_pt2e')\n"
        "after = (list(warnings.filters), logging.getLogger('torchao').level, logging.getLogger('torch.utils._pytree').level)\n"
        "import torch; levels = before[1:] == after[1:]\n"
        "kept = [f for f in after[0] if f not in before[0] and 'NumPy' in str(f)]\n"
        "print('same' if levels and not kept else (before, after))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=_environment(), check=True)
    assert done.stdout.strip() == "same"
    assert done.stderr == ""


def _environment() -> dict[str, str]:
    import os
    from pathlib import Path

    import packlight

    return {**os.environ, "PYTHONPATH": str(Path(packlight.__file__).parent.parent)}


def test_quantizing_warns_of_nothing(captured, avx2, noise, caplog) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        run_passes(captured("superres"), [Quantize()], avx2(calib=noise(4, 3, 24, 24)))
    assert not caplog.records


def test_calibration_reads_every_input_of_a_model(avx2, arrays) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.a(x) * torch.sigmoid(self.b(y))

    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((16, n)).astype(np.float32) for n in (3, 2))
    bundle = Bundle.capture(Two().eval(), (torch.from_numpy(x[:2]), torch.from_numpy(y[:2])))
    after = run_passes(bundle, [Quantize()], avx2(calib=arrays(x, y)))
    wanted = bundle.run(torch.from_numpy(x), torch.from_numpy(y))[0]
    assert sqnr_db(wanted.numpy(), after.run(torch.from_numpy(x), torch.from_numpy(y))[0].numpy()) > 28
