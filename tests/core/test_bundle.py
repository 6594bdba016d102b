"""A Bundle keeps what a model computes, through disk too, and never runs what a file says."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.errors import ModelError, OutputExistsError
from packlight.core.history import Step
from packlight.core.preprocess import Preprocess
from packlight.core.pt2 import check_archive, read_program


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.conv(x))).mean((2, 3))
        return self.head(self.drop(y))


class Pair(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"sum": a + b, "flat": (a * b).flatten(1)}


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, 12) * 2


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def bundle(net: Net) -> Bundle:
    return Bundle.capture(
        net, [torch.randn(1, 3, 8, 8)], name="net", labels=tuple("abcde"), preprocess=Preprocess(mean=(0.5,) * 3), history=(Step(name="x"),)
    )


def test_capture_keeps_outputs_names_and_a_free_batch(net: Net, bundle: Bundle) -> None:
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(bundle.run(x)[0], net(x))
    assert bundle.signature.inputs[0].shape == ("batch", 3, 8, 8)
    assert bundle.signature.outputs[0].shape == ("batch", 5)
    assert set(bundle.graph.state_dict()) == set(net.state_dict())


def test_saved_and_restored_without_pickle(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.save(tmp_path / "b")
    back = Bundle.load(folder)
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(back.run(x)[0], bundle.run(x)[0])
    assert back.signature == bundle.signature
    assert (back.labels, back.preprocess, back.history, back.name) == (bundle.labels, bundle.preprocess, bundle.history, "net")
    for file in folder.iterdir():
        assert b"test_bundle.py" not in file.read_bytes(), f"{file.name} holds a path of the machine that made it"
    assert (folder / "program.pt2").stat().st_size < 200_000


def test_an_existing_bundle_stays(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "b")
    with pytest.raises(OutputExistsError, match="--force"):
        bundle.save(tmp_path / "b")
    bundle.save(tmp_path / "b", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_changed_file_is_found(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.save(tmp_path / "b")
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=r"weights\.safetensors is not the file"):
        Bundle.load(folder)


def test_several_inputs_and_outputs() -> None:
    bundle = Bundle.capture(Pair(), [torch.ones(1, 2, 3), torch.full((1, 2, 3), 2.0)])
    total, flat = bundle.run(torch.ones(3, 2, 3), torch.full((3, 2, 3), 2.0))
    assert total.shape == (3, 2, 3)
    assert flat.shape == (3, 6)
    assert [o.shape for o in bundle.signature.outputs] == [("batch", 2, 3), ("batch", 6)]


def test_checks_of_types_are_no_operators() -> None:
    class Cast(nn.Module):
        def forward(self, x: Tensor, k: Tensor) -> Tensor:
            return x + torch.nn.functional.one_hot(k.long(), 4).type_as(x)

    x, k = torch.randn(2, 4), torch.tensor([1, 3])
    bundle = Bundle.capture(Cast(), (x, k))
    assert not any("_assert" in str(n.target) for n in bundle.graph.graph.nodes)
    torch.testing.assert_close(bundle.run(x, k)[0], Cast()(x, k))


def test_a_batch_that_cannot_be_free_is_said() -> None:
    bundle = Bundle.capture(FixedBatch(), [torch.randn(1, 3, 2, 2)])
    assert bundle.signature.inputs[0].shape == (1, 3, 2, 2)
    assert bundle.history[-1].changes["free_batch"] is False


def test_data_dependent_control_flow_is_refused_with_its_line() -> None:
    with pytest.raises(ModelError, match=r"test_bundle\.py:\d+ in forward"):
        Bundle.capture(Branch(), [torch.randn(1, 3)])


def test_macs_of_a_closed_form(bundle: Bundle) -> None:
    assert macs(bundle) == 8 * 4 * 4 * 3 * 9 + 8 * 5
    assert bundle.parameters() == 8 * 27 + 8 + 8 + 8 + 40 + 5


def _rewrite(source: Path, out: Path, change: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.infolist():
            inner = item.filename.partition("/")[2]
            new.writestr(item.filename, change.get(inner, old.read(item)))
    return out


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('bomb-went-off', 'w').close()",)


@pytest.mark.parametrize("kind", ["pickle in the samples", "pickled weight", "expression", "target"])
def test_a_program_that_would_run_code_is_refused(kind: str, net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "good.pt2"
    program = torch.export.export(net, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, str(good))
    check_archive(good)
    with zipfile.ZipFile(good) as archive:
        graph = archive.read("good/models/model.json").decode()
        weights = json.loads(archive.read("good/data/weights/model_weights_config.json"))
    change: dict[str, bytes]
    if kind == "pickle in the samples":
        change = {"data/sample_inputs/model.pt": pickle.dumps(Bomb())}
    elif kind == "pickled weight":
        next(iter(weights["config"].values()))["use_pickle"] = True
        change = {"data/weights/model_weights_config.json": json.dumps(weights).encode()}
    elif kind == "expression":
        change = {"models/model.json": graph.replace("Symbol('s", "__import__('os').getpid() or Symbol('s").encode()}
    else:
        change = {"models/model.json": graph.replace("torch.ops.aten.linear.default", "torch.hub.load").encode()}
    bad = _rewrite(good, tmp_path / "bad.pt2", change)
    with pytest.raises(ModelError):
        read_program(bad)
    assert not (tmp_path / "bomb-went-off").exists()


def test_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "x.pt2").write_bytes(b"no")
    with pytest.raises(ModelError, match="not a .pt2 archive"):
        read_program(tmp_path / "x.pt2")


class Results(nn.Module):
    """Results in every container, one of them twice, and the input itself."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> object:
        z = x + y
        return {"dict": {"sum": z, "again": z, "in": x}, "twice": (z, z), "nested": [z, (x, {"deep": z})]}[self.form]


@pytest.mark.parametrize(
    ("form", "names"),
    [("dict", ["sum", "again", "in"]), ("twice", ["output_0", "output_1"]), ("nested", ["output_0", "output_1", "output_2"])],
)
def test_results_in_containers(form: str, names: list[str]) -> None:
    bundle = Bundle.capture(Results(form), (torch.randn(2, 3), torch.randn(2, 3)))
    assert [s.name for s in bundle.signature.outputs] == names
    assert [s.shape for s in bundle.signature.outputs] == [("batch", 3)] * len(names)
    x, y = torch.randn(5, 3), torch.randn(5, 3)
    want = {"dict": [x + y, x + y, x], "twice": [x + y] * 2, "nested": [x + y, x, x + y]}[form]
    assert all(torch.equal(a, b) for a, b in zip(bundle.run(x, y), want, strict=True))


class Looks(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "if" and x.sum() > 0:
            return x
        while self.way == "while" and x.max() < 10:
            x = x * 2
        if self.way == "count":
            return x.repeat(1, int(x[0, 0]))
        if self.way == "length":
            return x.reshape(6)
        return x


@pytest.mark.parametrize(
    ("way", "told"),
    [
        (
            "if",
            r'depends on the numbers that go in \(at test_bundle\.py:\d+ in forward: "if self\.way == "if" and x\.sum\(\) > 0:"\); use',
        ),
        ("while", r'at test_bundle\.py:\d+ in forward: "while self\.way == "while" and x\.max\(\) < 10:"'),
        ("count", r'at test_bundle\.py:\d+ in forward: "return x\.repeat\(1, int\(x\[0, 0\]\)\)"'),
    ],
)
def test_dynamic_control_flow_is_told_in_one_line(way: str, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=told) as caught:
        Bundle.capture(Looks(way), (torch.randn(2, 3),))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_axis_that_the_model_fixes() -> None:
    with pytest.raises(ModelError, match=r"axis 1 of input 'x' can't be free: the model fixes it to 3"):
        Bundle.capture(Looks("length"), (torch.randn(2, 3),), free_batch=False, free_axes=[{1: "width"}])
