"""Each operator against torch: the file is run in LiteRT with and without XNNPACK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def _written_into(x: Tensor) -> Tensor:
    """Numbers put into an image of zeros: at one place, from a place on, broadcast, from the end."""
    y = torch.zeros(x.shape[0], 4, 5, 6)
    y[:, 1] = x[:, 0, :5, :6]
    y[:, 2:, 1:3] = x[:, :2, 2:4, :6]
    y[:, 0, :, 2] = 1.5
    y[:, 3, 2:, -2:] = x[:, 2, :1, :1]
    return y * 2


IMAGE, LINE, ROWS, VIDEO, PIXEL = (2, 4, 9, 8), (2, 4, 11), (3, 6), (1, 3, 4, 5, 6), (2, 5, 1, 1)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv": (lambda: nn.Conv2d(4, 6, 3), IMAGE),
    "conv same": (lambda: nn.Conv2d(4, 6, 3, padding=1), IMAGE),
    "conv stride odd": (lambda: nn.Conv2d(4, 6, 3, 2, 1), IMAGE),
    "conv 5x3 stride": (lambda: nn.Conv2d(4, 6, (5, 3), (2, 1), (2, 0), bias=False), IMAGE),
    "conv dilated": (lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2), IMAGE),
    "conv grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    "conv depthwise": (lambda: nn.Conv2d(4, 4, 3, 2, 1, groups=4), IMAGE),
    "conv depthwise x3": (lambda: nn.Conv2d(4, 12, 3, groups=4), IMAGE),
    "conv even kernel, named same": (lambda: nn.Conv2d(4, 6, 4, padding="same"), IMAGE),
    "conv reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    "conv circular": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), IMAGE),
    "conv one channel": (lambda: nn.Conv2d(1, 1, 3), (1, 1, 6, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, 2, 1), LINE),
    "conv1d depthwise": (lambda: nn.Conv1d(4, 4, 5, padding=2, groups=4), LINE),
    "conv1d chain": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 5, 3)), LINE),
    "conv bn relu6": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU6()), IMAGE),
    "transposed": (lambda: nn.ConvTranspose2d(4, 5, 3, 2), IMAGE),
    "transposed k2 s2": (lambda: nn.ConvTranspose2d(4, 5, 2, 2), IMAGE),
    "transposed k4 s2 p1": (lambda: nn.ConvTranspose2d(4, 5, 4, 2, 1), IMAGE),
    "transposed k3 s2 p1 o1": (lambda: nn.ConvTranspose2d(4, 5, 3, 2, 1, 1), IMAGE),
    "transposed k2 s3 o2": (lambda: nn.ConvTranspose2d(4, 5, 2, 3, 0, 2), IMAGE),
    "transposed dilated": (lambda: nn.ConvTranspose2d(4, 5, 3, 2, 1, dilation=2), IMAGE),
    "transposed grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2), IMAGE),
    "transposed depthwise": (lambda: nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4), IMAGE),
    "transposed depthwise o1": (lambda: nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=4), IMAGE),
    "transposed bn relu": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU()), IMAGE),
    "transposed pixel": (lambda: nn.ConvTranspose2d(5, 6, 4), PIXEL),
    "transposed pixel p1 o1": (lambda: nn.ConvTranspose2d(5, 6, 4, 2, 1, 1), PIXEL),
    "transposed pixel same": (lambda: nn.ConvTranspose2d(5, 6, (3, 4), (1, 2), 1, (0, 1)), PIXEL),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 5, 4, 2, 1), LINE),
    "conv3d": (lambda: nn.Conv3d(3, 5, (2, 3, 3), (1, 2, 1), (0, 1, 1)), VIDEO),
    "max pool 3d": (lambda: nn.MaxPool3d((2, 3, 3), (1, 2, 1), (0, 1, 1)), VIDEO),
    "average pool 3d": (lambda: nn.AvgPool3d((2, 3, 3), (1, 2, 1), (0, 1, 1)), VIDEO),
    "linear": (lambda: nn.Linear(6, 5), ROWS),
    "linear of images": (lambda: nn.Linear(8, 5), IMAGE),
    "linear relu": (lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU()), ROWS),
    "bilinear layer": (lambda: nn.Linear(11, 3), LINE),
    "batch norm": (lambda: nn.BatchNorm2d(4), IMAGE),
    "batch norm 1d": (lambda: nn.BatchNorm1d(6), ROWS),
    "instance norm": (lambda: nn.InstanceNorm2d(4), IMAGE),
    "instance norm affine": (lambda: nn.Sequential(nn.InstanceNorm2d(4, affine=True), nn.ReLU()), IMAGE),
    "instance norm tracked": (lambda: nn.InstanceNorm2d(4, track_running_stats=True), IMAGE),
    "layer norm": (lambda: nn.LayerNorm(6), ROWS),
    "layer norm images": (lambda: nn.LayerNorm([4, 9, 8]), IMAGE),
    "group norm": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.ReLU()), IMAGE),
    "local response": (lambda: nn.LocalResponseNorm(3), IMAGE),
    "prelu": (lambda: nn.PReLU(4), IMAGE),
    "prelu one": (lambda: nn.PReLU(), IMAGE),
    "prelu rows": (lambda: nn.PReLU(6), ROWS),
    "max pool": (lambda: nn.MaxPool2d(2), IMAGE),
    "max pool padded": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "max pool ceil": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), IMAGE),
    "max pool uneven": (lambda: nn.MaxPool2d((2, 2), (2, 1), (0, 1)), IMAGE),
    "max pool dilated": (lambda: nn.MaxPool2d(3, 1, 1, dilation=2), IMAGE),
    "max pool 1d": (lambda: nn.MaxPool1d(3, 2, 1), LINE),
    "average pool": (lambda: nn.AvgPool2d(2), IMAGE),
    "average pool padded": (lambda: nn.AvgPool2d(3, 2, 1), IMAGE),
    "average pool uncounted": (lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False), IMAGE),
    "average pool uncounted stride": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "average pool ceil": (lambda: nn.AvgPool2d(3, 2, ceil_mode=True), IMAGE),
    "average pool 1d": (lambda: nn.AvgPool1d(3, 2, 1), LINE),
    "adaptive average 1": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive average 3x2": (lambda: nn.AdaptiveAvgPool2d((3, 2)), IMAGE),
    "adaptive average 5x3": (lambda: nn.AdaptiveAvgPool2d((5, 3)), IMAGE),
    "adaptive average keeps": (lambda: nn.AdaptiveAvgPool2d((None, 1)), IMAGE),
    "adaptive average 1d": (lambda: nn.AdaptiveAvgPool1d(3), LINE),
    "adaptive max 1": (lambda: nn.AdaptiveMaxPool2d(1), IMAGE),
    "adaptive max 4x3": (lambda: nn.AdaptiveMaxPool2d((4, 3)), IMAGE),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), IMAGE),
    "conv pixel shuffle": (lambda: nn.Sequential(nn.Conv2d(4, 12, 3), nn.ReLU(), nn.PixelShuffle(2)), IMAGE),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (1, 3, 4, 6)),
    "channel shuffle": (lambda: nn.ChannelShuffle(2), (1, 6, 3, 3)),
    "lstm": (lambda: _First(nn.LSTM(6, 5)), (4, 2, 6)),
    "lstm two ways": (lambda: _First(nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True)), (2, 3, 6)),
    "lstm one step": (lambda: _First(nn.LSTM(6, 5, bias=False)), (1, 2, 6)),
    "gru": (lambda: _First(nn.GRU(6, 5, batch_first=True)), (2, 4, 6)),
    "gru two ways": (lambda: _First(nn.GRU(6, 5, 2, bidirectional=True)), (3, 2, 6)),
    "rnn": (lambda: _First(nn.RNN(6, 5)), (3, 2, 6)),
    "rnn relu": (lambda: _First(nn.RNN(6, 5, nonlinearity="relu")), (3, 2, 6)),
    "attention": (lambda: _Attention(), (2, 5, 8)),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), (2, 5, 8)),
    "padding reflect": (lambda: nn.ReflectionPad2d((1, 2, 3, 0)), IMAGE),
    "padding replicate": (lambda: nn.ReplicationPad2d(2), IMAGE),
    "padding constant": (lambda: nn.ConstantPad2d((1, 0, 2, 1), 0.5), IMAGE),
    "padding zero": (lambda: nn.ZeroPad2d(1), IMAGE),
}


class _First(nn.Module):
    """A recurrent layer's outputs and last states, flat."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out, states = self.layer(x)
        return (out, *states) if isinstance(states, tuple) else (out, states)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=True)[0] + self.attention(x, x, x, need_weights=False)[0]


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "relu": (F.relu, IMAGE),
    "relu6": (F.relu6, IMAGE),
    "hardtanh": (F.hardtanh, IMAGE),
    "clamp": (lambda x: x.clamp(-0.5, 0.7), IMAGE),
    "clamp min": (lambda x: x.clamp(min=0.1), IMAGE),
    "clamp by tensors": (lambda x: x.clamp(x * 0.5, x * 0.5 + 1), IMAGE),
    "leaky": (lambda x: F.leaky_relu(x, 0.2), IMAGE),
    "silu": (F.silu, IMAGE),
    "hardswish": (F.hardswish, IMAGE),
    "hardsigmoid": (F.hardsigmoid, IMAGE),
    "gelu": (F.gelu, IMAGE),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), IMAGE),
    "sigmoid": (torch.sigmoid, IMAGE),
    "tanh": (torch.tanh, IMAGE),
    "elu": (F.elu, IMAGE),
    "elu alpha": (lambda x: F.elu(x, 0.5), IMAGE),
    "selu": (F.selu, IMAGE),
    "celu": (lambda x: F.celu(x, 1.5), IMAGE),
    "mish": (F.mish, IMAGE),
    "softplus": (lambda x: F.softplus(x * 30), IMAGE),
    "logsigmoid": (F.logsigmoid, IMAGE),
    "softsign": (F.softsign, IMAGE),
    "tanhshrink": (F.tanhshrink, IMAGE),
    "glu": (lambda x: F.glu(x, 1), IMAGE),
    "softmax channels": (lambda x: F.softmax(x, 1), IMAGE),
    "softmax last": (lambda x: F.softmax(x, -1), ROWS),
    "log softmax": (lambda x: F.log_softmax(x, 1), ROWS),
    "add": (lambda x: x + x.flip(2), IMAGE),
    "add row": (lambda x: x + x[:, :, :1, :1], IMAGE),
    "add lower rank": (lambda x: x + x[0, 0], IMAGE),
    "add number": (lambda x: x + 1.5, IMAGE),
    "subtract": (lambda x: 1 - x, IMAGE),
    "multiply": (lambda x: x * x[:1] * 2, IMAGE),
    "divide": (lambda x: x / (x.abs() + 1) / 3, IMAGE),
    "divide into": (lambda x: 2 / (x.abs() + 1), IMAGE),
    "floor divide": (lambda x: torch.floor_divide(x, 0.3), IMAGE),
    "remainder": (lambda x: x % 0.5, IMAGE),
    "power": (lambda x: x**2 + x**3 + (x.abs() + 0.1) ** 0.5 + (x.abs() + 0.1) ** -0.5 + (x.abs() + 1) ** -1 + x.abs() ** 1.7, IMAGE),
    "power of tensors": (lambda x: (x.abs() + 0.1) ** x + 2.0**x, IMAGE),
    "roots": (lambda x: torch.sqrt(x.abs()) + torch.rsqrt(x.abs() + 1) + torch.reciprocal(x.abs() + 1), IMAGE),
    "exponents": (lambda x: torch.exp(x) + torch.log(x.abs() + 1) + torch.log1p(x.abs()) + torch.log2(x.abs() + 1), IMAGE),
    "waves": (lambda x: torch.sin(x) + torch.cos(x), IMAGE),
    "rounding": (lambda x: torch.floor(x * 3) + torch.ceil(x * 5) + torch.round(x * 7) + torch.sign(x) + x.abs() - (-x), IMAGE),
    "square": (torch.square, IMAGE),
    "minimum": (lambda x: torch.minimum(x, x.flip(3)) + torch.maximum(x, x[:, :1]), IMAGE),
    "where": (lambda x: torch.where(x > 0.2, x, x * 0.1 - 1), IMAGE),
    "where number": (lambda x: torch.where(x <= 0.2, 0.0, x), IMAGE),
    "masked fill": (lambda x: x.masked_fill(x[:, :1] > 0, -2.0), IMAGE),
    "comparisons": (lambda x: ((x == x) & (x != 0) & (x < 1) & (x >= -1)) | ~(x > 0.5), IMAGE),
    "numbers written into zeros": (_written_into, IMAGE),
    "mean": (lambda x: x.mean((2, 3)), IMAGE),
    "mean channels": (lambda x: x.mean(1, keepdim=True), IMAGE),
    "mean all": (lambda x: x.mean(), IMAGE),
    "sum": (lambda x: x.sum(2), IMAGE),
    "sum all": (lambda x: x.sum(), ROWS),
    "max": (lambda x: x.max(1)[0], IMAGE),
    "max all": (lambda x: x.max() - x.min(), IMAGE),
    "max with place": (lambda x: x.max(1), IMAGE),
    "min with place": (lambda x: x.min(2, keepdim=True), IMAGE),
    "amax": (lambda x: x.amax((2, 3)) - x.amin((2, 3)), IMAGE),
    "argmax": (lambda x: x.argmax(1), IMAGE),
    "argmax keep": (lambda x: x.argmax(1, keepdim=True), IMAGE),
    "argmax all": (lambda x: x.argmax(), ROWS),
    "argmin": (lambda x: x.argmin(-1), ROWS),
    "product": (lambda x: x.prod(1), IMAGE),
    "any": (lambda x: (x > 1).any(1), IMAGE),
    "variance": (lambda x: x.var((2, 3)) + x.std((2, 3), unbiased=False), IMAGE),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=1) + torch.linalg.vector_norm(x, ord=1, dim=1), IMAGE),
    "normalize": (lambda x: F.normalize(x, dim=1), IMAGE),
    "logsumexp": (lambda x: x.logsumexp(1), IMAGE),
    "cumsum": (lambda x: x.cumsum(1), IMAGE),
    "topk": (lambda x: torch.topk(x, 3), ROWS),
    "topk smallest channels": (lambda x: torch.topk(x, 2, dim=1, largest=False), IMAGE),
    "cat": (lambda x: torch.cat([x, x * 2, x[:, :1]], 1), IMAGE),
    "cat of types": (lambda x: torch.cat([x, (x > 0).long()], 1), IMAGE),
    "cat rows": (lambda x: torch.cat([x, x], 2), IMAGE),
    "stack": (lambda x: torch.stack([x, x * 2], 1), IMAGE),
    "stack last": (lambda x: torch.stack([x, x * 2], -1), ROWS),
    "split": (lambda x: torch.split(x, 3, 1), ROWS),
    "split unequal": (lambda x: torch.split(x, [1, 2, 3], 1), ROWS),
    "chunk channels": (lambda x: [c * 2 for c in x.chunk(2, 1)], IMAGE),
    "unbind": (lambda x: torch.unbind(x, 1), IMAGE),
    "select": (lambda x: x[:, 1] + x[:, -1], IMAGE),
    "slice": (lambda x: x[:, 1:3, ::2, -5:-1], IMAGE),
    "slice beyond": (lambda x: x[:, :, 2:100], IMAGE),
    "index": (lambda x: x[:, [2, 0, 1]] + x[:, [0, 1, 2]], IMAGE),
    "index select": (lambda x: x.index_select(2, torch.tensor([0, 4, 4, 1])), IMAGE),
    "flip": (lambda x: x.flip(1) + x.flip((2, 3)), IMAGE),
    "roll": (lambda x: x.roll((1, -2), (1, 3)), IMAGE),
    "narrow": (lambda x: x.narrow(1, 1, 2), IMAGE),
    "flatten": (lambda x: x.flatten(1), IMAGE),
    "flatten pixels": (lambda x: x.flatten(2).transpose(1, 2), IMAGE),
    "reshape": (lambda x: x.reshape(2, 2, 2, 9, 8).transpose(1, 2).reshape(2, 4, 9, 8), IMAGE),
    "permute": (lambda x: x.permute(0, 2, 3, 1).contiguous() * 2, IMAGE),
    "permute back": (lambda x: (x.permute(0, 2, 3, 1) + 1).permute(0, 3, 1, 2), IMAGE),
    "squeeze": (lambda x: x[:, :1].squeeze(1).unsqueeze(-1), IMAGE),
    "expand": (lambda x: x[:, :1].expand(-1, 3, -1, -1) * 1.0, IMAGE),
    "expand out": (lambda x: x[:, :1].expand(-1, 3, -1, -1), IMAGE),
    "repeat": (lambda x: x.repeat(1, 2, 1, 3), IMAGE),
    "tile": (lambda x: torch.tile(x, (2,)), ROWS),
    "pad negative": (lambda x: F.pad(x, (-1, 2, 1, -2)), IMAGE),
    "pad circular": (lambda x: F.pad(x, (1, 2, 2, 0), mode="circular"), IMAGE),
    "pad channels": (lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)), IMAGE),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), IMAGE),
    "bilinear corners": (lambda x: F.interpolate(x, size=(13, 5), mode="bilinear", align_corners=True), IMAGE),
    "bilinear odd scale": (lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"), IMAGE),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    "nearest size": (lambda x: F.interpolate(x, size=(7, 13)), IMAGE),
    "nearest exact": (lambda x: F.interpolate(x, size=(7, 13), mode="nearest-exact"), IMAGE),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), IMAGE),
    "bicubic antialias": (lambda x: F.interpolate(x, size=(4, 5), mode="bicubic", antialias=True), IMAGE),
    "area": (lambda x: F.interpolate(x, size=(4, 3), mode="area"), IMAGE),
    "nearest 1d": (lambda x: F.interpolate(x, scale_factor=2), LINE),
    "linear 1d": (lambda x: F.interpolate(x, scale_factor=2, mode="linear"), LINE),
    "matmul": (lambda x: x @ x.transpose(-1, -2), IMAGE),
    "matmul constant": (lambda x: x @ torch.linspace(-1, 1, 40).reshape(8, 5), IMAGE),
    "matmul vector": (lambda x: x @ torch.linspace(-1, 1, 6), ROWS),
    "bmm": (lambda x: torch.bmm(x, x.transpose(1, 2)), LINE),
    "addmm": (lambda x: torch.addmm(x[:, :3], x, x.t(), beta=0.5, alpha=2), ROWS),
    "einsum": (lambda x: torch.einsum("nchw,nkhw->nck", x, x), IMAGE),
    "sdpa": (lambda x: F.scaled_dot_product_attention(x, x, x), IMAGE),
    "sdpa causal": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), IMAGE),
    "sdpa mask": (lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(9, 9).tril().bool()), IMAGE),
    "outer": (lambda x: torch.outer(x[0], x[1]), ROWS),
    "instance norm by hand": (lambda x: (x - x.mean((2, 3), True)) / (x.var((2, 3), keepdim=True) + 1e-5).sqrt(), IMAGE),
    "cosine": (lambda x: F.cosine_similarity(x, x.flip(1), dim=1), IMAGE),
    "squeeze excite": (lambda x: x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)), IMAGE),
    "video": (lambda x: x.mean(2) + x[:, :, 0], VIDEO),
    "three axes permuted": (lambda x: x.permute(2, 0, 1) + 1, LINE),
    "windows": (lambda x: x.reshape(2, 4, 3, 3, 8).permute(0, 2, 1, 3, 4).reshape(6, 4, 3, 8), IMAGE),
    "types": (lambda x: (x > 0).float() + (x * 3).to(torch.int32).float() + (x * 2).long(), IMAGE),
    "constant output": (lambda x: (x, torch.ones(2, 2)), ROWS),
    "input as output": (lambda x: (x, x + 1), IMAGE),
    "dropout": (lambda x: F.dropout(x, 0.5, False) + 1, IMAGE),
    "zeros like": (lambda x: x + torch.zeros_like(x) + torch.full_like(x, 2.0), IMAGE),
    "unfold": (lambda x: F.unfold(x, 3), IMAGE),
    "meshgrid": (lambda x: x * torch.meshgrid(torch.arange(9.0), torch.arange(8.0), indexing="ij")[0], IMAGE),
}


class Several(nn.Module):
    """Many operators of one input, one file: tracing and loading are what a test costs."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts.values())

    def forward(self, x: Tensor) -> list[Any]:
        return [part(x) for part in self.parts]


def _grouped(size: int = 12) -> dict[str, list[str]]:
    """Cases with the same input shape, ``size`` at a time."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, (_, shape) in (LAYERS | FUNCTIONS).items():  # type: ignore[operator]
        groups.setdefault(shape, []).append(name)
    pieces = [names[i : i + size] for names in groups.values() for i in range(0, len(names), size)]
    return {f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]: names for names in pieces}


GROUPS = _grouped()


def _module(name: str) -> nn.Module:
    if name in FUNCTIONS:
        return Calls(FUNCTIONS[name][0])
    module = LAYERS[name][0]()
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._NormBase) and m.running_mean is not None:
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    return module


@pytest.mark.parametrize("group", GROUPS)
def test_float(same_as_torch: Callable[..., Any], group: str) -> None:
    torch.manual_seed(0)
    names = GROUPS[group]
    modules = {name: _module(name).eval() for name in names}
    shape = (LAYERS | FUNCTIONS)[names[0]][1]  # type: ignore[operator]
    x = torch.randn(shape)
    with torch.no_grad():
        counts = [len(torch.utils._pytree.tree_leaves(m(x))) for m in modules.values()]
    told = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    same_as_torch(Several(modules), x, names=told)


def test_integer_input(same_as_torch: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    same_as_torch(nn.Embedding(7, 5), torch.tensor([[0, 3, 6], [1, 1, 2]]))
