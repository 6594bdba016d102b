"""Fixtures that every room's tests may use; ``zoo`` (this folder is on the path) holds the test models."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from packlight.core.bundle import Bundle


def pytest_configure(config: pytest.Config) -> None:
    """The rig (``make rig``) is in PACKLIGHT_RIG, by default in .rig; what it brings of ssh is used where the system has none."""
    folder = Path(os.environ.setdefault("PACKLIGHT_RIG", str(Path(__file__).resolve().parents[1] / ".rig")))
    if (folder / "bin").is_dir():
        os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"


def pytest_report_header() -> list[str]:
    """Says which emulated devices are there, and which are not and why."""
    from rig.install import read

    state = read(Path(os.environ["PACKLIGHT_RIG"]))
    if not state:
        return ["rig: NOT INSTALLED, so nothing is run on emulated devices; 'make rig' installs it"]
    return [
        f"rig: {', '.join(part for part, why in state.items() if not why) or 'nothing'}",
        *(f"rig: WITHOUT '{part}': {why}" for part, why in state.items() if why),
    ]


@pytest.fixture(scope="session")
def captured() -> Callable[..., Bundle]:
    """``captured(name, free_batch=True)``: the zoo's model as a Bundle, traced once a session. Don't change its graph in place."""
    from zoo import ZOO

    from packlight.core.bundle import Bundle

    @functools.cache
    def capture(name: str, free_batch: bool = True) -> Bundle:
        model = ZOO[name]
        return Bundle.capture(model.make(), (model.input(2 if free_batch else 1),), name=name, free_batch=free_batch)

    return capture


class Rows:
    """Unlabelled samples held in memory: what calibration and parity read."""

    classes: tuple[str, ...] = ()
    source = "memory"

    def __init__(self, *inputs: NDArray[Any]) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs[0])

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], None]:
        return tuple(x[list(indices)] for x in self.inputs), None

    def raw(self, index: int) -> None:
        return None


@pytest.fixture(scope="session")
def rows() -> type[Rows]:
    """``rows(*arrays)``: samples from arrays, one per model input."""
    return Rows


@pytest.fixture(scope="session")
def folded(captured: Callable[..., Bundle]) -> Callable[[str], Bundle]:
    """``folded(name)``: the zoo's model with BatchNorm folded, once a session."""
    from packlight.compress.passes import Context, run_passes
    from packlight.compress.recipe import make_pass
    from packlight.targets.load import load_target

    @functools.cache
    def fold(name: str) -> Bundle:
        return run_passes(captured(name), [make_pass("fold-batchnorm", {})], Context(target=load_target("x86-64-avx2")))

    return fold


@pytest.fixture(scope="session")
def quantized(folded: Callable[[str], Bundle]) -> Callable[[str], Bundle]:
    """``quantized(name)``: the zoo's model in int8 with 7-bit weights, once a session."""
    from zoo import ZOO

    return functools.cache(lambda name: quantize(folded(name), ZOO[name].input(16, seed=5).numpy()))


def quantize(bundle: Bundle, *inputs: NDArray[Any], **settings: Any) -> Bundle:
    """The bundle in int8 for x86-64 with AVX2 only, calibrated on ``inputs``; other settings of the pass as given."""
    from packlight.compress.passes import Context, run_passes
    from packlight.compress.recipe import make_pass
    from packlight.targets.load import load_target

    context = Context(target=load_target("x86-64-avx2"), calib=Rows(*inputs))
    return run_passes(bundle, [make_pass("quantize", {"calibrator": "minmax", **settings})], context)


@pytest.fixture(scope="session")
def in_int8() -> Callable[..., Bundle]:
    """``in_int8(module, *inputs, **settings of the pass)``: a module in inference mode as an int8 bundle, and its float one."""
    from packlight.core.bundle import Bundle

    def make(module: torch.nn.Module, *inputs: torch.Tensor, **settings: Any) -> tuple[Bundle, Bundle]:
        bundle = Bundle.capture(module.eval(), tuple(x[:2] for x in inputs))
        return quantize(bundle, *(x.numpy() for x in inputs), **settings), bundle

    return make


@pytest.fixture(scope="session")
def critters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of measured files of a small classifier (see ``shipping``), made once a run. Don't change it."""
    import os

    import shipping

    base = tmp_path_factory.getbasetemp()
    return shipping.shared_folder(base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of pretrained weights and data beside the repository; skips where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared data beside the repository ({folder.name}/ is absent)")
    return folder
