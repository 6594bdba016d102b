"""Training with the rounding in place: gradients in closed form, BatchNorm against torch's own, and the file against the training graph."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.passes import Context, run_passes
from packlight.compress.quantize.affine import Affine, sqnr_db
from packlight.compress.quantize.lower import lower
from packlight.compress.quantize.prepared import convert, prepare_lowered
from packlight.compress.quantize.qat.build import take_back, training_graph
from packlight.compress.quantize.qat.fake import fakes
from packlight.compress.quantize.qat.norm import fold_weight, unfold
from packlight.compress.quantize.quantizer import Calibration
from packlight.compress.quantize.torchao import installed
from packlight.compress.recipe import make_pass
from packlight.compress.training.modes import twin
from packlight.core.bundle import Bundle
from packlight.core.preprocess import Preprocess
from packlight.tasks.data.load import splits_of
from packlight.tasks.evaluate import outputs_of
from packlight.tasks.load import load_task

pytestmark = pytest.mark.skipif(not installed(), reason="torchao is not installed; quantization is an extra")

TASK = load_task("classification")


class Net(nn.Module):
    """Depthwise and pointwise convolutions, BatchNorm, ReLU6, a transposed convolution in groups: what folding must get right."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.depth, self.depth_norm = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False), nn.BatchNorm2d(16, affine=False)
        self.point, self.point_norm = nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.up, self.up_norm = nn.ConvTranspose2d(24, 16, 2, stride=2, groups=2), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.stem_norm(self.stem(x)))
        x = nn.functional.relu6(self.depth_norm(self.depth(x)))
        x = nn.functional.relu6(self.point_norm(self.point(x)))
        x = torch.relu(self.up_norm(self.up(x)))
        return self.head(x.mean((2, 3)))


def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    depth = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
    return [depth, nn.BatchNorm2d(inputs), nn.ReLU6(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6()]


class Mobile(nn.Sequential):
    """A small net of the kind that rounding hurts most."""

    def __init__(self) -> None:
        stem = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
        blocks = [*block(16, 32, 2), *block(32, 32, 1), *block(32, 32, 1)]
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def trained_statistics(net: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net.train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.uniform_(-1.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(10):
            net(torch.randn(32, 1, 8, 8))
    return net.eval()


def prepared(bundle: Bundle, context: Context, x: Tensor) -> tuple[Any, Any]:
    graph = bundle.copy_graph()
    folded = lower(graph)
    made = prepare_lowered(graph, context.target.quantization, Calibration("mse", 99.99))
    made.feed([(x[:32],), (x[32:],)])
    return made, folded


def first(result: Any) -> Tensor:
    value = result[0] if isinstance(result, tuple | list) else result
    assert isinstance(value, Tensor)
    return value


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_training_graph_computes_what_the_integer_graph_does(learned: bool, frozen: bool, per_channel: bool, avx2: Any) -> None:
    bundle = Bundle.capture(trained_statistics(Net()), (torch.zeros(2, 1, 8, 8),))
    x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    made, folded = prepared(bundle, avx2(per_channel=per_channel), x)
    graph = training_graph(made, folded, learned=learned, frozen_norms=frozen, keep_zeros=True)
    rounded = twin(graph, training=False)
    with torch.no_grad():
        before = first(rounded(x))
        random = torch.Generator().manual_seed(2)
        for value in (*graph.parameters(), *graph.buffers()):  # as if trained
            if value.is_floating_point() and value.ndim:
                value *= 1 + 0.05 * torch.rand(value.shape, generator=random)
        after = first(rounded(x))
        take_back(graph, made, folded)
        integer = first(convert(made)(x))
    assert sqnr_db(before.numpy(), after.numpy()) < 40  # it did change
    # Ties that fall to the other side aside (a step of 1/255 in some value), the two are one function.
    assert sqnr_db(after.numpy(), integer.numpy()) > 45
    assert (after.argmax(1) == integer.argmax(1)).float().mean() > 0.98


@pytest.mark.parametrize("kind", ["plain", "depthwise", "transposed"])
def test_batchnorm_beside_a_folded_weight_is_batchnorm(kind: str) -> None:
    """Without rounding: outputs, gradients and running statistics of torch's own layers, in training mode."""
    torch.manual_seed(0)
    made = {
        "plain": lambda: nn.Conv2d(6, 8, 3, padding=1),
        "depthwise": lambda: nn.Conv2d(6, 6, 3, groups=6, bias=False),
        "transposed": lambda: nn.ConvTranspose2d(6, 8, 2, stride=2, groups=2),
    }
    layer = made[kind]()
    norm = nn.BatchNorm2d(6 if kind == "depthwise" else 8)
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        norm.running_mean.normal_()
    x = torch.randn(16, 6, 5, 5)
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    weight, gamma, beta = (t.detach().clone().requires_grad_() for t in (layer.weight, norm.weight, norm.bias))
    whole = fold_weight(weight, gamma, variance, norm.eps, 1 if kind == "transposed" else 0, layer.groups if kind == "transposed" else 1)
    if kind == "transposed":
        y = nn.functional.conv_transpose2d(x, whole, None, layer.stride, layer.padding, 0, layer.groups)
    else:
        y = nn.functional.conv2d(x, whole, None, layer.stride, layer.padding, 1, layer.groups)
    running = (mean.clone(), variance.clone())
    got = nn.functional.batch_norm(unfold(y, gamma, variance, norm.eps, layer.bias), *running, gamma, beta, True, norm.momentum, norm.eps)
    want = norm.train()(layer(x))
    assert torch.allclose(got, want, atol=1e-4)
    assert torch.allclose(running[0], norm.running_mean, atol=1e-5)
    assert torch.allclose(running[1], norm.running_var, atol=1e-4)
    upstream = torch.randn_like(want)
    (got * upstream).sum().backward()
    (want * upstream).sum().backward()
    for mine, theirs in ((weight, layer.weight), (gamma, norm.weight), (beta, norm.bias)):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, atol=2e-3 * float(theirs.grad.abs().max()))


def test_gradients_of_values_and_scales_are_those_of_the_papers() -> None:
    torch.manual_seed(0)
    rounder = fakes().Activation(Affine(0.05, -20), True)
    x = (torch.randn(4, 50) * 8).requires_grad_()
    y = rounder(x)
    v = x.detach().double() / rounder.scale.detach().double()
    edge = ((v + 108).abs() < 1) | ((v - 147).abs() < 1)  # where the two ways to round the edge differ
    upstream = torch.randn_like(y) * ~edge
    (y * upstream).sum().backward()
    inside = (v - 20 >= -128) & (v - 20 <= 127)
    assert not bool(inside.all())
    assert torch.equal(x.grad, upstream * inside)
    slope = torch.where(inside, v.round() - v, torch.where(v < 0, torch.tensor(-108.0).double(), torch.tensor(147.0).double()))
    wanted = float((slope * upstream.double()).sum()) / np.sqrt(50 * 127)
    assert float(rounder.scale.grad) == pytest.approx(wanted, rel=1e-3)


def test_a_weights_scale_follows_its_range_or_is_learned_and_zeros_stay() -> None:
    w = torch.tensor([[0.5, -1.0, 0.0], [0.0, 0.25, 0.1]])
    follows = fakes().Weight(w, torch.ones(2), 0, 4, False, True)
    assert torch.allclose(follows(2 * w), torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.5, 0.25]]))
    learned = fakes().Weight(w, torch.tensor([0.25, 0.05]), 0, 4, True, True)
    assert torch.allclose(learned(w + 0.1), torch.tensor([[0.5, -1.0, 0.0], [0.0, 0.2, 0.2]]))
    assert fakes().Weight(w, torch.ones(2), 0, 4, False, False).mask is None


@pytest.fixture(scope="module")
def digits() -> Any:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn brings the digits")
    data = datasets.load_digits()
    images = (data.images / 16 * 255).astype("uint8")[..., None]
    return splits_of({"all": (images, data.target)}, preprocess=Preprocess(mean=(0.3,), std=(0.4,), colour="GREY"))


@pytest.fixture(scope="module")
def context(digits: Any, avx2: Any) -> Context:
    """Weights of three bits: calibration alone damages the net."""
    return avx2(weight_max=3, task=TASK, train=digits.train, val=digits.val, calib=digits.calib)


@pytest.fixture(scope="module")
def floating(context: Context) -> Bundle:
    torch.manual_seed(0)
    bundle = Bundle.capture(Mobile(), (torch.zeros(2, 1, 8, 8),), name="digits", task="classification")
    settings = {"epochs": 14, "lr": 0.1, "batch-size": 64, "augment": "none"}
    return run_passes(bundle, [make_pass("finetune", settings)], context)


def score(bundle: Bundle, samples: Any) -> float:
    outputs, targets = outputs_of(bundle, samples)
    value = TASK.score(outputs, targets).value
    assert isinstance(value, float)
    return value


def qat(floating: Bundle, context: Context, **settings: Any) -> Bundle:
    chosen = {"epochs": 6, "batch-size": 64, "augment": "none", "min-steps": 0, **settings}
    return run_passes(floating, [make_pass("qat", chosen)], dataclasses.replace(context, teacher=floating))


def digest(bundle: Bundle) -> str:
    told = hashlib.sha256()
    for name, value in sorted(bundle.graph.state_dict().items()):
        told.update(name.encode() + value.numpy().tobytes())
    return told.hexdigest()


@pytest.fixture(scope="module")
def recovered(floating: Bundle, context: Context) -> Bundle:
    return qat(floating, context)


def test_it_brings_back_what_calibration_alone_loses(floating: Bundle, recovered: Bundle, context: Context, digits: Any) -> None:
    whole = score(floating, digits.test)
    static = score(run_passes(floating, [make_pass("quantize", {})], context), digits.test)
    assert static < whole - 0.05
    assert score(recovered, digits.test) > static + 0.6 * (whole - static)
    told = recovered.history[-1].changes
    before, best = told["validation"]
    assert best > before
    assert told["teacher"] == "digits"
    assert score(recovered, digits.val) == pytest.approx(best, abs=0.006)  # one image of 180 may fall to the other side of a tie


def test_the_file_gives_what_the_training_graph_gave(recovered: Bundle, digits: Any, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    from packlight.export.exporter import Options
    from packlight.export.run import export_bundle
    from packlight.targets.load import load_target

    (artifact,) = export_bundle(recovered, tmp_path, ["onnx"], Options(precision="int8"), load_target("x86-64-avx2"), digits.test)
    (x,), _ = digits.test.batch(range(len(digits.test)))
    session = ort.InferenceSession(tmp_path / artifact.file, providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: x})[0]
    want = recovered.run(torch.from_numpy(x))[0].numpy()
    assert sqnr_db(want, got) > 30
    assert np.mean(got.argmax(1) == want.argmax(1)) > 0.98
    assert artifact.ops is not None
    assert artifact.ops.optimised is not None
    assert artifact.ops.optimised["QLinearConv"] == 7, (artifact.ops, artifact.notes)


def test_a_run_that_stopped_goes_on_and_ends_the_same(floating: Bundle, context: Context, tmp_path: Path, monkeypatch: Any) -> None:
    from packlight.compress import train

    whole = qat(floating, context, epochs=2)

    class Killed(Exception):
        pass

    save = train._Run._save

    def save_once(run: Any) -> None:
        save(run)
        raise Killed

    kept = dataclasses.replace(context, work=tmp_path)
    monkeypatch.setattr(train._Run, "_save", save_once)
    with pytest.raises(Killed):
        qat(floating, kept, epochs=2)
    monkeypatch.undo()
    said: list[str] = []

    class Hear:
        def say(self, text: str) -> None:
            said.append(text)

        def step(self, *_: Any) -> None:
            pass

    again = qat(floating, dataclasses.replace(kept, progress=Hear()), epochs=2)
    assert any("goes on from step" in line for line in said)
    assert digest(again) == digest(whole)


def test_pruned_channels_and_pruned_weights_stay_pruned(floating: Bundle, context: Context) -> None:
    pruned = run_passes(floating, [make_pass("prune", {"macs": 0.6})], context)
    graph = pruned.copy_graph()
    names = [n for n, p in graph.named_parameters() if p.ndim == 4]
    gone = {}
    with torch.no_grad():
        for name in names:
            weight = graph.get_parameter(name)
            gone[name] = weight.abs() < weight.abs().median()
            weight[gone[name]] = 0
    sparse = pruned.replace(graph=graph)
    after = qat(sparse, context, epochs=1)
    stored = after.graph.state_dict()
    for name in names:
        assert stored[name].dtype == torch.int8
        assert stored[name].shape == graph.get_parameter(name).shape
        assert not bool(stored[name][gone[name]].any())
        assert bool(stored[name].any())


@pytest.mark.parametrize(
    ("settings", "told"), [({"calibrator": "median"}, "calibrator is 'median'"), ({"percentile": 5}, "percentile is 5")]
)
def test_settings_are_checked(settings: dict[str, Any], told: str) -> None:
    from packlight.core.errors import RecipeError

    with pytest.raises(RecipeError, match=told):
        make_pass("qat", settings)


def test_what_it_can_do_nothing_with_is_refused(context: Context, floating: Bundle, recovered: Bundle) -> None:
    from packlight.core.errors import RecipeError

    with pytest.raises(RecipeError, match="quantized already"):
        qat(recovered, context)
    with pytest.raises(RecipeError, match="no layer can become integer"):
        qat(floating, context, **{"keep-float": ["*"]})
    with pytest.raises(RecipeError, match="training needs training data"):
        qat(floating, dataclasses.replace(context, train=None))
