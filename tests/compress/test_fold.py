"""Folding BatchNorm: the formula against a layer that computes it, and graphs against the model that was traced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from packlight.compress.fold import FoldBatchNorm, fold_affine
from packlight.compress.passes import Context, run_passes
from packlight.core.bundle import Bundle


@pytest.fixture
def context(avx2: Callable[..., Context]) -> Context:
    return avx2()


def settled(module: nn.Module, *shape: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean = torch.randn_like(m.running_mean)
            m.running_var = torch.rand_like(m.running_var) + 0.1
            if m.affine:
                nn.init.uniform_(m.weight, -1.5, 1.5)
                nn.init.normal_(m.bias)
    return module.eval(), torch.randn(shape)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)), (2, 3, 9, 9)),
    "conv bias": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (2, 3, 9, 9)),
    "conv same": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8)), (2, 3, 9, 9)),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)), (2, 4, 9, 9)),
    "no affine": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)), (2, 3, 9, 9)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8)), (2, 3, 5, 5)),
    "transposed grouped": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (2, 4, 5, 5)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8)), (2, 3, 9)),
    "linear": (lambda: nn.Sequential(nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8)), (3, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_before_and_after_compute_the_same(name: str, context: Context) -> None:
    make, shape = LAYERS[name]
    module, x = settled(make(), *shape)
    bundle = Bundle.capture(module, (x,))
    folded = run_passes(bundle, [FoldBatchNorm()], context)
    assert "batch_norm" not in str(folded.graph.graph)
    assert torch.allclose(folded.run(x)[0], module(x), atol=1e-5, rtol=1e-5)
    assert set(folded.graph.state_dict()) == {"0.weight", "0.bias"}


@pytest.mark.parametrize(("axis", "groups"), [(0, 1), (1, 1), (1, 3)])
def test_formula_is_the_layer_followed_by_scale_and_shift(axis: int, groups: int) -> None:
    torch.manual_seed(0)
    if axis == 0:
        layer: nn.Module = nn.Conv2d(6, 9, 3).double()
        apply = torch.nn.functional.conv2d
        x, extra = torch.randn(2, 6, 7, 7).double(), {}
    else:
        layer = nn.ConvTranspose2d(6, 9, 3, groups=groups).double()
        apply, x, extra = torch.nn.functional.conv_transpose2d, torch.randn(2, 6, 7, 7).double(), {"groups": groups}
    scale, shift = torch.randn(9).double(), torch.randn(9).double()
    weight, bias = fold_affine(layer.weight, layer.bias, scale, shift, axis, groups)
    wanted = layer(x) * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)
    assert torch.allclose(apply(x, weight, bias, **extra), wanted, atol=1e-12)


class Awkward(nn.Module):
    """One BatchNorm after an addition, one whose convolution is read twice, one after a shared convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.after_add, self.read_twice, self.fine = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(x)
        return self.after_add(x + self.read_twice(y) + y) + self.fine(self.a(x))


def test_what_cannot_be_folded_stays_and_says_why(context: Context) -> None:
    module, x = settled(Awkward(), 2, 3, 4, 4)
    folded = run_passes(Bundle.capture(module, (x,)), [FoldBatchNorm()], context)
    changes = folded.history[-1].changes
    assert changes["folded"] == 1
    assert "aten.add.Tensor" in changes["kept"]["after_add"]
    assert "read elsewhere" in changes["kept"]["read_twice"]
    assert torch.allclose(folded.run(x)[0], module(x), atol=1e-5)


def test_a_model_without_batchnorm_is_given_back(context: Context) -> None:
    bundle = Bundle.capture(nn.Conv2d(3, 4, 3).eval(), (torch.randn(2, 3, 8, 8),))
    folded = run_passes(bundle, [FoldBatchNorm()], context)
    assert folded.graph is bundle.graph
    assert folded.history[-1].changes["changed"] is False


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "dcgan", "unet", "crnn"])
def test_zoo_is_equal_up_to_rounding_and_survives_the_disk(name: str, captured: Callable[..., Bundle], context: Context, tmp_path) -> None:
    bundle = captured(name)
    folded = run_passes(bundle, [FoldBatchNorm()], context)
    assert "batch_norm" not in str(folded.graph.graph)
    before, after = bundle.run(*bundle.samples)[0], folded.run(*bundle.samples)[0]
    assert float((before - after).norm() / before.norm()) < 1e-5
    again = Bundle.load(folded.save(tmp_path / "b"))
    assert torch.equal(again.run(*bundle.samples)[0], after)
    one = folded.export(batch=1).module()(bundle.samples[0][:1])
    assert torch.allclose(one, after[:1], atol=1e-5)


def test_resnet20_of_the_shared_models_is_equal(shared, context: Context) -> None:
    import importlib.util

    from safetensors.torch import load_file

    spec = importlib.util.spec_from_file_location("cifar_resnet", shared / "models" / "cifar_resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.resnet20()
    net.load_state_dict(load_file(shared / "models" / "cifar10-resnet20.safetensors"))
    bundle = Bundle.capture(net, (torch.randn(4, 3, 32, 32),))
    folded = run_passes(bundle, [FoldBatchNorm()], context)
    assert folded.history[-1].changes == {"folded": 19, "kept": {}}
    assert "layer1.0.conv1.bias" in folded.graph.state_dict()
    assert torch.allclose(folded.run(*bundle.samples)[0], net(*bundle.samples), atol=1e-4)
