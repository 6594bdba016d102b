"""ONNX files from elsewhere: onnx's own backend tests as the truth for operators, ONNX Runtime for whole files, and files not trusted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from packlight.core.errors import InputError, ModelError, ParityError, UnsupportedOpError
from packlight.core.load import load_model
from packlight.core.onnx_import import ops, prove
from packlight.core.onnx_import.call import converters
from packlight.core.onnx_import.refused import refusal

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "onnx"))

RNG = np.random.default_rng(0)


def save(path: Path, nodes: list, inputs: dict, outputs: dict, weights: dict | None = None, opset: int = 17, **fields: object) -> Path:
    """A model from its parts; shapes of doors as given, names of axes included."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **fields)
    model.ir_version = 8
    onnx.save(model, path)
    return path


def weight(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def small(path: Path, batch: int | str = 1) -> Path:
    """Conv, ReLU, a reshape with the batch written into it, Gemm."""
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], name="/conv/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="/relu/Relu"),
        helper.make_node("Reshape", ["b", "shape"], ["c"], name="/Reshape"),
        helper.make_node("Gemm", ["c", "fc.weight", "fc.bias"], ["scores"], name="/fc/Gemm", transB=1),
    ]
    weights = {"conv.weight": weight(4, 3, 3, 3), "conv.bias": weight(4), "fc.weight": weight(5, 144), "fc.bias": weight(5)}
    first = batch if isinstance(batch, int) else 0
    return save(path, nodes, {"x": [batch, 3, 6, 6]}, {"scores": [batch, 5]}, weights | {"shape": np.array([first, 144])})


def test_names_and_layers_are_kept(tmp_path: Path) -> None:
    bundle = load_model(str(small(tmp_path / "net.onnx", "N")))
    assert bundle.name == "net"
    assert sorted(bundle.graph.state_dict()) == ["conv.bias", "conv.weight", "fc.bias", "fc.weight"]
    assert [s.name for s in bundle.signature.inputs] == ["x"]
    assert [(s.name, s.shape) for s in bundle.signature.outputs] == [("scores", ("batch", 5))]
    ops_used = [str(n.target) for n in bundle.graph.graph.nodes if n.op == "call_function"]
    assert [o for o in ops_used if "sym_size" not in o] == [
        "aten.conv2d.default",
        "aten.relu.default",
        "aten.reshape.default",
        "aten.linear.default",
    ]
    assert bundle.history[0].name == "import-onnx"


@pytest.mark.parametrize("batch", [1, 3, "N"])
def test_a_batch_that_the_file_fixed_is_freed(batch: int | str, tmp_path: Path) -> None:
    path = small(tmp_path / "net.onnx", batch)
    bundle = load_model(str(path))
    assert bundle.signature.inputs[0].shape[0] == "batch"
    rows = weight(6, 3, 6, 6)
    step = batch if isinstance(batch, int) else 6
    theirs = np.concatenate([prove.run(path, ["x"], [rows[i : i + step]])[0] for i in range(0, 6, step)])
    np.testing.assert_allclose(bundle.run(torch.from_numpy(rows))[0].numpy(), theirs, rtol=1e-4, atol=1e-5)


def test_rows_that_depend_on_each_other_keep_the_batch(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Sub", ["x", "m"], ["y"])]
    bundle = load_model(str(save(tmp_path / "m.onnx", nodes, {"x": [4, 3]}, {"y": [4, 3]})))
    assert bundle.signature.inputs[0].shape == (4, 3)


def test_free_axes_keep_their_names(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "two", "four"], ["hw"]),
        helper.make_node("Mul", ["hw", "twice"], ["double"]),
        helper.make_node("Concat", ["nc", "double"], ["sizes"], axis=0),
        helper.make_node(
            "Resize", ["x", "", "", "sizes"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        ),
    ]
    weights = {"two": np.array([2]), "four": np.array([4]), "twice": np.array([2, 2]), "nc": np.array([1, 3])}
    path = save(tmp_path / "up.onnx", nodes, {"x": [1, 3, "height", "width"]}, {"y": [1, 3, "H", "W"]}, weights)
    with pytest.raises(ModelError, match=r"input 'x' has free axes \(height, width\); give --data, or every input's shape with --input"):
        load_model(str(path))
    bundle = load_model(str(path), inputs=[(1, 3, 6, 8)])
    assert bundle.signature.inputs[0].shape == (1, 3, "height", "width")
    x = weight(1, 3, 10, 4)
    np.testing.assert_array_equal(bundle.run(torch.from_numpy(x))[0].numpy(), x.repeat(2, 2).repeat(2, 3))


def test_a_bias_behind_a_matmul_is_the_layer_s(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"], name="fc/MatMul"), helper.make_node("Add", ["b", "a"], ["y"])]
    bundle = load_model(str(save(tmp_path / "m.onnx", nodes, {"x": ["n", 7, 4]}, {"y": ["n", 7, 3]}, {"w": weight(4, 3), "b": weight(3)})))
    (node,) = [n for n in bundle.graph.graph.nodes if n.op == "call_function"]
    assert str(node.target) == "aten.linear.default"
    assert len(node.args) == 3


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 20])
def test_forms_of_old_and_new_opsets(opset: int, tmp_path: Path) -> None:
    """Clip, Slice, Squeeze, Unsqueeze, ReduceMean, Split, Pad, Softmax and the resize, as each opset writes them."""
    weights: dict[str, np.ndarray] = {}

    def node(op: str, source: str, out: str, attributes: dict, inputs: list[tuple[str, object]], since: int) -> object:
        if opset < since:
            return helper.make_node(op, [source], out.split(), **attributes)
        names = []
        for name, value in inputs:
            if value is None:
                names.append("")
                continue
            weights[f"{out}.{name}"] = np.asarray(value)
            names.append(f"{out}.{name}")
        rest = {k: v for k, v in attributes.items() if k not in {n for n, _ in inputs}}
        return helper.make_node(op, [source, *names], out.split(), **rest)

    up = {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "nearest"}
    nodes = [
        node("Clip", "x", "a", {"min": -1.0, "max": 1.0}, [("min", np.float32(-1)), ("max", np.float32(1))], 11),
        node("Slice", "a", "b", {"starts": [1], "ends": [100], "axes": [2]}, [("starts", [1]), ("ends", [100]), ("axes", [2])], 10),
        node("Pad", "b", "c", {"pads": [0, 0, 1, 0, 0, 0, 0, 2], "mode": "reflect"}, [("pads", [0, 0, 1, 0, 0, 0, 0, 2])], 11),
        node("ReduceMean", "c", "d", {"axes": [3], "keepdims": 0}, [("axes", [3])], 18),
        node("Unsqueeze", "d", "e", {"axes": [3]}, [("axes", [3])], 13),
        node("Squeeze", "e", "f", {"axes": [3]}, [("axes", [3])], 13),
        node("Split", "f", "g h", {"axis": 2, "split": [2, 4]}, [("split", [2, 4])], 13),
        helper.make_node("Softmax", ["h"], ["i"], axis=1),
        node("Unsqueeze", "i", "j", {"axes": [3]}, [("axes", [3])], 13),
    ]
    if opset < 10:
        nodes.append(node("Upsample", "j", "y", up, [("scales", np.array(up["scales"], np.float32))], 9))
    elif opset < 11:
        nodes.append(node("Resize", "j", "y", up, [("scales", np.array(up["scales"], np.float32))], 10))
    else:
        nodes.append(node("Resize", "j", "y", up, [("roi", np.zeros(0, np.float32)), ("scales", np.array(up["scales"], np.float32))], 11))
    path = save(tmp_path / "m.onnx", nodes, {"x": ["n", 3, 6, 5]}, {"y": ["n", 3, 8, 2]}, weights, opset)
    bundle = load_model(str(path))
    x = weight(4, 3, 6, 5)
    np.testing.assert_allclose(bundle.run(torch.from_numpy(x))[0].numpy(), prove.run(path, ["x"], [x])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(op: str, direction: str, tmp_path: Path) -> None:
    """One torch operator, in every direction, with an initial state and the last state as outputs."""
    ways, gates, hidden = (2 if direction == "bidirectional" else 1), {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 5
    weights = {"w": weight(ways, gates * hidden, 4), "r": weight(ways, gates * hidden, hidden), "b": weight(ways, 2 * gates * hidden)}
    states = ["h0", "c0"] if op == "LSTM" else ["h0"]
    weights |= {s: weight(ways, 2, hidden) for s in states}
    fields = {"linear_before_reset": 1} if op == "GRU" else {}
    nodes = [helper.make_node(op, ["x", "w", "r", "b", "", *states], ["y", "h"], direction=direction, hidden_size=hidden, **fields)]
    path = save(tmp_path / "m.onnx", nodes, {"x": [9, 2, 4]}, {"y": [9, ways, 2, hidden], "h": [ways, 2, hidden]}, weights, 14)
    bundle = load_model(str(path))
    assert sum(f"aten.{op.lower()}" in str(n.target) for n in bundle.graph.graph.nodes) == 1
    x = weight(9, 2, 4)
    for ours, theirs in zip(bundle.run(torch.from_numpy(x)), prove.run(path, ["x"], [x]), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_every_rule_of_resizing(mode: str, rule: str, tmp_path: Path) -> None:
    """Up and down by uneven factors, each rounding of nearest: torch's interpolation where it fits, gathers and matrices elsewhere."""
    for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") if mode == "nearest" else ("floor",):
        nodes = [
            helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode=mode, coordinate_transformation_mode=rule, nearest_mode=rounding)
        ]
        for size in ((14, 3), (4, 10), (2, 7)):
            path = save(tmp_path / "m.onnx", nodes, {"x": [2, 2, 7, 5]}, {"y": [2, 2, *size]}, {"s": np.array([2, 2, *size])})
            bundle = load_model(str(path))
            assert bundle.signature.outputs[0].shape == ("batch", 2, *size)


def test_control_flow_and_quantized_files_are_refused_by_name(tmp_path: Path) -> None:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "b", [], [helper.make_tensor_value_info("t", 1, [2, 3])])
    nodes = [helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)]
    with pytest.raises(UnsupportedOpError, match="the ONNX importer can't do If in layer 'choice': it chooses a path.*onnxslim"):
        load_model(str(save(tmp_path / "m.onnx", nodes, {"x": [2, 3]}, {"y": [2, 3]}, {"c": np.array(True)})))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q0"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    with pytest.raises(UnsupportedOpError, match="QuantizeLinear in layer 'q0': the file is quantized already.*give the float model"):
        load_model(str(save(tmp_path / "q.onnx", nodes, {"x": [2, 3]}, {"y": [2, 3]}, {"s": np.float32(0.1), "z": np.int8(0)})))
    nodes = [helper.make_node("FusedConv", ["x"], ["y"], name="f", domain="com.microsoft")]
    assert "before ONNX Runtime optimised it" in refusal("com.microsoft", "FusedConv").remedy


def test_a_wrong_converter_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof at import is real: with Relu computed as its opposite nothing comes in."""
    path = small(tmp_path / "net.onnx")
    monkeypatch.setitem(converters._things, "Relu", lambda c: -torch.relu(c.tensor(0)))
    with pytest.raises(ParityError, match=r"'net\.onnx' was not imported: its output 'scores' differs from ONNX Runtime's, SQNR"):
        load_model(str(path))


def external(path: Path, place: str, **more: str) -> Path:
    small(path)
    model = onnx.load(path)
    (one,) = [t for t in model.graph.initializer if t.name == "fc.weight"]
    (path.parent / "w.bin").write_bytes(one.raw_data)
    one.ClearField("raw_data")
    one.data_location = TensorProto.EXTERNAL
    for key, value in {"location": place, **more}.items():
        one.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_file(tmp_path: Path) -> None:
    assert load_model(str(external(tmp_path / "m.onnx", "w.bin"))).parameters() == 4 * 27 + 4 + 5 * 144 + 5


@pytest.mark.parametrize(
    ("place", "more", "words"),
    [
        ("../w.bin", {}, "outside its folder"),
        ("/etc/passwd", {}, "outside its folder"),
        ("link.bin", {}, "outside its folder"),
        ("none.bin", {}, "is not beside it"),
        ("w.bin", {"offset": "2000", "length": "2880"}, "behind the end"),
        ("w.bin", {"offset": "x"}, "not a number"),
    ],
)
def test_paths_and_sizes_are_not_trusted(place: str, more: dict[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "w.bin").write_bytes(bytes(5000))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "away" / "w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(5000))
    with pytest.raises(ModelError, match=words) as caught:
        load_model(str(external(tmp_path / "in" / "m.onnx", place, **more)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"junk", b"\x08\x07" * 50, bytes(1000)])
def test_no_onnx_at_all(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="is not an ONNX file") as caught:
        load_model(str(tmp_path / "m.onnx"))
    assert "\n" not in str(caught.value)


def test_a_tensor_as_large_as_a_file_asks_for_is_not_made(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["big"], name="bomb"), helper.make_node("Add", ["x", "big"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"x": [1]}, {"y": [1 << 40]}, {"s": np.array([1 << 40])})
    with pytest.raises(UnsupportedOpError, match=r"ConstantOfShape in layer 'bomb': it would make a tensor of 1099511627776 numbers"):
        load_model(str(path))


def test_an_invalid_file_is_told_so(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["nothing"], ["y"])], {"x": [1, 2]}, {"y": [1, 2]})
    with pytest.raises(InputError, match="is not valid"):
        load_model(str(path))


def test_labels_and_preprocessing_of_our_own_files(tmp_path: Path) -> None:
    path = small(tmp_path / "net.onnx", "N")
    model = onnx.load(path)
    for key, value in {"labels": '["a","b"]', "preprocess": '{"colour":"BGR"}', "task": "classification"}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    bundle = load_model(str(path))
    assert (bundle.labels, bundle.task) == (("a", "b"), "classification")
    assert bundle.preprocess is not None
    assert bundle.preprocess.colour == "BGR"


def test_operators_that_onnx_does_not_test(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["zeros"]),
        helper.make_node("Range", ["from", "to", "by"], ["steps"]),
        helper.make_node("Add", ["zeros", "steps"], ["row"]),
        helper.make_node("Greater", ["x", "row"], ["above"]),
        helper.make_node("Not", ["above"], ["below"]),
        helper.make_node("Where", ["below", "x", "row"], ["least"]),
        helper.make_node("GlobalLpPool", ["least"], ["y"], p=3),
    ]
    bounds = {"from": np.float32(-1), "to": np.float32(1.25), "by": np.float32(0.5)}
    path = save(tmp_path / "m.onnx", nodes, {"x": ["n", 3, 4, 5]}, {"y": ["n", 3, 1, 1]}, bounds | {"s": np.array([3, 4, 5])})
    x = weight(4, 3, 4, 5)
    bundle = load_model(str(path))
    np.testing.assert_allclose(bundle.run(torch.from_numpy(x))[0].numpy(), prove.run(path, ["x"], [x])[0], rtol=1e-5)


def test_every_converter_does_a_test_of_onnx_right() -> None:
    """The contract: whatever is registered is an operator of ONNX, and passes one of its backend tests; none of those tried is wrong."""
    import node_tests

    assert ops.__all__
    names = {s.name for s in onnx.defs.get_all_schemas_with_history()}
    assert {name for name, _ in converters} <= names
    tried, passed, wrong = dict.fromkeys((name for name, _ in converters), 0), set(), []
    for case in node_tests.cases():
        op = case.op
        if case.kind == "node" and (op not in tried or op in passed or "_expanded" in case.name):
            continue
        tried[op] = tried.get(op, 0) + 1
        (outcome,) = node_tests.outcomes([case]).values()
        if outcome == "pass":
            passed.add(op)
        elif not outcome.startswith("refused"):
            wrong.append(f"{case.name}: {outcome}")
    assert wrong == []
    # onnx has no test of these, or only one that asks for what torch can't do; the tests above run them beside ONNX Runtime.
    assert {n for n, _ in converters} - passed == {"ConstantOfShape", "GRU", "GlobalLpPool", "Not", "Range"}
