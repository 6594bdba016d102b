"""Mending against closed forms: patches are convolutions, rounding is as good as trying all, corrected biases leave no mean error."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from packlight.compress.fold import FoldBatchNorm
from packlight.compress.passes import run_passes
from packlight.compress.quantize.affine import sqnr_db
from packlight.compress.quantize.layers import layers
from packlight.compress.quantize.lower import lower
from packlight.compress.quantize.mend.bias import channel_mean, clipped_normal, expected_shift
from packlight.compress.quantize.mend.expect import expectations
from packlight.compress.quantize.mend.patches import product_of
from packlight.compress.quantize.mend.rounding import learned_rounding
from packlight.compress.quantize.mend.run import mend
from packlight.compress.quantize.prepared import convert, prepare_lowered
from packlight.compress.quantize.quantizer import Calibration
from packlight.compress.quantize.static import Quantize, QuantizeSettings
from packlight.compress.quantize.torchao import installed
from packlight.compress.quantize.walk import Walk
from packlight.core.bundle import Bundle
from packlight.core.errors import RecipeError
from packlight.targets.scheme import Scheme

LAYERS = {
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 9)),
    "strided, dilated": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), dilation=(2, 1)), (2, 4, 9, 8)),
    "same": (lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), (2, 4, 7, 9)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 9)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (2, 4, 7, 9)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, 2, 1), (2, 4, 11)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 4, 2, 1), (2, 4, 5, 6)),
    "transposed, output padding": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1), (2, 4, 5, 6)),
    "transposed, grouped": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), groups=2, dilation=(1, 2)), (2, 4, 5, 6)),
    "transposed, cropped": (lambda: nn.ConvTranspose2d(4, 6, 2, 2, 2), (2, 4, 5, 6)),
    "linear": (lambda: nn.Linear(5, 7), (3, 5)),
    "linear on sequences": (lambda: nn.Linear(5, 7), (3, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_product_of_its_matrix_and_the_patches(name: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, x = make().double().eval(), torch.randn(shape).double()
    program = torch.export.export(layer, (x,))
    (node,) = [n for n in program.module().graph.nodes if "aten.conv" in str(n.target) or "aten.linear" in str(n.target)]
    product = product_of(node, layer.weight)
    matrix, patches = product.matrix(layer.weight), product.patches(x)
    y = layer(x)
    channels = y if "linear" in name else y.movedim(1, -1)
    wanted = channels.reshape(-1, channels.shape[-1]) - layer.bias
    got = torch.cat([patches[g] @ matrix[g].T for g in range(product.groups)], 1)
    assert torch.allclose(got, wanted, atol=1e-12)
    assert torch.equal(product.fold(matrix, layer.weight), layer.weight)


def problem(rows: int, d: int, seed: int = 0, correlated: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(400, d, generator=generator, dtype=torch.float64)
    if correlated:
        x = x @ torch.randn(d, d, generator=generator, dtype=torch.float64) + 0.5
    return torch.randn(rows, d, generator=generator, dtype=torch.float64), torch.full((rows, 1), 0.4, dtype=torch.float64), x


def error(weight: Tensor, real: Tensor, x: Tensor) -> Tensor:
    return ((x @ (weight - real).T) ** 2).mean(0)


def test_rounding_is_nearly_as_good_as_trying_all() -> None:
    ratios = []
    for seed in range(8):
        weight, scale, x = problem(3, 9, seed)
        gram = x.T @ x / len(x)
        integers, *_ = learned_rounding(weight, scale, 63, gram, gram, damping=0.0)
        low = (weight / scale).floor()
        best = torch.stack(
            [error(weight, (low + torch.tensor(c, dtype=torch.float64)) * scale, x) for c in itertools.product((0, 1), repeat=9)]
        )
        got, nearest = error(weight, integers * scale, x), error(weight, (weight / scale).round() * scale, x)
        assert torch.all(got <= nearest + 1e-12)
        assert torch.all((integers == low) | (integers == low + 1))
        ratios.append(float((got / best.amin(0)).mean()))
    assert np.mean(ratios) < 2.0


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
    weight, scale, _ = problem(4, 12)
    gram = torch.eye(12, dtype=torch.float64)
    integers, before, after = learned_rounding(weight, scale, 63, gram, gram)
    assert torch.equal(integers, (weight / scale).round())
    assert torch.equal(before, after)


def test_the_objective_is_the_mean_squared_error() -> None:
    weight, scale, x = problem(3, 9)
    gram = x.T @ x / len(x)
    integers, before, after = learned_rounding(weight, scale, 63, gram, gram, damping=0.0)
    constant = ((weight @ gram) * weight).sum(1)
    assert torch.allclose(after + constant, error(weight, integers * scale, x))
    assert torch.allclose(before + constant, error(weight, (weight / scale).round() * scale, x))


def test_integers_stay_within_the_scheme() -> None:
    weight, scale, x = problem(3, 9)
    gram = x.T @ x
    integers, *_ = learned_rounding(weight * 100, scale, 63, gram, gram)
    assert int(integers.abs().max()) == 63


@pytest.mark.parametrize(("low", "high"), [(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-math.inf, 0.5), (-math.inf, math.inf)])
def test_a_clipped_normals_moments_are_those_of_samples(low: float, high: float) -> None:
    mean, variance = torch.tensor([0.3, -2.0, 4.0]).double(), torch.tensor([1.0, 4.0, 9.0]).double()
    x = mean + variance.sqrt() * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = clipped_normal(mean, variance, low, high)
    clipped = x.clamp(low, high)
    assert torch.allclose(got[0], clipped.mean(0), atol=0.03)
    assert torch.allclose(got[1], clipped.var(0), atol=0.1)


def test_the_rectified_standard_normals_moments_are_known() -> None:
    mean, variance = clipped_normal(torch.zeros(1).double(), torch.ones(1).double(), 0.0, math.inf)
    assert float(mean) == pytest.approx(1 / math.sqrt(2 * math.pi))
    assert float(variance) == pytest.approx(0.5 - 1 / (2 * math.pi))


def test_the_expected_shift_is_that_of_a_convolution_of_constant_channels() -> None:
    change = torch.randn(6, 2, 3, 3).double()
    mean = torch.randn(4).double()
    x = mean.reshape(1, 4, 1, 1).expand(1, 4, 5, 5)
    wanted = F.conv2d(x, change, groups=2)[0, :, 0, 0]
    assert torch.allclose(expected_shift(change.reshape(2, 3, 2, 9), mean), wanted)


class Net(nn.Module):
    """Correlated, rectified inputs: what makes roundings add up to a shift."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.b, self.nb = nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8)
        self.c, self.nc = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 6, 2, 2, bias=False)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.na(self.a(x)))
        x = F.relu6(self.nb(self.b(x)))
        x = F.relu(self.nc(self.c(x)))
        return self.fc(F.relu(self.up(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Bundle:
    from zoo import settle, smooth

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        module = settle(Net(), lambda: smooth((8, 3, 16, 16), int(torch.randint(1 << 20, ()))))
        return Bundle.capture(module, (torch.randn(2, 3, 16, 16),))


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    from zoo import smooth

    return smooth((64, 3, 16, 16), 77)


def converted(net: Bundle, batches: list[tuple[Tensor, ...]], weight_max: int) -> tuple[Any, Any]:
    graph = net.copy_graph()
    lower(graph)
    floating = copy.deepcopy(graph)
    prepared = prepare_lowered(graph, Scheme(weight_max=weight_max), Calibration("minmax"))
    prepared.feed(batches)
    return floating, convert(prepared)


needs_torchao = pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")


@needs_torchao
def test_a_walk_gives_what_the_graph_gives(net: Bundle, inputs: Tensor) -> None:
    batches = [(inputs[:3],), (inputs[3:8],)]
    walk = Walk(net.graph, batches)
    name = next(n.name for n in net.graph.graph.nodes if "conv2d" in n.name)
    assert torch.allclose(walk.until(name)[1], F.conv2d(inputs[3:8], net.graph.get_parameter("a.weight")))
    got = walk.outputs()
    assert torch.equal(got[0][0], net.run(inputs[:3])[0])
    assert torch.equal(got[1][0], net.run(inputs[3:8])[0])


@needs_torchao
def test_corrected_biases_leave_no_mean_error_in_any_layer(net: Bundle, inputs: Tensor) -> None:
    batches = [(inputs[:32],), (inputs[32:],)]
    floating, integer = converted(net, batches, 7)
    before = sqnr_db(net.run(inputs)[0].numpy(), integer(inputs).detach().numpy())
    report = mend(floating, integer, batches, bias=True)
    assert [m.layer for m in report] == ["a", "b", "c", "up", "fc"]
    assert all(m.bias is not None for m in report)
    reference, walk = Walk(floating, batches), Walk(integer, batches)
    for layer in layers(integer):
        wanted, got = reference.until(layer.node.name), walk.until(layer.node.name)
        axis = wanted[0].ndim - 1 if layer.name == "fc" else 1
        gap = (channel_mean(wanted, axis) - channel_mean(got, axis)).abs().max()
        assert float(gap) < 1e-3 * float(wanted[0].std())
    assert sqnr_db(net.run(inputs)[0].numpy(), integer(inputs).detach().numpy()) > before + 2
    assert "up.bias" in integer.state_dict()


@needs_torchao
def test_learned_rounding_brings_unseen_inputs_nearer(net: Bundle, inputs: Tensor) -> None:
    from zoo import smooth

    batches = [(inputs[:32],), (inputs[32:],)]
    floating, integer = converted(net, batches, 7)
    plain, fresh = copy.deepcopy(integer), smooth((64, 3, 16, 16), 5)
    report = mend(floating, integer, batches, rounding=True, bias=True)
    assert all(m.rounding is not None and m.rounding <= 1.0 for m in report)
    assert any(m.flipped for m in report)
    wanted = net.run(fresh)[0].numpy()
    corrected = copy.deepcopy(plain)
    mend(floating, corrected, batches, bias=True)
    nearest, only_bias, both = (sqnr_db(wanted, g(fresh).detach().numpy()) for g in (plain, corrected, integer))
    assert both > nearest + 3
    assert both > only_bias
    for layer, old in zip(layers(integer), layers(plain), strict=True):
        assert int((layer.weight.int() - old.weight.int()).abs().max()) <= 1


@needs_torchao
def test_only_the_layers_asked_for_are_mended(net: Bundle, inputs: Tensor) -> None:
    batches = [(inputs[:32],)]
    floating, integer = converted(net, batches, 7)
    untouched = {k: v.clone() for k, v in integer.state_dict().items()}
    report = mend(floating, integer, batches, rounding=True, bias=True, only=("c",))
    assert [m.layer for m in report] == ["c"]
    changed = {k for k, v in integer.state_dict().items() if not torch.equal(v, untouched[k])}
    assert changed <= {"c.weight", "c.bias"}
    assert changed


def test_expectations_are_the_means_that_batchnorm_promises(net: Bundle) -> None:
    graph = net.copy_graph()
    folded = lower(graph)
    assert set(folded.statistics) == {"conv2d", "conv2d_1", "conv2d_2"}
    known = expectations(graph, folded.statistics)
    mean, deviation = folded.statistics["conv2d"]
    assert torch.equal(mean, net.graph.get_parameter("na.bias").detach().double())
    assert torch.allclose(known["relu6"][0], clipped_normal(mean, deviation**2, 0.0, 6.0)[0])
    assert "conv_transpose2d" not in known


@needs_torchao
def test_analytic_correction_takes_off_the_shift_of_normal_channels(avx2, arrays) -> None:
    """A layer whose input really is rectified normal: the correction must leave (nearly) no mean error."""

    class Normal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.norm = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)
            self.out = nn.Conv2d(4, 6, 1, bias=False)
            nn.init.eye_(self.mix.weight.data.view(4, 4))
            self.norm.weight.data = torch.tensor([1.0, 0.5, 2.0, 1.5])
            self.norm.bias.data = torch.tensor([0.5, -0.2, 1.0, 0.0])

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(self.norm(self.mix(x))))

    torch.manual_seed(0)
    x = torch.randn(64, 4, 24, 24)
    bundle = Bundle.capture(Normal().eval(), (x[:2],))
    context = avx2(7, calib=arrays(x.numpy()))
    settings = {"calibrator": "minmax"}
    plain = run_passes(bundle, [Quantize(QuantizeSettings(**settings))], context)
    fixed = run_passes(bundle, [Quantize(QuantizeSettings(bias_correction="analytic", **settings))], context)
    wanted = bundle.run(x)[0]

    def shift(b: Bundle) -> float:
        return float((b.run(x)[0] - wanted).mean((0, 2, 3)).abs().max())

    assert shift(fixed) < 0.2 * shift(plain)
    assert list(fixed.history[-1].changes["bias"]) == ["out"]


@needs_torchao
def test_settings_mend_and_tell_and_analytic_needs_batchnorm(net: Bundle, inputs: Tensor, avx2, arrays) -> None:
    context = avx2(7, calib=arrays(inputs.numpy()))
    settings = QuantizeSettings(bias_correction="empirical", rounding="learned", mend_samples=32)
    after = run_passes(net, [Quantize(settings)], context)
    told = after.history[-1].changes["mended"]
    assert set(told) == {"a", "b", "c", "up", "fc"}
    assert after.quantized["rounding"] == "learned"
    again = run_passes(net, [Quantize(settings)], context)
    assert all(torch.equal(a, b) for a, b in zip(after.graph.state_dict().values(), again.graph.state_dict().values(), strict=True))
    with pytest.raises(RecipeError, match="leave out 'fold-batchnorm'"):
        run_passes(net, [FoldBatchNorm(), Quantize(QuantizeSettings(bias_correction="analytic"))], context)
