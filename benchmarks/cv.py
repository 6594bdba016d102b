"""Which pytorchcv architectures the compatibility tables run: one of each family, drawn by a seed, and how one is made.

    pip install --no-deps --target PEERS pytorchcv==0.0.67
    PYTHONPATH=src:PEERS python benchmarks/cv.py > benchmarks/architectures.json

A family is a module of pytorchcv. From each, constructors are drawn in a seeded order and the first within the limits is taken, at the
smallest of three square inputs it accepts, or else its own. Families come in a seeded order: first all that don't classify, then three
ImageNet classifiers for one of CIFAR or CUB, until there are 64. Left out is what can't be constructed, speech, and what would take long
on the machine that makes the tables: more than 50 million parameters, 130 layers or 2.6 GMACs.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

from zoo import settle, smooth

SEED = 20261124
COUNT = 64
PARAMETERS, LAYERS, MACS = 50_000_000, 130, 2_600_000_000
SIZES = (64, 128, 224)
LIST = Path(__file__).parent / "architectures.json"
SEGMENTATION = {
    "bisenet",
    "cgnet",
    "contextnet",
    "dabnet",
    "danet",
    "deeplabv3",
    "edanet",
    "enet",
    "erfnet",
    "esnet",
    "espcnet",
    "fastscnn",
    "fcn8sd",
    "fpenet",
    "icnet",
    "lednet",
    "linknet",
    "pspnet",
    "segnet",
    "sinet",
    "sqnet",
    "unet",
}
POSE = {"alphapose_coco", "ibppose_coco", "lwopenpose_cmupan", "simplepose_coco", "simpleposemobile_coco"}
OTHER = {"centernet": "detection", "lffd": "detection", "prnet": "face", "pfpcnet": "face", "superpointnet": "keypoints"} | dict.fromkeys(
    ("voca", "nvpattexp"), "animation"
)
# Inputs that aren't one image of three channels: shapes of one sample, and the largest integer where the input is one.
INPUTS: dict[str, tuple[tuple[tuple[int, ...], int | None], ...]] = {
    "voca": (((1, 16, 29), None), ((), 8)),
    "nvpattexp": (((8, 16, 29), None), ((), 116)),
    "superpointnet": (((1, 64, 64), None),),
    "pfpcnet": (((1, 320, 240), None),),
}
SPEECH = ("jasper", "jasperdr", "quartznet")


def kind_of(family: str) -> str:
    """What a family is for."""
    if family in OTHER:
        return OTHER[family]
    if family in SEGMENTATION or family in POSE:
        return "segmentation" if family in SEGMENTATION else "pose"
    return "small classification" if family.endswith(("_cifar", "_cifar10", "_cub")) else "classification"


def families() -> dict[str, list[str]]:
    """The constructors of each module of pytorchcv, sorted."""
    import numpy
    from pytorchcv import model_provider

    if not hasattr(numpy, "int"):
        numpy.int = int  # pytorchcv says np.int, which numpy 2 no longer has
    found = defaultdict(list)
    for name, constructor in model_provider._models.items():
        found[constructor.__module__.split(".")[-1]].append(name)
    return {family: sorted(names) for family, names in sorted(found.items()) if family not in SPEECH}


def construct(name: str, size: list[int] | None) -> nn.Module:
    """The module with random weights, for inputs of height and width ``size`` where it asks; pose nets give heat maps, as decoding them to
    joints is a loop over values that no format holds."""
    from pytorchcv import model_provider

    families()
    asked: dict[str, Any] = {"return_heatmap": True, **({"in_size": tuple(size)} if size else {})}
    while True:
        try:
            return model_provider._models[name](pretrained=False, **asked)
        except TypeError as error:
            strange = [key for key in asked if f"'{key}'" in str(error)]
            if not strange:
                raise
            del asked[strange[0]]


def make(entry: dict[str, Any], seed: int = 0) -> nn.Module:
    """The architecture of the list, in inference mode: weights drawn from ``seed``, BatchNorm statistics from smooth random images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)  # fills memory that nobody set with NaN
        try:
            net = construct(entry["name"], entry["size"])
        finally:
            torch.use_deterministic_algorithms(False)
        for weight in net.parameters():
            if weight.isnan().any():  # pytorchcv leaves some parameters as the memory was
                nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
        draws = iter(range(100, 200))

        def step(*_: Any) -> tuple[Tensor, ...]:
            return inputs(entry, 8, next(draws))

        several = _Several(net)
        settle(several, step, passes=2)
        return net.eval()


class _Several(nn.Module):
    """Takes the inputs as one tuple."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: tuple[Tensor, ...]) -> Any:
        return self.net(*x)


def inputs(entry: dict[str, Any], batch: int, seed: int) -> tuple[Tensor, ...]:
    """Smooth random inputs, one tensor per input of the model."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for shape, top in entry["inputs"]:
        whole = (batch, *shape)
        out.append(torch.randint(top, whole, generator=generator) if top else smooth(whole, seed))
    return tuple(out)


def fits(name: str, family: str) -> dict[str, Any] | str:
    """The entry of one constructor, or why it is not taken. Shapes are tried on torch's meta device where that does."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.device("meta"):
            plain = construct(name, None)
    except Exception as error:
        return f"can't be constructed: {type(error).__name__}: {str(error).splitlines()[0]}"
    parameters = sum(p.numel() for p in plain.parameters())
    layers = sum(isinstance(m, (nn.modules.conv._ConvNd, nn.Linear)) for m in plain.modules())
    if parameters > PARAMETERS or layers > LAYERS:
        return f"{parameters / 1e6:.0f} M parameters, {layers} layers"
    own = [int(s) for s in getattr(plain, "in_size", None) or ()]
    sizes: list[list[int] | None] = [[s, s] for s in ((32,) if own == [32, 32] else SIZES)] + ([own] if own else [])
    why = ""
    for size in [None] if family in INPUTS else sizes:
        entry = {"name": name, "family": family, "kind": kind_of(family), "size": size, "parameters": parameters, "layers": layers}
        entry["inputs"] = INPUTS.get(family) or [[[3, *(size or ())], None]]
        for device in ("meta", "cpu"):  # some compute with numbers while they are made or run, and need real ones
            try:
                with torch.device(device):
                    net = construct(name, size)
                with torch.no_grad(), FlopCounterMode(display=False) as counter:
                    net.eval()(*(x.to(device) for x in inputs(entry, 1, 0)))
            except Exception as error:
                why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                if "meta" in str(error):
                    continue
                break
            macs = counter.get_total_flops() // 2
            return entry | {"macs": macs} if macs <= MACS else f"{macs / 1e9:.1f} GMACs at {size}"
    return f"runs at no size: {why}"


def draw(seed: int = SEED, count: int = COUNT) -> dict[str, Any]:
    """``count`` architectures in the order in which a table runs them, and the families that were drawn but left out, with the reasons."""
    known = families()
    order = random.Random(seed).sample(list(known), len(known))
    classes: dict[str, list[str]] = defaultdict(list)
    for family in order:
        kind = kind_of(family)
        classes[kind if "classification" in kind else "other"].append(family)
    queue = classes["other"]
    large, small = classes["classification"], classes["small classification"]
    while large or small:
        queue += large[:3] + small[:1]
        large, small = large[3:], small[1:]
    taken: list[dict[str, Any]] = []
    out: dict[str, str] = {}
    for family in queue:
        if len(taken) == count:
            break
        reasons = []
        for name in random.Random(f"{seed} {family}").sample(known[family], len(known[family])):
            found = fits(name, family)
            if isinstance(found, dict):
                taken.append(found)
                break
            reasons.append(found)
        else:
            out[family] = "; ".join(dict.fromkeys(reasons))
        print(family, "->", out.get(family) or taken[-1]["name"], file=sys.stderr, flush=True)
    limits = {"parameters": PARAMETERS, "layers": LAYERS, "macs": MACS}
    return {"seed": seed, "limits": limits, "list": taken, "left_out": out}


def listed() -> dict[str, Any]:
    """The committed list."""
    return dict(json.loads(LIST.read_text()))


if __name__ == "__main__":
    print(json.dumps(draw(), indent=1))
