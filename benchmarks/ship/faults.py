"""ResNet-20 int8 shipped to four platforms: does verify pass, does each package run, is every planted fault found and named?

    python benchmarks/ship/faults.py --from OUT --doors DOORS --work WORK [--modules node_modules] [--picture docs/ship-web.png]

prints the table of faults.md. OUT and DOORS are made so (SHARED lies beside the repository):

    packlight compress SHARED/models/cifar_resnet.py:resnet20 --weights SHARED/models/cifar10-resnet20.safetensors \\
        --data SHARED/data/cifar10/load.py:split --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --task classification \\
        --target x86-64-avx2 --recipe int8 --out OUT
    packlight export OUT/bundle --target x86-64-avx2 --format tflite --precision int8 --doors integer \\
        --calib SHARED/data/cifar10/load.py:split --out DOORS

DOORS is for the faults that only a file with integer doors can have. The page needs Chromium, and onnxruntime-web below --modules.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from planting import FAULTS, HOSTILE, Fault, hostile, named, planted

from packlight.core.errors import InputError
from packlight.core.progress import Silent
from packlight.export.ship.spec import Licence, read_ship
from packlight.export.ship.verify import Verified
from packlight.search.ship import Order, ship
from packlight.search.verify import verify_bundle

SHARED = ROOT.parent / "shared"
HARNESS = ROOT / "tests" / "export" / "ship" / "harness"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PLATFORMS = ("linux", "web", "android", "ios")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--doors", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--modules", type=Path, default=ROOT / ".proofs" / "node_modules")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    bundle = shipped(options.source, options.work / "bundle", PLATFORMS)
    integer = shipped(options.doors, options.work / "integer", ("android",), allow=("report", "certified"))
    print("# ResNet-20 int8, shipped, and what verify finds\n")
    print(f"Made on {datetime.date.today()}, {machine()}, Python {platform.python_version()}, {versions()}.")
    made = read_ship(bundle)
    files = ", ".join(f"{a.file} ({a.bytes:,} bytes)" for a in made.artifacts)
    packages = ", ".join(p.platform for p in made.packages)
    print(f"\n{files}; packages: {packages}; {len(made.files) + 2} files. {made.trust.n:,} samples certify it.\n")
    print("| what was done | what came out |\n|---|---|")
    for place in (bundle, bundle.with_name("bundle.zip")):
        print(f"| `packlight verify {place.name}` | {told(verified(place))} |")
    print(f"| `packlight verify` of the file with integer doors | {told(verified(integer))} |")
    for what, came in (
        ("the Python package's self-test", python_package(bundle)),
        ("the C++ example, built by g++ and run", cpp_example(bundle, options.work)),
        ("the page in headless Chromium", page(bundle, options.modules, options.picture)),
    ):
        print(f"| {what} | {came} |")
    print("\nFaults: each planted in a copy of the bundle, checksums mended, then `packlight verify`.\n")
    print("| fault | found | what verify says |\n|---|---|---|")
    found = [judged(fault, integer if fault.integer else bundle, options.work) for fault in FAULTS]
    found += [refused(kind, words, bundle, options.work) for kind, words in HOSTILE.items()]
    print(f"\n{sum(found)} of {len(found)} found and named.")


def shipped(source: Path, out: Path, platforms: tuple[str, ...], allow: tuple[str, ...] = ()) -> Path:
    licence = Licence(spdx="BSD-2-Clause", attribution="akamaster/pytorch_resnet_cifar10", source="CIFAR-10, for research")
    data = f"{SHARED}/data/cifar10/load.py:split"
    ship(Order(folder=source, platforms=platforms, out=out, data=data, labels=LABELS, licence=licence, allow=allow, force=True), Silent())
    return out


def verified(place: Path) -> Verified:
    return verify_bundle(place, device="local", progress=Silent())


def told(result: Verified) -> str:
    assert not result.findings, result.findings
    return f"{result.goldens} golden inputs, {result.stages} stages, all as shipped{''.join(f'; not run: {s}' for s in result.skipped)}"


def python_package(bundle: Path) -> str:
    (package,) = (bundle / "linux" / "python").glob("*_model")
    ran = subprocess.run(
        [sys.executable, "-m", package.name, "--selftest"], cwd=package.parent, capture_output=True, text=True, check=False
    )
    shutil.rmtree(package / "__pycache__", ignore_errors=True)
    return (ran.stdout or ran.stderr).strip().splitlines()[-1]


def cpp_example(bundle: Path, work: Path) -> str:
    import onnxruntime

    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    link, program = work / "libonnxruntime.so.1", work / "example"
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", f"-Wl,-rpath,{work.resolve()}"]
    subprocess.run(["g++", *flags, bundle / "linux/cpp/main.cpp", link.resolve(), "-o", program], check=True)
    (data,) = (bundle / "linux" / "python").glob("*_model/data")
    ran = subprocess.run([program, "--data", data, "--selftest"], capture_output=True, text=True, check=False)
    return (ran.stdout or ran.stderr).strip().splitlines()[-1]


def page(bundle: Path, modules: Path, picture: Path | None) -> str:
    chromium = next((p for name in ("chromium", "google-chrome") if (p := shutil.which(name))), None)
    if chromium is None or not (modules / "onnxruntime-web").is_dir():
        return "not run: no Chromium, or no onnxruntime-web"
    command = [sys.executable, HARNESS / "browse.py", chromium, bundle / "web", modules, *([picture] if picture else [])]
    ran = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    result = json.loads(ran.stdout)
    assert not result["wrong"], result["wrong"]
    agent = next(word for word in result["agent"].split() if "Chrome" in word)
    off = ", ".join(f"{stage} {value:.2g}" for stage, value in result["largest"].items())
    web = version_of(modules / "onnxruntime-web" / "package.json")
    return (
        f"{result['goldens']} golden inputs within tolerance (largest differences: {off}); {result['latency']['median']:.2f} ms an answer, "
        f"median of {result['latency']['runs']}, on a busy machine; {agent}, onnxruntime-web {web}"
    )


def judged(fault: Fault, bundle: Path, work: Path) -> bool:
    copy = work / "planted"
    shutil.rmtree(copy, ignore_errors=True)
    findings = verified(planted(fault, bundle, copy)).findings
    words = named(fault, bundle)
    hit = next((f for f in findings if f.place == fault.place and words in f.what), None)
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    said = f"{hit.place}: {hit.what}" if hit else str(findings[:1])
    print(f"| {fault.what} | {'yes' if hit else '**no**'} | {line(said.replace(str(work), '.'))}{more} |", flush=True)
    return hit is not None


def refused(kind: str, words: str, bundle: Path, work: Path) -> bool:
    archive = hostile(kind, bundle, fresh(work / "hostile.zip"))
    try:
        verified(archive)
        said = "opened"
    except InputError as error:
        said = str(error)
    print(f"| {kind} | {'yes' if words in said else '**no**'} | {line(said.replace(str(work), '.'))} |", flush=True)
    return words in said


def fresh(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path


def line(text: str) -> str:
    return text.replace("|", "\\|")


def version_of(package: Path) -> str:
    return str(json.loads(package.read_text())["version"])


def machine() -> str:
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return f"{cpu.group(1) if cpu else platform.machine()}, {platform.system()}"


def versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "ai-edge-litert", "numpy", "pillow"))


if __name__ == "__main__":
    main()
