"""The ten graphs that every part is tested on: classifiers, generators and recurrent nets, small but built like the real ones.

``ZOO`` maps a name to a ``Model``: a factory and its input shapes, at a reduced width and resolution that trace and run fast. Weights
are random under a fixed seed; BatchNorm statistics come from a few forward passes. ``width`` multiplies the channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut that is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2 = conv_bn(outputs, outputs, act=None)
        changes = stride != 1 or inputs != outputs
        self.shortcut = conv_bn(inputs, outputs, 1, stride, act=None) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 (He et al., 2015, arXiv:1512.03385). (N, 3, H, W) -> (N, classes)."""

    def __init__(self, width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, width, 7, 2), nn.MaxPool2d(3, 2, 1))
        blocks: list[nn.Module] = []
        inputs = width
        for stage, outputs in enumerate((width, 2 * width, 4 * width, 8 * width)):
            blocks += [BasicBlock(inputs, outputs, 1 if stage == 0 else 2), BasicBlock(outputs, outputs, 1)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int, act: type[nn.Module], squeeze: bool = False) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expand = conv_bn(inputs, hidden, 1, act=act) if expand != 1 else nn.Identity()
        self.depthwise = conv_bn(hidden, hidden, 3, stride, groups=hidden, act=act)
        self.squeeze = SqueezeExcite(hidden, max(4, inputs // 4), act) if squeeze else nn.Identity()
        self.project = conv_bn(hidden, outputs, 1, act=None)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al., 2017, arXiv:1709.01507)."""

    def __init__(self, channels: int, reduced: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.act = act()
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(self.act(self.reduce(F.adaptive_avg_pool2d(x, 1)))))


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381) with ReLU6. (N, 3, H, W) -> (N, classes)."""

    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, width: float = 1.0, classes: int = 1000, repeats: int = 4, last: int = 1280) -> None:
        super().__init__()
        inputs = _eight(32 * width)
        layers: list[nn.Module] = [conv_bn(3, inputs, 3, 2, act=nn.ReLU6)]
        for expand, channels, count, stride in self.plan:
            outputs = _eight(channels * width)
            for i in range(min(count, repeats)):
                layers.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expand, nn.ReLU6))
                inputs = outputs
        hidden = _eight(last * max(width, 0.25))
        self.features = nn.Sequential(*layers, conv_bn(inputs, hidden, 1, act=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class EfficientNet(nn.Module):
    """EfficientNet-like (Tan and Le, 2019, arXiv:1905.11946): inverted residuals with squeeze-excite and SiLU."""

    plan = ((1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 40, 2), (6, 80, 2), (6, 80, 1))

    def __init__(self, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        inputs = _eight(32 * width)
        layers: list[nn.Module] = [conv_bn(3, inputs, 3, 2, act=nn.SiLU)]
        for expand, channels, stride in self.plan:
            outputs = _eight(channels * width)
            layers.append(InvertedResidual(inputs, outputs, stride, expand, nn.SiLU, squeeze=True))
            inputs = outputs
        hidden = 4 * inputs
        self.features = nn.Sequential(*layers, conv_bn(inputs, hidden, 1, act=nn.SiLU))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015, arXiv:1505.04597); one step up is a ConvTranspose2d, the other bilinear. Same size out."""

    def __init__(self, width: int = 32, classes: int = 4) -> None:
        super().__init__()
        w = width
        self.down1 = nn.Sequential(conv_bn(3, w), conv_bn(w, w))
        self.down2 = nn.Sequential(conv_bn(w, 2 * w), conv_bn(2 * w, 2 * w))
        self.middle = nn.Sequential(conv_bn(2 * w, 4 * w), conv_bn(4 * w, 4 * w))
        self.up2 = nn.ConvTranspose2d(4 * w, 2 * w, 2, 2)
        self.merge2 = conv_bn(4 * w, 2 * w)
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.merge1 = conv_bn(3 * w, w)
        self.head = nn.Conv2d(w, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.middle(F.max_pool2d(b, 2))
        y = self.merge2(torch.cat((self.up2(c), b), 1))
        return self.head(self.merge1(torch.cat((self.up1(y), a), 1)))


class DCGAN(nn.Module):
    """DCGAN generator (Radford et al., 2015, arXiv:1511.06434). (N, latent, 1, 1) -> (N, 3, 4 * 2**steps, ...) in [-1, 1]."""

    def __init__(self, width: int = 64, latent: int = 100, steps: int = 4) -> None:
        super().__init__()
        inputs = width * 2 ** (steps - 1)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, inputs, 4, 1, 0, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()]
        for _ in range(steps - 1):
            layers += [nn.ConvTranspose2d(inputs, inputs // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(inputs // 2), nn.ReLU()]
            inputs //= 2
        self.net = nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 3, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


class InstanceBlock(nn.Module):
    """Reflection-padded residual block with InstanceNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()

        def half() -> list[nn.Module]:
            return [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]

        self.body = nn.Sequential(*half(), nn.ReLU(), *half())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class CycleGAN(nn.Module):
    """CycleGAN-like generator (Zhu et al., 2017, arXiv:1703.10593). (N, 3, H, W) -> the same size, in [-1, 1]."""

    def __init__(self, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        w = width
        self.net = nn.Sequential(
            *(nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), nn.InstanceNorm2d(w), nn.ReLU()),
            *(nn.Conv2d(w, 2 * w, 3, 2, 1), nn.InstanceNorm2d(2 * w), nn.ReLU()),
            *(nn.Conv2d(2 * w, 4 * w, 3, 2, 1), nn.InstanceNorm2d(4 * w), nn.ReLU()),
            *(InstanceBlock(4 * w) for _ in range(blocks)),
            *(nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(2 * w), nn.ReLU()),
            *(nn.ConvTranspose2d(2 * w, w, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(w), nn.ReLU()),
            *(nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class SuperResolution(nn.Module):
    """Compact super-resolution with PReLU and a pixel shuffle over the nearest-neighbour image. (N, 3, H, W) -> (N, 3, sH, sW)."""

    def __init__(self, width: int = 32, depth: int = 4, scale: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1), nn.PReLU(width)]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3 * scale * scale, 3, 1, 1))
        self.shuffle = nn.PixelShuffle(scale)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.body(x)) + F.interpolate(x, scale_factor=self.scale, mode="nearest")


class CRNN(nn.Module):
    """CRNN (Shi et al., 2015, arXiv:1507.05717). (N, 1, 32, W) -> (N, W/4, classes)."""

    def __init__(self, width: int = 32, hidden: int = 96, classes: int = 37) -> None:
        super().__init__()
        w = width
        self.cnn = nn.Sequential(
            *(conv_bn(1, w), nn.MaxPool2d(2), conv_bn(w, 2 * w), nn.MaxPool2d(2)),
            *(conv_bn(2 * w, 4 * w), nn.MaxPool2d((2, 1)), conv_bn(4 * w, 4 * w), nn.MaxPool2d((4, 1))),
        )
        self.rnn = nn.LSTM(4 * w, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cnn(x).squeeze(2).permute(0, 2, 1)
        return self.head(self.rnn(y)[0])


class GRUVideo(nn.Module):
    """A CNN on every frame, a GRU over time. (N, T, 3, H, W) -> (N, classes)."""

    def __init__(self, width: int = 32, hidden: int = 128, classes: int = 20) -> None:
        super().__init__()
        w = width
        self.cnn = nn.Sequential(
            conv_bn(3, w, stride=2), conv_bn(w, 2 * w, stride=2), conv_bn(2 * w, 4 * w, stride=2), nn.AdaptiveAvgPool2d(1)
        )
        self.rnn = nn.GRU(4 * w, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        y = self.cnn(x.flatten(0, 1)).flatten(1).reshape(n, t, -1)
        return self.head(self.rnn(y)[0][:, -1])


class ConvLSTM(nn.Module):
    """ConvLSTM (Shi et al., 2015, arXiv:1506.04214), unrolled over the frames. (N, T, 1, H, W) -> the next frame (N, 1, H, W)."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(1 + hidden, 4 * hidden, 3, 1, 1)
        self.head = nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _, height, width = x.shape
        h = c = x.new_zeros(n, self.hidden, height, width)
        for i in range(t):
            a, f, o, g = self.gates(torch.cat((x[:, i], h), 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(a) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


def _eight(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)


@dataclass(frozen=True)
class Model:
    """``small`` and ``full`` make the module (nothing settled yet); the shapes hold one sample, batch first."""

    small: Callable[[], nn.Module]
    full: Callable[[], nn.Module]
    small_shape: tuple[int, ...]
    full_shape: tuple[int, ...]

    def make(self, full: bool = False, seed: int = 0) -> nn.Module:
        """The module in inference mode, weights drawn from ``seed``, BatchNorm statistics settled on random inputs."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = (self.full if full else self.small)()
            return settle(module, lambda: self.input(4, full=full, seed=int(torch.randint(1 << 30, ()))))

    def input(self, batch: int = 1, full: bool = False, seed: int = 1) -> Tensor:
        """Smooth random input, float32, about zero mean and unit variance."""
        return smooth((batch, *(self.full_shape if full else self.small_shape)[1:]), seed)


def settle(module: nn.Module, draw: Callable[[], Tensor], passes: int = 4) -> nn.Module:
    """Sets BatchNorm statistics (cumulative average) by a few forward passes; returns the module in inference mode."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
        nn.init.uniform_(m.weight, 0.5, 1.5)
        nn.init.normal_(m.bias, 0, 0.2)
    module.train()
    for m in module.modules():
        if isinstance(m, nn.Dropout):
            m.eval()
    with torch.no_grad():
        for _ in range(passes if norms else 0):
            module(draw())
    return module.eval()


def smooth(shape: tuple[int, ...], seed: int) -> Tensor:
    """Random images that look a little like images: coarse noise, upsampled, plus fine noise."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randn(shape, generator=generator)
    if len(shape) < 4 or shape[-1] < 8:
        return fine
    coarse = torch.randn((*shape[:-2], shape[-2] // 4, shape[-1] // 4), generator=generator)
    wide = F.interpolate(coarse.reshape(-1, 1, *coarse.shape[-2:]), size=shape[-2:], mode="bilinear").reshape(shape)
    return wide + 0.3 * fine


ZOO: dict[str, Model] = {
    "resnet18": Model(lambda: ResNet18(16, 10), ResNet18, (1, 3, 64, 64), (1, 3, 224, 224)),
    "mobilenetv2": Model(lambda: MobileNetV2(0.35, 10, 2), MobileNetV2, (1, 3, 64, 64), (1, 3, 224, 224)),
    "efficientnet": Model(lambda: EfficientNet(0.5, 10), EfficientNet, (1, 3, 64, 64), (1, 3, 224, 224)),
    "unet": Model(lambda: UNet(8), UNet, (1, 3, 32, 32), (1, 3, 128, 128)),
    "dcgan": Model(lambda: DCGAN(8, 16, 3), DCGAN, (1, 16, 1, 1), (1, 100, 1, 1)),
    "cyclegan": Model(lambda: CycleGAN(8, 1), CycleGAN, (1, 3, 32, 32), (1, 3, 128, 128)),
    "superres": Model(lambda: SuperResolution(12, 2), SuperResolution, (1, 3, 24, 24), (1, 3, 96, 96)),
    "crnn": Model(lambda: CRNN(8, 24), CRNN, (1, 1, 32, 64), (1, 1, 32, 128)),
    "gruvideo": Model(lambda: GRUVideo(8, 32), GRUVideo, (1, 4, 3, 32, 32), (1, 8, 3, 64, 64)),
    "convlstm": Model(lambda: ConvLSTM(8), ConvLSTM, (1, 4, 1, 16, 16), (1, 8, 1, 32, 32)),
}
"""The ten graphs of the benchmarks, in their order there."""
