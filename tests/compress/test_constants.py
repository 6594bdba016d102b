"""What depends on weights alone is computed once: the same outputs, and a layer that reads a stored weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from packlight.compress.constants import fold_constants
from packlight.compress.graph import weight_of
from packlight.compress.passes import Context, run_passes
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 4)
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("mask", (torch.rand(8, 3, 1, 1) > 0.4).float())

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(nn.functional.conv2d(x, self.conv.weight * self.mask))
        return self.head(x.relu().mean((2, 3)))


class Moved(nn.Module):
    """A weight read transposed and in part, and noise: nothing to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.t()[:, :5] + torch.zeros(5)


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.arange(7))


def captured(module: nn.Module, *shape: int) -> Bundle:
    return Bundle.capture(module.eval(), [torch.randn(shape)], name="m")


def test_a_masked_weight_is_stored_under_the_layers_name(avx2: Callable[..., Context]) -> None:
    torch.manual_seed(0)
    module = Masked()
    bundle = captured(module, 4, 3, 9, 9)
    done = run_passes(bundle, [make_pass("fold-batchnorm", {})], avx2())
    assert "mask" not in done.graph.state_dict()
    assert not any(str(n.target).startswith(("aten.mul", "aten.batch_norm")) for n in done.graph.graph.nodes)
    x = torch.randn(4, 3, 9, 9)
    torch.testing.assert_close(done.run(x)[0], module(x), rtol=1e-4, atol=1e-5)


def test_a_masked_layer_becomes_integer(in_int8: Any) -> None:
    torch.manual_seed(0)
    integer, _ = in_int8(Masked(), torch.randn(16, 3, 9, 9))
    assert len(integer.quantized["layers"]) == 2
    assert integer.quantized["float"] == {}


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_a_normalised_weight(norm: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), norm(nn.Conv2d(4, 4, 3, bias=False)))
    bundle = captured(module, 2, 3, 8, 8)
    graph = bundle.copy_graph()
    assert len(fold_constants(graph)) == 2
    for node in graph.graph.nodes:
        if str(node.target).startswith("aten.conv"):
            assert weight_of(graph, node.args[1]) is not None
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(graph(x), module(x))


def test_a_looked_up_table_is_a_constant() -> None:
    bundle = captured(Positions(), 2, 7, 4)
    graph = bundle.copy_graph()
    assert len(fold_constants(graph)) == 1
    x = torch.randn(2, 7, 4)
    assert torch.equal(graph(x), bundle.run(x)[0])


def test_moved_weights_and_plain_zeros_stay() -> None:
    graph = captured(Moved(), 2, 4).copy_graph()
    before = [str(n.target) for n in graph.graph.nodes]
    assert fold_constants(graph) == []
    assert [str(n.target) for n in graph.graph.nodes] == before
