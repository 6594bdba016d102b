"""Models in: every form of MODEL, weights, and each wrong input told in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from packlight.core.bundle import Bundle
from packlight.core.errors import ModelError
from packlight.core.load import load_model
from packlight.core.source import parse_arguments
from packlight.core.weights import read_weights

SHAPE = [(1, 3, 8, 8)]
NET = """
import helper
import torch
from torch import nn

def net(width=4):
    print("made")
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, helper.CLASSES))

def broken():
    return 1 / 0

def number():
    return 3

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, 5)
    def forward(self, x):
        return self.linear(x.flatten(1))

class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

ready = net()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("CLASSES = 5\n")
    path = tmp_path / "my net.py"
    path.write_text(NET)
    return path


def make(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, 5))


def test_a_factory_in_a_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path_before = list(sys.path)
    bundle = load_model(f"{file}:net", model_args={"width": 6}, inputs=SHAPE)
    assert bundle.name == "net"
    assert bundle.signature.inputs[0].shape == ("batch", 3, 8, 8)
    assert dict(bundle.graph.named_parameters())["0.weight"].shape == (6, 3, 3, 3)
    assert sys.path == path_before
    assert "helper" not in sys.modules
    assert capsys.readouterr().out == ""


def test_the_graph_computes_what_the_module_computes(file: Path) -> None:
    torch.manual_seed(1)
    weights = make().state_dict()
    save_file(weights, file.parent / "w.safetensors")
    bundle = load_model(f"{file}:net", weights=file.parent / "w.safetensors", inputs=SHAPE)
    module = make().eval()
    module.load_state_dict(weights)
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(bundle.run(x)[0], module(x))


def test_a_module_that_stands_there_ready(file: Path) -> None:
    assert load_model(f"{file}:ready", inputs=SHAPE, name="my model!").name == "my-model"


def test_a_factory_in_an_installed_module() -> None:
    bundle = load_model("torch.nn:ReLU", inputs=[torch.zeros(2, 3)])
    assert bundle.run(torch.tensor([[-1.0, 0.0, 2.0]] * 2))[0].tolist() == [[0, 0, 2]] * 2


def test_a_bundle_folder_and_new_weights(file: Path, tmp_path: Path) -> None:
    load_model(f"{file}:net", inputs=SHAPE).save(tmp_path / "b")
    weights = make().state_dict()
    torch.save(weights, tmp_path / "w.pt")
    again = load_model(str(tmp_path / "b"), weights=tmp_path / "w.pt")
    assert torch.equal(again.graph.state_dict()["4.bias"], weights["4.bias"])


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exported_program(tmp_path: Path, dynamic: bool) -> None:
    module = make().eval()
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    program = torch.export.export(module, (torch.randn(2 if dynamic else 1, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, str(tmp_path / "m.pt2"))
    bundle = load_model(str(tmp_path / "m.pt2"))
    assert bundle.signature.inputs[0].shape == ("batch", 3, 8, 8)
    x = torch.randn(7, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(bundle.run(x)[0], module(x), atol=1e-6)
    assert [s.changes.get("free_batch") for s in bundle.history] == ([] if dynamic else [True])


def test_a_program_whose_rows_depend_on_the_batch_keeps_it(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0, keepdim=True)

    torch.export.save(torch.export.export(Mean(), (torch.randn(4, 3),)), str(tmp_path / "m.pt2"))
    bundle = load_model(str(tmp_path / "m.pt2"))
    assert bundle.signature.inputs[0].shape == (4, 3)
    assert bundle.history[-1].changes["free_batch"] is False


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrapped_weights(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = make().state_dict()
    wrapped = {prefix + k: v for k, v in state.items()}
    torch.save({wrapper: wrapped, "epoch": 3} if wrapper else wrapped, tmp_path / "w.pt")
    read = read_weights(tmp_path / "w.pt")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[k], state[k]) for k in state)


def test_weights_that_do_not_fit_are_named(file: Path, tmp_path: Path) -> None:
    state = make(width=5).state_dict()
    del state["4.bias"]
    state["extra.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(
        ModelError, match=r"missing: 4\.bias; not in the model: extra\.weight; wrong shape: 0\.weight is 5x3x3x3, the model"
    ):
        load_model(f"{file}:net", weights=tmp_path / "w.safetensors", inputs=SHAPE)


def test_old_weights_without_the_batch_counter_fit(file: Path, tmp_path: Path) -> None:
    state = {k: v for k, v in make().state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "w.safetensors")
    assert isinstance(load_model(f"{file}:net", weights=tmp_path / "w.safetensors", inputs=SHAPE), Bundle)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("__import__('pathlib').Path('pwned').write_text('')",))


def test_a_pickle_with_code_is_not_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="can't be read safely"):
        load_model(f"{file}:net", weights=tmp_path / "evil.pt", inputs=SHAPE)
    assert not (tmp_path / "pwned").exists()


def test_a_pickled_module_as_weights(file: Path, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"holds 'torch\.nn\.modules\.linear\.Linear', which is code; save model\.state_dict\(\)"):
        load_model(f"{file}:net", weights=tmp_path / "m.pt", inputs=SHAPE)


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"junk", "w.pt", "can't be read"),
        (b"junk", "w.safetensors", "is not a safetensors file"),
        (None, "w.pt", "does not exist"),
    ],
)
def test_unreadable_weights(file: Path, tmp_path: Path, content: bytes | None, name: str, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=words):
        load_model(f"{file}:net", weights=tmp_path / name, inputs=SHAPE)


def test_weights_with_nan(file: Path, tmp_path: Path) -> None:
    state = make().state_dict()
    state["0.bias"][1] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"NaN or infinity in '0\.bias'"):
        load_model(f"{file}:net", weights=tmp_path / "w.safetensors", inputs=SHAPE)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{file}", r"names no factory; write .*my net\.py:NAME with one of: net, broken, number, Wide"),
        ("{file}:nte", r"has no 'nte'; it has: net, broken"),
        ("{file}:broken", r"ZeroDivisionError: division by zero \(at my net\.py:11\)"),
        ("{file}:number", "gave a int, not a torch.nn.Module"),
        ("{file}:Wide", r"can't run on an input of 1x3x8x8: .*1x192 and 48x5.* \(at my net\.py:21\)"),
        ("{file}:Branches", r"torch\.export can't trace the model.*my net\.py:25"),
        ("{folder}/none.py:net", "does not exist"),
        ("{folder}/syntax.py:net", r"can't be imported: SyntaxError: .* \(at syntax\.py:2\)"),
        ("{folder}/needs.py:net", r"ModuleNotFoundError: No module named 'not_there' \(at needs\.py:1\)"),
        ("not_there.models:net", "can't be found"),
        ("{folder}", "is not a bundle: it has no bundle.json"),
        ("{folder}/w.pth", "holds weights without the model's code; give file.py:factory"),
        ("{folder}/m.onnx", "is not an ONNX file"),
        ("{folder}/note.txt", "is not a model; a model is"),
        ("{folder}/not-there", "does not exist; a model is"),
        ("{folder}/fake.pt2", "is not a .pt2 archive"),
    ],
)
def test_wrong_models_in_one_line(file: Path, spec: str, words: str) -> None:
    folder = file.parent
    (folder / "syntax.py").write_text("x = 1\ndef f(:\n")
    (folder / "needs.py").write_text("import not_there\n")
    for name in ("w.pth", "m.onnx", "note.txt", "fake.pt2"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=words) as caught:
        load_model(spec.format(file=file, folder=folder), inputs=SHAPE)
    assert "\n" not in str(caught.value)


def test_missing_inputs_and_wrong_arguments(file: Path) -> None:
    with pytest.raises(ModelError, match="needs example inputs; give --data, or shapes with --input"):
        load_model(f"{file}:net")
    with pytest.raises(ModelError, match="unexpected keyword argument 'wdith'"):
        load_model(f"{file}:net", model_args={"wdith": 3}, inputs=SHAPE)
    with pytest.raises(ModelError, match="must be positive"):
        load_model(f"{file}:net", inputs=[(1, 3, 0, 8)])


def test_loading_leaves_the_random_state_alone(file: Path) -> None:
    state = torch.get_rng_state()
    load_model("torch.nn:ReLU", inputs=SHAPE)
    assert torch.equal(torch.get_rng_state(), state)


def test_arguments_are_literals_or_text() -> None:
    assert parse_arguments(["a=1", "b=(1, 2)", "c=resnet", "d=True"]) == {"a": 1, "b": (1, 2), "c": "resnet", "d": True}


def test_the_published_weights(shared: Path) -> None:
    spec = f"{shared / 'models' / 'cifar_resnet.py'}:resnet20"
    bundle = load_model(spec, weights=shared / "models" / "cifar10-resnet20.safetensors", inputs=[(1, 3, 32, 32)])
    assert bundle.parameters() == 269_722  # the 0.27 M of the paper's table, with option A shortcuts
