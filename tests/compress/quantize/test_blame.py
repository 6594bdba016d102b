"""Blame finds the layer that was spoilt, and its figures are those of doing the same by hand. Sufficiency follows its law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.passes import run_passes
from packlight.compress.quantize.affine import sqnr_db
from packlight.compress.quantize.blame import blame, table
from packlight.compress.quantize.calibrate.sufficiency import sufficiency
from packlight.compress.quantize.layers import layers
from packlight.compress.quantize.static import Quantize, QuantizeSettings
from packlight.compress.quantize.torchao import installed
from packlight.core.bundle import Bundle

needs_torchao = pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        x = torch.relu(x + self.b(x))
        return self.head(torch.relu(self.c(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def float_and_int8(avx2, noise) -> tuple[Bundle, Bundle]:
    torch.manual_seed(0)
    bundle = Bundle.capture(Net().eval(), (torch.randn(2, 3, 10, 10),))
    return bundle, run_passes(bundle, [Quantize(QuantizeSettings(samples=64))], avx2(127, calib=noise(64, 3, 10, 10)))


@needs_torchao
def test_a_spoilt_layer_comes_first(float_and_int8, noise) -> None:
    before, after = float_and_int8
    spoilt = after.replace(graph=after.copy_graph())
    (layer,) = [x for x in layers(spoilt.graph) if x.name == "c"]
    layer.store((layer.weight.float() / 60).round())  # three levels and the wrong size
    batches = [(torch.from_numpy(noise(32, 3, 10, 10, seed=s).inputs[0]),) for s in (1, 2)]
    found = blame(before, spoilt, batches, lambda outputs: outputs[0].argmax(1))
    assert {b.layer for b in found} >= {"a", "b", "c", "head"}
    assert found[0].layer == "c"
    assert found[0].samples == 64
    assert found[0].changed > 0
    others = [b for b in found if b.layer != "c"]
    assert all(b.alone_db > found[0].alone_db + 10 for b in others)
    text = table(found)
    assert text.count("\n") == len(found) + 2
    assert "| c | aten.conv2d.default |" in text.splitlines()[2]


@needs_torchao
def test_the_figures_are_those_of_doing_it_by_hand(float_and_int8, noise) -> None:
    before, after = float_and_int8
    x = torch.from_numpy(noise(32, 3, 10, 10, seed=3).inputs[0])
    found = {b.layer: b for b in blame(before, after, [(x,)], lambda o: o[0].argmax(1))}
    wanted = before.run(x)[0]
    assert found["head"].sqnr_db == pytest.approx(sqnr_db(wanted.numpy(), after.run(x)[0].numpy()), abs=0.02)
    # The last layer alone: everything before it in float, its input, weight and output quantized.
    (layer,) = [y for y in layers(after.graph) if y.name == "head"]
    weight, bias = layer.real_weight(), layer.bias()
    pairs = [n.args[1:3] for n in after.graph.graph.nodes if str(n.target).endswith("dequantize_per_tensor.default")]
    (into, out) = pairs[-2], pairs[-1]
    net = Net().eval()
    net.load_state_dict(before.graph.state_dict())
    y = torch.relu(net.a(x))
    features = torch.relu(net.c(torch.relu(y + net.b(y)))).mean((2, 3))

    def round_trip(t: Tensor, scale: float, zero: int) -> Tensor:
        return (torch.clamp(torch.round(t / scale) + zero, -128, 127) - zero) * scale

    alone = round_trip(nn.functional.linear(round_trip(features, *into), weight, bias), *out)
    assert found["head"].alone_db == pytest.approx(sqnr_db(wanted.numpy(), alone.detach().numpy()), abs=0.3)
    assert found["head"].changed == pytest.approx(float((alone.argmax(1) != wanted.argmax(1)).float().mean()), abs=0.04)


@needs_torchao
def test_without_answers_only_decibels_are_given(float_and_int8, noise) -> None:
    before, after = float_and_int8
    found = blame(before, after, [(torch.from_numpy(noise(8, 3, 10, 10).inputs[0]),)])
    assert all(b.changed is None for b in found)
    assert [b.alone_db for b in found] == sorted(b.alone_db for b in found)
    assert "–" in table(found)


def test_sufficiency_follows_the_square_root_law() -> None:
    random = np.random.default_rng(0)
    noisy = [1 + 0.2 * random.standard_normal(400) / math.sqrt(n / 2) for n in (128, 128)]
    found = sufficiency(*noisy, samples=128)
    # Nine in ten of |N(0, 2 v)| / sqrt(2) lie below 1.645 sqrt(v): v is the variance of one half.
    assert found.spread == pytest.approx(1.645 * 0.2 / math.sqrt(64), rel=0.15)
    assert found.ok == (found.spread <= 0.05 or found.enough <= 128)
    assert found.enough == max(32, math.ceil(128 * (found.spread / 0.05) ** 2))
    more = sufficiency(*[1 + 0.2 * random.standard_normal(400) / math.sqrt(found.enough / 2) for _ in range(2)], samples=found.enough)
    assert more.spread == pytest.approx(max(0.05, more.spread), rel=0.25) or more.spread < 0.05


def test_equal_halves_are_enough_and_no_halves_tell_nothing() -> None:
    assert sufficiency([1.0, 2.0], [1.0, 2.0], 64).ok
    assert sufficiency([], [], 32).spread == 0.0
    assert not sufficiency([1.0], [2.0], 64).ok


@needs_torchao
def test_quantizing_tells_whether_the_calibration_data_suffice(avx2, arrays) -> None:
    torch.manual_seed(0)
    bundle = Bundle.capture(Net().eval(), (torch.randn(2, 3, 10, 10),))
    random = np.random.default_rng(0)
    alike = random.standard_normal((256, 3, 10, 10)).astype(np.float32)
    unlike = alike * (10.0 ** random.uniform(-2, 2, (256, 1, 1, 1))).astype(np.float32)
    few = Quantize(QuantizeSettings(samples=32, calibrator="minmax"))
    told = [run_passes(bundle, [few], avx2(calib=arrays(x))).history[-1].changes["calibration"] for x in (alike, unlike)]
    assert told[0]["spread"] < told[1]["spread"]
    assert not told[1]["sufficient"]
    assert told[1]["enough_samples"] > 32
