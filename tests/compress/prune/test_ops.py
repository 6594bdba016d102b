"""Every operator family: random channels gone, the outputs equal those of the masked dense model, and the result exports again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """A module from layers and a function of them and the inputs."""

    def __init__(self, run: Callable[..., Any], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, nn.Module):
                setattr(self, name, layer)
            else:
                self.register_parameter(name, nn.Parameter(layer))
        self.run = run

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def image(channels: int = 3, size: int = 8) -> Tensor:
    return torch.randn(2, channels, size, size)


def head(channels: int, outputs: int = 5) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))


def between(layer: nn.Module, before: int = 8, after: int = 8) -> nn.Module:
    """conv -> layer -> conv."""
    return nn.Sequential(nn.Conv2d(3, before, 3, padding=1), layer, nn.Conv2d(after, 4, 3, padding=1))


def conv(a: int, b: int, k: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(a, b, k, padding=k // 2, **more)


EXPORTED = ("conv-many-groups", "view-with-sizes", "shuffle-by-hand", "slices", "padded-channels", "squeeze-excite-linear", "tied-weights")
CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {}


def case(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def file(make: Callable[[], Any]) -> Callable[[], Any]:
        CASES[name] = make
        return make

    return file


def layer_case(name: str, make: Callable[[], nn.Module], before: int = 8, after: int = 8) -> None:
    CASES[name] = lambda: (between(make(), before, after), (image(),))


layer_case("conv", lambda: conv(8, 8))
layer_case("conv-dilated", lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2))
layer_case("conv-same-padding", lambda: nn.Conv2d(8, 8, 3, padding="same"))
layer_case("conv-depthwise", lambda: conv(8, 8, groups=8))
layer_case("conv-depthwise-multiplier", lambda: conv(8, 16, groups=8), after=16)
layer_case("conv-two-groups", lambda: conv(8, 12, groups=2), after=12)
layer_case("conv-many-groups", lambda: conv(16, 16, groups=8), before=16, after=16)
layer_case("conv-transpose", lambda: nn.ConvTranspose2d(8, 6, 4, 2, 1, output_padding=1), after=6)
layer_case("conv-transpose-depthwise", lambda: nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8))
layer_case("conv-transpose-groups", lambda: nn.ConvTranspose2d(8, 12, 2, 2, groups=2), after=12)
layer_case("batch-norm", lambda: nn.BatchNorm2d(8))
layer_case("group-norm-whole", lambda: nn.GroupNorm(4, 8))
layer_case("group-norm-positions", lambda: nn.GroupNorm(2, 8))
layer_case("group-norm-one", lambda: nn.GroupNorm(1, 8))
layer_case("instance-norm", lambda: nn.InstanceNorm2d(8, affine=True))
layer_case("instance-norm-tracked", lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True))
layer_case("prelu", lambda: nn.PReLU(8))
layer_case("prelu-one", lambda: nn.PReLU())
layer_case(
    "activations", lambda: nn.Sequential(nn.ReLU(), nn.SiLU(), nn.GELU(), nn.Hardswish(), nn.ReLU6(), nn.ELU(), nn.Mish(), nn.Softplus())
)
layer_case("in-place", lambda: nn.Sequential(nn.LeakyReLU(0.1, inplace=True), nn.Hardtanh(inplace=True), nn.Dropout(0.1)))
layer_case("glu", lambda: nn.GLU(1), after=4)
layer_case("pixel-shuffle", lambda: nn.PixelShuffle(2), before=16, after=4)
layer_case("pixel-unshuffle", lambda: nn.PixelUnshuffle(2), after=32)
layer_case("channel-shuffle", lambda: nn.ChannelShuffle(2))
layer_case("pools", lambda: nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1), nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d(2)))
layer_case("upsample", lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Upsample(size=(9, 9))))
layer_case(
    "reflection-pad", lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.ReplicationPad2d(1), nn.ZeroPad2d(1), nn.ConstantPad2d(1, 0.5))
)
layer_case("fold-unfold", lambda: nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (8, 8))))


@case("conv-1d")
def _() -> Any:
    layers = [nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.ConvTranspose1d(8, 6, 2, 2), nn.InstanceNorm1d(6)]
    return nn.Sequential(*layers, nn.Conv1d(6, 4, 1)), (torch.randn(2, 3, 12),)


@case("conv-3d")
def _() -> Any:
    layers = [
        nn.Conv3d(3, 8, 3, padding=1),
        nn.BatchNorm3d(8),
        nn.AvgPool3d(2),
        nn.ConvTranspose3d(8, 6, 2, 2),
        nn.Conv3d(6, 6, 3, groups=6),
    ]
    return nn.Sequential(*layers, nn.Upsample(scale_factor=2), nn.Conv3d(6, 4, 1)), (torch.randn(2, 3, 4, 4, 4),)


@case("flatten-to-linear")
def _() -> Any:
    return nn.Sequential(conv(3, 8), nn.Flatten(), nn.Linear(8 * 16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4)), (image(3, 4),)


@case("view-with-sizes")
def _() -> Any:
    return Net(lambda m, x: m.fc(m.a(x).view(x.size(0), 8 * 16)), a=conv(3, 8), fc=nn.Linear(128, 4)), (image(3, 4),)


@case("linear-to-image")
def _() -> Any:
    run = lambda m, x: m.b(m.a(x).view(-1, 8, 4, 4))  # noqa: E731
    return Net(run, a=nn.Linear(10, 128), b=nn.ConvTranspose2d(8, 3, 4, 2, 1)), (torch.randn(2, 10),)


@case("residual")
def _() -> Any:
    return Net(lambda m, x: m.c(F.relu(m.a(x) + m.b(m.a(x)))), a=conv(3, 8), b=conv(8, 8), c=conv(8, 4)), (image(),)


@case("squeeze-excite")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.c(y * torch.sigmoid(m.up(F.relu(m.down(y.mean((2, 3), keepdim=True))))))

    return Net(run, a=conv(3, 8), down=conv(8, 4, 1), up=conv(4, 8, 1), c=conv(8, 4)), (image(),)


@case("squeeze-excite-linear")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        b, c, _, _ = y.shape
        scale = m.up(F.relu(m.down(F.adaptive_avg_pool2d(y, 1).view(b, c)))).sigmoid().view(b, c, 1, 1)
        return m.c(y * scale.expand_as(y))

    return Net(run, a=conv(3, 8), down=nn.Linear(8, 4), up=nn.Linear(4, 8), c=conv(8, 4)), (image(),)


@case("concat")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        y = torch.cat([y, m.b(y)], 1)
        y = torch.cat([x, y, m.c(y)], 1)
        return m.d(y)

    return Net(run, a=conv(3, 8), b=conv(8, 6), c=conv(14, 4), d=conv(21, 4)), (image(),)


@case("concat-sum-of-parts")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y, z = m.a(x), m.b(x)
        return m.d(torch.cat([y, z], 1) + m.c(x))

    return Net(run, a=conv(3, 6), b=conv(3, 4), c=conv(3, 10), d=conv(10, 4)), (image(),)


@case("split-chunk")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        a, b, c = torch.split(m.a(x), [6, 4, 2], 1)
        d, e = a.chunk(2, 1)
        return m.out(torch.cat([m.b(b), c, d * e.sigmoid()], 1))

    return Net(run, a=conv(3, 12), b=conv(4, 4), out=conv(9, 4)), (image(),)


@case("split-equal")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        parts = m.a(x).split(4, 1)
        return m.out(torch.cat([m.b(parts[0]), parts[1], m.c(parts[2])], 1))

    return Net(run, a=conv(3, 12), b=conv(4, 4), c=conv(4, 4), out=conv(12, 4)), (image(),)


def shuffle(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


@case("shuffle-by-hand")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        for block in m.blocks:
            kept, y = x.chunk(2, 1) if x.size(1) > 3 else (m.a(x), x)
            x = shuffle(torch.cat([kept, block(y)], 1), 2)
        return m.out(x)

    blocks = nn.ModuleList([conv(3, 6), conv(6, 6), conv(6, 6)])
    return Net(run, a=conv(3, 6), blocks=blocks, out=conv(12, 4)), (image(),)


@case("shuffle-by-permute")
def _() -> Any:
    run = lambda m, x: m.out(m.a(x).reshape(-1, 3, 4, 8, 8).permute(0, 2, 1, 3, 4).flatten(1, 2))  # noqa: E731
    return Net(run, a=conv(3, 12), out=conv(12, 6, groups=3)), (image(),)


@case("slices")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.out(torch.cat([y[:, 2:7], y[:, ::3], y[:, -2:]], 1)) + y.narrow(1, 3, 4).mean()

    return Net(run, a=conv(3, 12), out=conv(11, 4)), (image(),)


@case("padded-channels")
def _() -> Any:
    run = lambda m, x: m.out(F.pad(m.a(x), (0, 0, 0, 0, 2, 3)) + m.b(x))  # noqa: E731
    return Net(run, a=conv(3, 8), b=conv(3, 13), out=conv(13, 4)), (image(),)


@case("cropped-channels")
def _() -> Any:
    run = lambda m, x: m.out(F.pad(m.a(x), (0, 0, 0, 0, -2, 1)))  # noqa: E731
    return Net(run, a=conv(3, 8), out=conv(7, 4)), (image(),)


@case("broadcast-parameters")
def _() -> Any:
    run = lambda m, x: m.out(m.a(x) * m.scale + m.shift + m.one)  # noqa: E731
    return Net(run, a=conv(3, 8), out=conv(8, 4), scale=torch.ones(8, 1, 1), shift=torch.ones(1, 8, 1, 1), one=torch.ones(1)), (image(),)


@case("permuted")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.norm(m.a(x).permute(0, 2, 3, 1))
        y = m.down(F.gelu(m.up(y)))
        return m.out(y.movedim(-1, 1)).transpose(1, 2)

    return Net(run, a=conv(3, 8), norm=nn.LayerNorm(8), up=nn.Linear(8, 16), down=nn.Linear(16, 8), out=conv(8, 4)), (image(),)


@case("repeat-flip-roll")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.out(torch.cat([y.repeat(1, 2, 1, 1), y.flip(1), y.roll(1, 2), y.repeat_interleave(2, 1)], 1))

    return Net(run, a=conv(3, 6), out=conv(36, 4)), (image(),)


@case("stack-sum")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = torch.stack([m.a(x), m.b(x)], 1)
        weights = m.gate(y.sum(1).mean((2, 3))).view(-1, 2, 8).softmax(1)
        return m.out((y * weights[:, :, :, None, None]).sum(1))

    return Net(run, a=conv(3, 8), b=conv(3, 8), gate=nn.Linear(8, 16), out=conv(8, 4)), (image(),)


@case("unbind-select")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        frames = [m.out(m.a(f)) for f in x.unbind(1)]
        return torch.stack(frames, 1)[:, -1]

    return Net(run, a=conv(3, 8), out=conv(8, 4)), (torch.randn(2, 3, 3, 8, 8),)


@case("video-folded-into-batch")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x.flatten(0, 1))
        return m.out(y.view(x.size(0), -1, *y.shape[1:]).mean(1))

    return Net(run, a=conv(3, 8), out=conv(8, 4)), (torch.randn(2, 3, 3, 8, 8),)


@case("shared-weights")
def _() -> Any:
    run = lambda m, x: m.out(m.b(F.relu(m.b(F.relu(m.a(x))))))  # noqa: E731
    return Net(run, a=conv(3, 8), b=conv(8, 8), out=conv(8, 4)), (image(),)


@case("tied-weights")
def _() -> Any:
    net = Net(lambda m, x: F.linear(m.b(F.relu(m.a(x))), m.a.weight.t()[:4]), a=nn.Linear(6, 8), b=nn.Linear(8, 8))
    return net, (torch.randn(2, 6),)


@case("embedding")
def _() -> Any:
    def run(m: Any, tokens: Tensor) -> Tensor:
        return m.out(F.relu(m.b(m.table(tokens) + m.place)))

    return Net(run, table=nn.Embedding(20, 8), place=torch.ones(1, 5, 8), b=nn.Linear(8, 12), out=nn.Linear(12, 4)), (
        torch.randint(20, (2, 5)),
    )


@case("several-inputs-and-outputs")
def _() -> Any:
    def run(m: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        z = m.a(x) + m.b(y)
        return {"first": m.c(z), "second": m.d(F.relu(z)).mean((2, 3))}

    return Net(run, a=conv(3, 8), b=conv(2, 8), c=conv(8, 4), d=conv(8, 6)), (image(), image(2))


@case("inner-output")
def _() -> Any:
    def run(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.a(x)
        z = m.b(F.relu(y))
        return m.c(z), y

    return Net(run, a=conv(3, 8), b=conv(8, 8), c=conv(8, 4)), (image(),)


@case("einsum-matmul")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x).flatten(2)
        gram = torch.matmul(m.b(x).flatten(2), y.transpose(1, 2))
        z = torch.bmm(gram.softmax(1), y)
        return m.c(torch.einsum("nchw,oc->nohw", z.view(x.size(0), 8, 8, 8), m.mix)) + torch.einsum("ncl,ncl->nc", y, y)[
            :, :, None, None
        ].sum(1, True)

    return Net(run, a=conv(3, 8), b=conv(3, 8), mix=torch.ones(6, 8), c=conv(6, 4)), (image(),)


@case("non-local")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        q, k, v = m.q(x).flatten(2), m.k(x).flatten(2), m.v(x).flatten(2)
        weights = torch.softmax(q.transpose(1, 2) @ k, -1)
        return m.out(x + m.p((v @ weights.transpose(1, 2)).view(x.size(0), 4, 8, 8)))

    return Net(run, a=conv(3, 8), q=conv(8, 4, 1), k=conv(8, 4, 1), v=conv(8, 4, 1), p=conv(4, 8, 1), out=conv(8, 3)), (image(),)


@case("max-out-of-channels")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        gate = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
        return m.out(m.b(y) * torch.sigmoid(m.gate(gate)))

    return Net(run, a=conv(3, 8), b=conv(8, 8), gate=conv(2, 1), out=conv(8, 4)), (image(),)


@case("channels-as-a-sequence")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.b(F.relu(m.a(x)))
        gate = m.mix(y.mean((2, 3)).unsqueeze(1)).squeeze(1)
        return m.out(y * torch.sigmoid(gate)[:, :, None, None])

    return Net(run, a=conv(3, 8), b=conv(8, 8), mix=nn.Conv1d(1, 1, 3, padding=1), out=conv(8, 4)), (image(),)


@case("where-clamp-compare")
def _() -> Any:
    def run(m: Any, x: Tensor) -> Tensor:
        y, z = m.a(x), m.b(x)
        return m.out(torch.where(y > z, y.clamp(-1, 1), torch.maximum(z, y * 0.1)).masked_fill(y == 0, 0.0) ** 2)

    return Net(run, a=conv(3, 8), b=conv(3, 8), out=conv(8, 4)), (image(),)


@case("unpooling")
def _() -> Any:
    def run(net: Any, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(net.a(x), 2, return_indices=True)
        return net.c(F.max_unpool2d(net.b(y), places, 2))

    return Net(run, a=conv(3, 8), b=conv(8, 8), c=conv(8, 4)), (image(),)


@case("upper-triangle-of-a-covariance")
def _() -> Any:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.b(F.relu(net.a(x))).flatten(2)
        cov = (y @ y.transpose(1, 2)).flatten(1)
        return net.c(cov[:, torch.ones(6, 6).triu().flatten().nonzero()[:, 0]])

    return Net(run, a=conv(3, 8), b=conv(8, 6), c=nn.Linear(21, 4)), (image(),)


@case("attention-by-einsum")
def _() -> Any:
    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = net.qkv(net.into(x)).reshape(len(x), 5, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.einsum("blxd,blyd->blxy", q, k).softmax(-1)
        return net.out(torch.einsum("blxy,blyd->blxd", scores, v).permute(0, 2, 1, 3).reshape(len(x), 5, 12))

    return Net(run, into=nn.Linear(6, 8), qkv=nn.Linear(8, 36), out=nn.Linear(12, 4)), (torch.randn(2, 5, 6),)


class Attention(nn.Module):
    """Hand-written multi-head attention with one projection for query, key and value."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads, self.fused = nn.Linear(width, 3 * width), nn.Linear(width, width), heads, fused

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, c))


@pytest.mark.parametrize("kind", ["heads", "width"])
@pytest.mark.parametrize("fused", [True, False])
def test_attention(prunes: Callable[..., Any], kind: str, fused: bool) -> None:
    net = nn.Sequential(nn.Linear(6, 16), Attention(16, 4, fused), nn.LayerNorm(16), nn.Linear(16, 3))
    pruned, _, _ = prunes(net, torch.randn(2, 7, 6), attention=kind, exports=fused)
    weight = dict(pruned.graph.named_parameters())["1.qkv.weight"]
    assert weight.shape == (24, 8)


@pytest.mark.parametrize("kind", ["heads", "width"])
def test_multihead_attention_module(prunes: Callable[..., Any], kind: str) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.out(m.norm(y + m.mha(y, y, y, need_weights=False)[0]))

    net = Net(run, a=nn.Linear(6, 16), mha=nn.MultiheadAttention(16, 4, batch_first=True), norm=nn.LayerNorm(16), out=nn.Linear(16, 3))
    pruned, _, _ = prunes(net, torch.randn(2, 7, 6), attention=kind, exports=False)
    weight = dict(pruned.graph.named_parameters())["mha.in_proj_weight"]
    assert weight.shape == (24, 8)


@pytest.mark.parametrize("name", list(CASES))
def test_equals_masked(prunes: Callable[..., Any], name: str) -> None:
    torch.manual_seed(0)
    module, inputs = CASES[name]()
    prunes(module, *inputs, exports=name in EXPORTED)
