"""Names, nesting and free axes from the command line to the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

NET = """
import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(3, 8, 3, 1, 1)
        self.mask = nn.Conv2d(1, 8, 3, 1, 1)

    def forward(self, image, extra):
        y = torch.relu(self.image(image) + self.mask(extra["mask"]))
        return {"scores": y.mean((2, 3)), "maps": (y, y.mean(1, keepdim=True))}


class OneDict(Net):
    def forward(self, batch):
        return super().forward(batch["image"], batch["extra"])


class Data:
    def __len__(self):
        return 20

    def __getitem__(self, i):
        g = np.random.default_rng(i)
        return {"image": g.random((3, 12, 12), np.float32), "extra": {"mask": g.random((1, 12, 12), np.float32)}}, i % 4


def made(kind):
    torch.manual_seed(0)
    return kind()


net, onedict = lambda: made(Net), lambda: made(OneDict)
data = Data
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


def doors(out: Path) -> tuple[list[Any], list[Any]]:
    (artifact,) = json.loads((out / "manifest.json").read_text())["artifacts"]
    return tuple([(d["name"], d["shape"]) for d in artifact["signature"][side]] for side in ("inputs", "outputs"))  # type: ignore[return-value]


COMMON = ("--target", "x86-64-avx2", "--format", "onnx", "--out")


def test_named_and_free_doors(call: Any, source: Path, tmp_path: Path) -> None:
    shapes = ("--input", "image=1,3,12,12", "--input", "extra.mask=1,1,12,12")
    free = ("--dynamic", "image=2:rows,3", "--dynamic", "extra_mask=2,3")
    done = call("export", f"{source}:net", *shapes, *free, *COMMON, tmp_path / "a")
    assert done.code == 0, done.err
    inputs = [("image", ["batch", 3, "rows", "width"]), ("extra_mask", ["batch", 1, "rows", "width"])]
    outputs = [("scores", ["batch", 8]), ("maps_0", ["batch", 8, "rows", "width"]), ("maps_1", ["batch", 1, "rows", "width"])]
    assert doors(tmp_path / "a") == (inputs, outputs)
    assert " at rows " in done.out
    file = tmp_path / "a" / "net.fp32.onnx"
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file))
    assert [(i.name, i.shape) for i in session.get_inputs()] == inputs
    assert [(o.name, o.shape) for o in session.get_outputs()] == outputs
    x, mask = np.random.default_rng(0).random((2, 3, 9, 20), np.float32), np.ones((2, 1, 9, 20), np.float32)
    scores, whole, mean = session.run(None, {"image": x, "extra_mask": mask})
    np.testing.assert_allclose(scores, whole.mean((2, 3)), atol=1e-5)
    np.testing.assert_allclose(mean, whole.mean(1, keepdims=True), atol=1e-5)


def test_a_data_set_of_dicts_feeds_keywords_or_one_dict(call: Any, source: Path, tmp_path: Path) -> None:
    for name, prefix in (("net", ""), ("onedict", "batch_")):
        done = call("export", f"{source}:{name}", "--data", f"{source}:data", *COMMON, tmp_path / name)
        assert done.code == 0, done.err
        assert [n for n, _ in doors(tmp_path / name)[0]] == [f"{prefix}image", f"{prefix}extra_mask"]
        assert "example inputs" not in done.out  # parity was taken on the data


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "picture=1,3,12,12"], "its forward takes image, extra"),
        (["--input", "extra.mask=1,1,12,12", "--input", "image=1,3,12,12"], "takes its inputs in the order image, extra_mask"),
        (["--input", "image=1,3,12,12", "--input", "1,1,12,12"], "an input without a name follows one with a name"),
        (["--input", "im age=1,3,12,12"], "is not the way to an input"),
        (["--input", "image=1,3,12,12", "--input", "extra.mask=1,1,12,12", "--dynamic", "2"], "say whose axes: --dynamic image=2,3"),
        (
            ["--input", "image=1,3,12,12", "--input", "extra.mask=1,1,12,12", "--dynamic", "image=2"],
            "axis 2 of input 'image' can't be free",
        ),
    ],
)
def test_wrong_doors_are_told_in_one_line(call: Any, source: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    done = call("export", f"{source}:net", *arguments, *COMMON, tmp_path / "a")
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "a").exists()
