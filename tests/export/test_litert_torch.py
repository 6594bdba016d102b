"""The fallback converter: what is rewritten for it computes the same, its files are finished as ours are, its refusals carry reasons."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from packlight.core.bundle import Bundle
from packlight.core.errors import InputError, MissingDependencyError
from packlight.export.exporter import Options
from packlight.export.formats import exporter
from packlight.export.litert_torch.rewrite import rewrite
from packlight.export.run import export_bundle
from packlight.targets.load import load_target

THERE = importlib.util.find_spec("litert_torch") is not None
needs_oracle = pytest.mark.skipif(not THERE, reason="needs packlight[oracle] (litert-torch)")


def _bundle(module: nn.Module, *inputs: torch.Tensor, **fields: Any) -> Bundle:
    torch.manual_seed(0)
    return Bundle.capture(module.eval(), inputs, name="tiny", **fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 0, output_padding=1),
        lambda: nn.ConvTranspose2d(4, 6, (3, 5), (2, 3), (1, 0), output_padding=(0, 2), groups=2, bias=False),
        lambda: nn.ConvTranspose2d(4, 6, 4, 3, 2, output_padding=2, dilation=2),
        lambda: nn.InstanceNorm2d(4),
        lambda: nn.InstanceNorm2d(4, affine=True, eps=1e-2),
        lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(4), nn.ReLU()),
    ],
)
def test_a_rewritten_graph_computes_the_same(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    module = make()
    for name, value in module.named_buffers():
        value.uniform_(0.5, 2.0) if name.endswith("running_var") else None
    for value in module.parameters():
        value.data += 0.1
    bundle = _bundle(module, torch.randn(2, 4, 7, 6))
    graph = rewrite(bundle.export(batch=3).module(check_guards=False))  # type: ignore[arg-type]
    assert not any("instance_norm" in str(n.target) for n in graph.graph.nodes)
    assert all(not any(n.args[5]) for n in graph.graph.nodes if "conv_transpose" in str(n.target))
    x = torch.randn(3, 4, 7, 6)
    torch.testing.assert_close(graph(x), bundle.run(x)[0], rtol=1e-5, atol=1e-5)


def test_quantized_weights_are_the_same_integers(in_int8: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1))
    integer, _ = in_int8(module, torch.randn(8, 3, 9, 9))
    graph = rewrite(integer.export(batch=2).module(check_guards=False))
    weights = [n for n in graph.graph.nodes if "quantized_decomposed.quantize_per_channel" in str(n.target)]
    assert len(weights) == 2
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(graph(x), integer.run(x)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("float_doors", [False, True])
def test_a_finished_file_has_the_names_and_doors_asked_for(in_int8: Any, tmp_path: Path, float_doors: bool) -> None:
    """Held against the emitter's own file, which is given the names that litert-torch gives."""
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs packlight[tflite]")
    from packlight.export.litert_torch.edit import finish, look
    from packlight.targets.runtime import open_session

    integer, _ = in_int8(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.randn(8, 3, 9, 9))
    spec = integer.signature
    named = integer.replace(
        signature=type(spec)(
            tuple(_named(s, f"args_{i}") for i, s in enumerate(spec.inputs)),
            tuple(_named(s, f"output_{i}") for i, s in enumerate(spec.outputs)),
        )
    )
    written = exporter("tflite").write(named, tmp_path, Options(precision="int8", doors="integer"), None)  # type: ignore[arg-type]
    data = finish((tmp_path / written.file).read_bytes(), ["image"], ["answer"], {"packlight": b"{}"}, float_doors=float_doors)
    (tmp_path / "finished.tflite").write_bytes(data)
    seen = look(data, "int8")
    assert seen.inputs[0].dtype == ("float32" if float_doors else "int8")
    assert seen.ops.requantizes == (2 if float_doors else 0)
    assert seen.ops.float_left == ()
    session = open_session(tmp_path / "finished.tflite", "litert")
    assert [d.name for d in (*session.inputs, *session.outputs)] == ["image", "answer"]
    before = open_session(tmp_path / written.file, "litert")
    q = np.random.default_rng(0).integers(-128, 128, before.inputs[0].shape, np.int8)
    (expected,) = before.run(q)
    into, out = written.signature.inputs[0].quantization, written.signature.outputs[0].quantization
    assert into is not None
    assert out is not None
    if float_doors:
        (got,) = session.run((q.astype(np.float32) - into.zero_point) * np.float32(into.scale))
        np.testing.assert_allclose(got, (expected.astype(np.float32) - out.zero_point) * np.float32(out.scale), atol=1e-6)
    else:
        np.testing.assert_array_equal(session.run(q)[0], expected)


def test_unknown_converters_and_wrong_formats_are_refused() -> None:
    with pytest.raises(InputError, match="unknown converter 'litert-tosch' \\(did you mean 'litert-torch'\\?\\)"):
        exporter("tflite", "litert-tosch")
    with pytest.raises(InputError, match="litert-torch does not write onnx, only tflite; add --format tflite"):
        exporter("onnx", "litert-torch")


def test_what_it_can_not_write_is_refused_before() -> None:
    one, target = exporter("tflite", "litert-torch"), load_target("x86-64-avx2")
    bundle = _bundle(nn.Conv2d(3, 4, 1), torch.randn(2, 3, 5, 5))
    for options in (Options(precision="fp16"), Options(precision="int8"), Options(doors="integer")):
        verdict = one.check(bundle, options, target)
        assert not verdict
        assert len(verdict.why) > 20
    assert one.check(bundle, Options(), target)


@pytest.mark.skipif(THERE, reason="litert-torch is installed")
def test_without_the_package_the_extra_is_named(tmp_path: Path) -> None:
    bundle = _bundle(nn.Conv2d(3, 4, 1), torch.randn(2, 3, 5, 5))
    with pytest.raises(MissingDependencyError, match=r"pip install 'packlight\[oracle\]'"):
        export_bundle(bundle, tmp_path, ["tflite"], Options(converter="litert-torch"), load_target("x86-64-avx2"))
    assert list(tmp_path.iterdir()) == []


class _Branches(nn.Module):
    """Two inputs, two outputs, one of them no image; a layer that litert-torch must be given otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1)

    def forward(self, image: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.up(image)
        return {"map": torch.relu(y), "score": y.mean((2, 3)) * scale}


@needs_oracle
def test_a_float_file_is_proven_and_says_who_wrote_it(tmp_path: Path) -> None:
    bundle = _bundle(_Branches(), torch.randn(2, 3, 6, 5), torch.randn(2, 4), output_names=("map", "score"))
    (made,) = export_bundle(bundle, tmp_path, ["tflite"], Options(converter="litert-torch"), load_target("x86-64-avx2"))
    assert made.converter.startswith("litert-torch 0.")
    assert [(s.name, s.shape, s.layout) for s in made.signature.inputs] == [("image", (1, 6, 5, 3), "NHWC"), ("scale", (1, 4), "")]
    assert [(s.name, s.shape) for s in made.signature.outputs] == [("map", (1, 12, 10, 4)), ("score", (1, 4))]
    assert min(p.sqnr_db for p in made.parity) > 100  # type: ignore[type-var]
    assert made.ops is not None
    assert made.ops.file["TRANSPOSE_CONV"] == 1


@needs_oracle
@pytest.mark.parametrize("doors", ["float32", "integer"])
def test_an_int8_file_keeps_the_scales_of_the_quantized_graph(in_int8: Any, tmp_path: Path, doors: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    integer, floating = in_int8(module, torch.randn(16, 3, 16, 16))
    options = Options(precision="int8", converter="litert-torch", doors=doors)
    (made,) = export_bundle(integer, tmp_path, ["tflite"], options, load_target("x86-64-avx2"), float_bundle=floating)
    ours = exporter("tflite").write(integer, tmp_path, Options(precision="int8", doors="integer"), None)  # type: ignore[arg-type]
    assert made.ops is not None
    assert made.ops.float_left == ()
    assert made.signature.inputs[0].dtype == ("int8" if doors == "integer" else "float32")
    if doors == "integer":
        for a, b in zip(made.signature.inputs + made.signature.outputs, ours.signature.inputs + ours.signature.outputs, strict=True):
            assert a.quantization == b.quantization


@needs_oracle
def test_what_litert_torch_can_not_convert_is_one_line(tmp_path: Path) -> None:
    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvalsh(x @ x.mT)

    bundle = _bundle(Sorted(), torch.randn(2, 4, 4))
    with pytest.raises(InputError, match="litert-torch can't convert 'tiny': ") as caught:
        export_bundle(bundle, tmp_path, ["tflite"], Options(converter="litert-torch"), load_target("x86-64-avx2"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def _named(spec: Any, name: str) -> Any:
    import msgspec

    return msgspec.structs.replace(spec, name=name)
