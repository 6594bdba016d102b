"""One contract, held by every exporter: the same bytes, the names kept, nothing written elsewhere, refusals with reasons, parity."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from packlight.core.bundle import Bundle
from packlight.core.verdict import Verdict
from packlight.export.exporter import Exporter, Options
from packlight.export.formats import exporter, formats
from packlight.export.prove import prove, references
from packlight.targets.load import load_target
from packlight.targets.target import Target


class Residual(nn.Module):
    """What ResNets and MobileNets are made of: a strided stem, a residual sum, an inverted residual with ReLU6, a pool, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.expand, self.depthwise, self.project = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(image))
        x = F.relu(self.b(F.relu(self.a(x))) + x)
        x = x + self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


@pytest.fixture(scope="module")
def bundles(in_int8: Any) -> dict[str, Bundle]:
    torch.manual_seed(0)
    integer, floating = in_int8(Residual(), torch.randn(16, 3, 16, 16))
    return {"fp32": floating.replace(name="tiny"), "fp16": floating.replace(name="tiny"), "int8": integer.replace(name="tiny")}


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("x86-64-avx2")


CASES = [(name, precision) for name in formats() for precision in ("fp32", "fp16", "int8")]


@pytest.fixture(scope="module", params=CASES, ids=[f"{n}-{p}" for n, p in CASES])
def case(request: pytest.FixtureRequest, bundles: dict[str, Bundle], target: Target, tmp_path_factory: pytest.TempPathFactory) -> Any:
    name, precision = request.param
    if precision not in exporter(name).precisions:
        pytest.skip(f"{name} has no {precision}")
    folder = tmp_path_factory.mktemp(f"{name}-{precision}")
    (folder / "out").mkdir()
    bundle, options = bundles[precision], Options(precision=precision)
    before = {k: v.clone() for k, v in bundle.graph.state_dict().items()}
    verdict = exporter(name).check(bundle, options, target)
    written = exporter(name).write(bundle, folder / "out", options, target)
    return exporter(name), bundle, options, folder, written, verdict, before


def test_check_says_yes_to_what_is_written(case: Any) -> None:
    assert case[5], case[5].why


def test_the_same_bundle_gives_the_same_bytes(case: Any, target: Target, tmp_path: Path) -> None:
    one, bundle, options, folder, written, *_ = case
    again = one.write(bundle, tmp_path, options, target)
    assert again == written
    for name in written.files:
        assert digest(folder / "out" / name) == digest(tmp_path / name)


def test_it_writes_its_files_and_nothing_else(case: Any) -> None:
    one, bundle, options, folder, written, *_ = case
    assert written.file == f"{bundle.name}.{options.precision}{one.suffix}"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == sorted(["out", *(f"out/{n}" for n in written.files)])


def test_the_doors_keep_their_names(case: Any) -> None:
    _, bundle, _, _, written, *_ = case
    assert [s.name for s in written.signature.inputs] == ["image"]
    assert [s.name for s in written.signature.outputs] == [s.name for s in bundle.signature.outputs]


def test_nothing_of_this_machine_is_in_the_files(case: Any) -> None:
    _, _, _, folder, written, *_ = case
    for name in written.files:
        data = (folder / "out" / name).read_bytes()
        for word in (str(folder).encode(), str(Path(__file__).parents[2]).encode(), b"site-packages", b"Traceback"):
            assert word not in data


def test_the_file_computes_what_the_model_computes(case: Any, bundles: dict[str, Bundle], target: Target, rows: Any) -> None:
    one, bundle, options, folder, written, *_ = case
    samples = rows(torch.randn(9, 3, 16, 16, generator=torch.Generator().manual_seed(3)).numpy())
    known = references(bundle, bundles["fp32"], samples)
    figures, _ = prove(written, folder / "out", one.name, options.precision, target, bundle, known)
    assert {p.runtime.split()[0] for p in figures} == {r.name for r in target.runtimes_for(one.name, options.precision)}
    assert all(p.sqnr_db is None or p.sqnr_db > {"fp32": 90, "fp16": 45, "int8": 15}[options.precision] for p in figures)


def test_integer_files_count_what_is_float(case: Any) -> None:
    _, _, options, _, written, *_ = case
    assert written.ops.file
    assert written.ops.optimised is not None or written.ops.why
    assert written.ops.float_left == (), options.precision


def test_the_bundle_is_not_changed(case: Any) -> None:
    _, bundle, _, _, _, _, before = case
    after = bundle.graph.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], v) for k, v in before.items())


@pytest.mark.parametrize("name", formats())
def test_refusals_carry_a_reason(name: str, bundles: dict[str, Bundle], target: Target) -> None:
    one: Exporter = exporter(name)
    for bundle, options in (
        (bundles["fp32"], Options(precision="int8")),
        (bundles["int8"], Options(precision="fp32")),
        (bundles["fp32"], Options(precision="int3")),
        (bundles["fp32"], Options(doors="integer")),
    ):
        verdict: Verdict = one.check(bundle, options, target)
        assert not verdict
        assert len(verdict.why) > 20


def test_formats_are_known_by_name() -> None:
    assert formats() == ("onnx", "openvino", "tflite")
    assert all(isinstance(exporter(n).precisions, tuple) and exporter(n).suffix.startswith(".") for n in formats())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
