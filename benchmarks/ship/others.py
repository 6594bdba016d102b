"""The word reader and the super-resolution model of ../shared/models: shipped to four platforms, verified, and run as an app runs them.

    python benchmarks/ship/others.py --work WORK [--modules node_modules] [--pictures DIR]

prints the table of others.md. Both in fp32 for ONNX Runtime; nothing is benchmarked here, so the gates "report" and "certified" are
overridden by name and each bundle says so. Golden pictures: words of IIIT5K, and the middle of Set5's images at a quarter of their size.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from faults import cpp_example, machine, page, python_package, told, verified, versions
from trained import module_of

from packlight.core.bundle import Bundle
from packlight.core.preprocess import Preprocess
from packlight.core.progress import Silent
from packlight.export.exporter import Options
from packlight.export.run import export_bundle, write_manifest
from packlight.export.ship.spec import Licence, read_ship
from packlight.search.ship import Order, ship
from packlight.targets.load import load_target

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
PLATFORMS = ("linux", "web", "android", "ios")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--modules", type=Path, default=ROOT / ".proofs" / "node_modules")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    print("# The word reader and super-resolution, shipped\n")
    print(f"Made on {datetime.date.today()}, {machine()}, Python {platform.python_version()}, {versions()}.")
    for name, make, more in (("word-reader", word_reader, read_words), ("super-resolution-x4", super_resolution, enlarge)):
        work = options.work / name
        shutil.rmtree(work, ignore_errors=True)
        order = make(work)
        ship(order, Silent())
        picture = options.pictures / f"ship-{name}.png" if options.pictures else None
        made = read_ship(order.out)
        (artifact,) = made.artifacts
        print(
            f"\n## {name}\n\n{artifact.file}, {artifact.bytes:,} bytes; {artifact.signature.inputs[0]} -> {artifact.signature.outputs[0]}"
        )
        print(f"\nOverridden: {', '.join(o.gate for o in made.overrides)}.\n\n| what was done | what came out |\n|---|---|")
        print(f"| `packlight verify` | {told(verified(order.out))} |")
        print(f"| the Python package's self-test | {python_package(order.out)} |")
        print(f"| the C++ example, built by g++ and run | {cpp_example(order.out, work)} |")
        print(f"| the page in headless Chromium | {page(order.out, options.modules, picture)} |", flush=True)
        print(f"| {more(order.out, work)} |", flush=True)


def word_reader(work: Path) -> Order:
    module = module_of(SHARED / "models" / "word_reader.py")
    spec = Preprocess(colour="GREY", size=(32, 128), mean=(0.5,), std=(0.5,))
    exported(work, module.word_reader(), "word-reader", [1, 1, 32, 128], {}, spec, "recognition", tuple(module.CHARACTERS))
    data = np.load(SHARED / "data" / "words" / "iiit5k-test.npz")
    np.savez(work / "words.npz", x=data["x"][:60], y=data["y"][:60])
    return order(work, str(work / "words.npz"), None, Licence(spdx="MIT", source="nano-ocr 0.1.0"))


def super_resolution(work: Path) -> Order:
    module = module_of(SHARED / "models" / "super_resolution.py")
    task = "restoration:channel=y,shave=4"
    exported(work, module.compact_sr_x4(), "super-resolution-x4", [2, 3, 40, 48], {2: "height", 3: "width"}, Preprocess(), task, ())
    licence = Licence(spdx="BSD-3-Clause", attribution="Real-ESRGAN", source="realesr-animevideov3")
    return order(work, str(SHARED / "data" / "set5"), "bicubic:4", licence)


def exported(
    work: Path, net: Any, weights: str, shape: list[int], free: dict[int, str], spec: Preprocess, task: str, labels: tuple[str, ...]
) -> None:
    import torch
    from safetensors.torch import load_file

    net.load_state_dict(load_file(SHARED / "models" / f"{weights}.safetensors"))
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    name = weights.replace("-", "_")
    bundle = Bundle.capture(net, [example], name=name, free_axes=[free], preprocess=spec, task=task, labels=labels)
    (work / "files").mkdir(parents=True)
    artifacts = export_bundle(bundle, work / "files", ("onnx",), Options(precision="fp32"), load_target("x86-64-avx2"))
    write_manifest(work / "files", artifacts)


def order(work: Path, data: str, degrade: str | None, licence: Licence) -> Order:
    allow = ("report", "certified")
    return Order(folder=work / "files", platforms=PLATFORMS, out=work / "bundle", data=data, degrade=degrade, licence=licence, allow=allow)


def read_words(bundle: Path, work: Path) -> str:
    """The Python package over the test words, as an app would ask: letters and digits, without case."""
    data = np.load(SHARED / "data" / "words" / "iiit5k-test.npz")
    words, truths = data["x"][:300], data["y"][:300].tolist()
    np.save(work / "words.npy", words)
    said = json.loads(asked(bundle, work, "[model(w)['text'] for w in np.load('words.npy')]"))
    right = sum(plain(a) == plain(b) for a, b in zip(said, truths, strict=True))
    return f"the Python package over the first 300 words of IIIT5K | {right} read without a fault ({100 * right / 300:.1f} %)"


def enlarge(bundle: Path, work: Path) -> str:
    """The C++ example over one image, against the Python package: every pixel."""
    from PIL import Image

    with Image.open(SHARED / "data" / "set5" / "bird.png") as picture:
        small = picture.convert("RGB").crop((0, 0, 288, 288)).resize((72, 72), Image.Resampling.BICUBIC)
    small.save(work / "small.ppm")
    data = next((bundle / "linux" / "python").glob("*_model/data"))
    subprocess.run(
        [work / "example", "--data", data, "--write", work / "made.ppm", work / "small.ppm"], check=True, stdout=subprocess.DEVNULL
    )
    asked(bundle, work, "np.save('made.npy', model('small.ppm')) or 0")
    one, two = np.asarray(Image.open(work / "made.ppm")), np.load(work / "made.npy")
    off = int(np.abs(one.astype(int) - two).max())
    return f"bird.png, 72x72 -> {one.shape[1]}x{one.shape[0]}, C++ against Python | largest difference {off} grey levels"


def asked(bundle: Path, work: Path, expression: str) -> str:
    """What the shipped Python package says, in a process of its own."""
    (package,) = (bundle / "linux" / "python").glob("*_model")
    code = f"import json, numpy as np; from {package.name} import Model; model = Model(); print(json.dumps({expression}))"
    environment = {"PYTHONPATH": str(package.parent.resolve()), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=work, env=environment, capture_output=True, text=True, check=True).stdout


def plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isascii() and c.isalnum())


if __name__ == "__main__":
    main()
