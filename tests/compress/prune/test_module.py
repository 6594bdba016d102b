"""The user's own module, made smaller: it computes what the pruned graph computes, and is stored without pickling."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from zoo import ZOO

from packlight.compress.prune.module import prune_module, restore
from packlight.compress.prune.plan import PruneSettings
from packlight.core.errors import ModelError


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet", "superres", "gruvideo", "crnn"])
def test_zoo(name: str, tmp_path: Path) -> None:
    model = ZOO[name]
    net = model.make()
    pruned = prune_module(net, [model.input(2)], PruneSettings(ratio=0.5))
    assert pruned.module.state_dict().keys() == net.state_dict().keys()
    assert sum(p.numel() for p in pruned.module.parameters()) < 0.6 * sum(p.numel() for p in net.parameters())
    assert all(p.shape == q.shape for p, q in zip(net.parameters(), model.make().parameters(), strict=True))
    save_file(pruned.module.state_dict(), tmp_path / "net.safetensors")
    again = restore(model.make(), pruned.attributes, load_file(tmp_path / "net.safetensors"))
    x = model.input(3)
    with torch.no_grad():
        torch.testing.assert_close(again(x), pruned.module(x))
        torch.testing.assert_close(again(x), pruned.bundle.run(x)[0], rtol=1e-4, atol=1e-5)


def test_layers_state_their_sizes() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.PReLU(8), nn.Conv2d(8, 4, 1))
    small = prune_module(net, [torch.randn(2, 3, 8, 8)], PruneSettings(ratio=0.5)).module
    assert (small[0].out_channels, small[1].num_features, small[2].groups, small[2].in_channels) == (4, 4, 4, 4)
    assert (small[3].num_parameters, small[4].in_channels, small[4].out_channels) == (4, 4, 4)


def test_numbers_in_the_forward_are_kept(shared: Path) -> None:
    """The padded shortcuts name their amounts, so the residual stream stays whole; inside the blocks channels go."""
    spec = importlib.util.spec_from_file_location("cifar_resnet", shared / "models" / "cifar_resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    small = prune_module(module.resnet20(), [torch.randn(2, 3, 32, 32)], PruneSettings(ratio=0.5)).module
    assert small.layer1[0].conv1.out_channels == 8
    assert small.layer1[0].conv2.out_channels == 16


class Stubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)).view(-1, 288))


def test_a_view_with_a_number_is_refused() -> None:
    with pytest.raises(ModelError, match="pruned Stubborn doesn't run .*forward holds sizes"):
        prune_module(Stubborn(), [torch.randn(2, 3, 8, 8)], PruneSettings(ratio=0.5))


def test_weights_of_another_module() -> None:
    with pytest.raises(ModelError, match="unknown: 7.weight; missing: 0.weight, 0.bias"):
        restore(nn.Sequential(nn.Linear(2, 2)), {}, {"7.weight": torch.zeros(2, 2)})


def test_several_layers_keep_one_size(prunes: Callable[..., None]) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0])

    small = prune_module(Tagger(), [torch.randn(2, 5, 6)], PruneSettings(ratio=0.5)).module
    assert (small.rnn.hidden_size, small.rnn.input_size, small.out.in_features) == (4, 6, 8)


class Block(nn.Module):
    """A transformer block that states its number of heads; ``tokens @ c`` of attention from a shape where ``shaped``."""

    def __init__(self, shaped: bool) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp, self.shaped = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)), shaped

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 4, 4 if self.shaped else -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c if self.shaped else -1)
        x = x + self.proj(y)
        return x + self.mlp(x)


class Torch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize("kind", ["inferred", "shaped", "torch"])
def test_attention_keeps_what_the_forward_says(kind: str) -> None:
    """Heads and what a written size may stand for stay; the hidden width of the MLP goes, and the stream where nothing names its width."""
    torch.manual_seed(0)
    middle = Torch() if kind == "torch" else Block(kind == "shaped")
    net = nn.Sequential(nn.Linear(6, 16), middle, nn.Linear(16, 3))
    x = torch.randn(2, 5, 6)
    pruned = prune_module(net, [x], PruneSettings(ratio=0.5))
    small = pruned.module
    assert small.state_dict().keys() == net.state_dict().keys()
    hidden = small[1].layer.linear1 if kind == "torch" else small[1].mlp[1]
    assert (hidden.out_features, small[0].out_features) == (16, 8 if kind == "inferred" else 16)
    with torch.no_grad():
        torch.testing.assert_close(small(x), pruned.bundle.run(x)[0], rtol=1e-4, atol=1e-5)
