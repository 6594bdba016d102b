"""Augmentation of image batches: planned for a whole epoch, performed on uint8.

A plan is drawn from (seed, view) alone, so an epoch can be repeated exactly, and a teacher's outputs can be kept for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from torch import Tensor


class Augment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``shift``: crop at a random place after padding so many zero pixels on each side (He et al., 2015, arXiv:1512.03385,
    section 4.2). ``flip``: mirror left to right, every second image. ``zoom``: a random part, at least this share of the area (1 is off),
    resized back (Szegedy et al., 2014, arXiv:1409.4842). ``colour``: brightness, contrast and saturation move by up to this share.
    ``erase``: a square with this share of the side, at a random place, is set to the image's mean (DeVries & Taylor, 2017,
    arXiv:1708.04552)."""

    shift: int = 0
    flip: bool = False
    zoom: float = 1.0
    colour: float = 0.0
    erase: float = 0.0

    @property
    def any(self) -> bool:
        return self.shift > 0 or self.flip or self.zoom < 1 or self.floats

    @property
    def floats(self) -> bool:
        """Whether something is done to the values as the model reads them."""
        return self.colour > 0 or self.erase > 0

    def __str__(self) -> str:
        parts = [f"shift {self.shift}"] * (self.shift > 0) + ["flip"] * self.flip + [f"zoom {self.zoom:g}"] * (self.zoom < 1)
        parts += [f"colour {self.colour:g}"] * (self.colour > 0) + [f"erase {self.erase:g}"] * (self.erase > 0)
        return ", ".join(parts) or "none"


@dataclasses.dataclass(frozen=True)
class Draws:
    """One row a sample: ``offset`` (N, 2) of the crop, ``flip`` (N,), ``box`` (N, 4) as top, left, height, width in [0, 1], ``colour``
    (N, 3) as brightness, contrast, saturation in [-1, 1], ``hole`` (N, 2), where the middle of what is erased lies in [0, 1]."""

    offset: Tensor
    flip: Tensor
    box: Tensor
    colour: Tensor
    hole: Tensor


def draw(plan: Augment, count: int, seed: int, view: int) -> Draws:
    """What happens to each of ``count`` samples in epoch ``view``."""
    import torch

    random = torch.Generator().manual_seed((seed * 1_000_003 + view) % 2**63)
    offset = torch.randint(0, 2 * plan.shift + 1, (count, 2), generator=random)
    flip = torch.rand(count, generator=random) < 0.5 if plan.flip else torch.zeros(count, dtype=torch.bool)
    area = plan.zoom + (1 - plan.zoom) * torch.rand(count, generator=random)
    ratio = torch.exp((2 * torch.rand(count, generator=random) - 1) * 0.2877)  # sides from 3:4 to 4:3, uniform in the logarithm
    height = (area / ratio).sqrt().clamp(max=1.0)
    width = (area * ratio).sqrt().clamp(max=1.0)
    place = torch.rand(count, 2, generator=random)
    box = torch.stack([place[:, 0] * (1 - height), place[:, 1] * (1 - width), height, width], 1)
    colour = 2 * torch.rand(count, 3, generator=random) - 1
    return Draws(offset, flip, box, colour, torch.rand(count, 2, generator=random))


def shift_flip(images: Tensor, plan: Augment, draws: Draws, rows: Tensor) -> Tensor:
    """``images`` (N, H, W, C) of any dtype, the samples ``rows`` of the plan, cropped and mirrored; the same shape."""
    import torch
    from torch.nn.functional import pad

    count, height, width = images.shape[:3]
    down = torch.arange(height).expand(count, -1)
    right = torch.arange(width).expand(count, -1)
    right = torch.where(draws.flip[rows, None], right.flip(1), right)
    if plan.shift:
        images = pad(images, (0, 0, plan.shift, plan.shift, plan.shift, plan.shift))
        down = down + draws.offset[rows, :1]
        right = right + draws.offset[rows, 1:]
    return images[torch.arange(count)[:, None, None], down[:, :, None], right[:, None, :]]


def zoom(images: Tensor, draws: Draws, rows: Tensor) -> Tensor:
    """``images`` float (N, C, H, W): each sample's box, resized bilinearly to the whole."""
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    top, left, height, width = draws.box[rows].to(images.device).unbind(1)
    zero = torch.zeros_like(top)
    theta = torch.stack([torch.stack([width, zero, 2 * left + width - 1], 1), torch.stack([zero, height, 2 * top + height - 1], 1)], 1)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def recolour(images: Tensor, plan: Augment, draws: Draws, rows: Tensor) -> Tensor:
    """``images`` float (N, C, H, W) as the model reads them, with deviation s and mean m of each image and channel:

        x' = (1 + c k) (x - m) + m + c b s,    then x' + c t (x' - mean of x' over channels)

    with c = ``plan.colour`` and b, k, t the draws of brightness, contrast and saturation; one shape."""
    amount = plan.colour * draws.colour[rows].to(images.device)
    brightness, contrast, saturation = (a[:, None, None, None] for a in amount.unbind(1))
    mean, spread = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
    moved = (1 + contrast) * (images - mean) + mean + brightness * spread
    return moved + saturation * (moved - moved.mean(1, keepdim=True))


def erase(images: Tensor, plan: Augment, draws: Draws, rows: Tensor) -> Tensor:
    """``images`` float (N, C, H, W): a square of each set to the image's mean, cut off at its border; the same shape."""
    import torch

    height, width = images.shape[2:]
    middle = draws.hole[rows].to(images.device)
    reach = plan.erase * min(height, width) / 2
    down = (torch.arange(height, device=images.device) + 0.5 - height * middle[:, :1]).abs() < reach
    right = (torch.arange(width, device=images.device) + 0.5 - width * middle[:, 1:]).abs() < reach
    hole = (down[:, :, None] & right[:, None, :])[:, None]
    return torch.where(hole, images.mean((2, 3), keepdim=True), images)


@dataclasses.dataclass(frozen=True)
class Mix:
    """Pairs of samples: ``share`` of a sample's own target, the rest from ``partner`` (N,)."""

    share: float
    partner: Tensor


def mix(inputs: Tensor, mixup: float, cutmix: float, random: Sequence[int]) -> tuple[Tensor, Mix | None]:
    """Mixup (Zhang et al., 2017, arXiv:1710.09412): x = l x_i + (1 - l) x_j with l from Beta(a, a); or CutMix (Yun et al., 2019,
    arXiv:1905.04899): a box of area 1 - l from x_j. Where both are on, each batch takes one by chance. ``random`` seeds the draw."""
    import numpy as np
    import torch

    if mixup <= 0 and cutmix <= 0:
        return inputs, None
    chance = np.random.default_rng(random)
    cut = cutmix > 0 and (mixup <= 0 or chance.random() < 0.5)
    share = float(chance.beta(*(2 * (cutmix if cut else mixup,))))
    partner = torch.from_numpy(chance.permutation(len(inputs))).to(inputs.device)
    if not cut or inputs.ndim != 4:
        return inputs * share + inputs[partner] * (1 - share), Mix(share, partner)
    height, width = inputs.shape[2:]
    rows, columns = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = int(chance.integers(height - rows + 1)), int(chance.integers(width - columns + 1))
    mixed = inputs.clone()
    mixed[:, :, top : top + rows, left : left + columns] = inputs[partner, :, top : top + rows, left : left + columns]
    return mixed, Mix(1 - rows * columns / (height * width), partner)
