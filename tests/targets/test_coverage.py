"""Operator lists against written files: what falls back, into how many pieces, and ONNX Runtime's own checker as the judge of that."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from packlight.core.errors import TargetError
from packlight.targets.coverage import lint, lint_graph, list_names, load_list
from packlight.targets.coverage.graph import Graph, Node, Value, read_graph
from packlight.targets.coverage.partition import partitions
from packlight.targets.load import load_target, target_names


def image_net(path: Path, batch: int | str = 1, resize: str = "linear") -> Path:
    """Conv, GELU's Erf, Resize, Conv: two convolutions around two operators that lists differ about."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w1"),
        numpy_helper.from_array(rng.standard_normal((2, 4, 3, 3)).astype(np.float32), "w2"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem", pads=[1] * 4),
        helper.make_node("Erf", ["a"], ["b"], name="gelu"),
        helper.make_node("Resize", ["b", "", "scales"], ["c"], name="up", mode=resize),
        helper.make_node("Conv", ["c", "w2"], ["y"], name="head", pads=[1] * 4),
    ]
    doors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, c, s, s]) for n, c, s in (("x", 3, 8), ("y", 2, 16))]
    model = helper.make_model(helper.make_graph(nodes, "g", doors[:1], doors[1:], weights), opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def test_an_operator_off_the_list_cuts_the_graph(tmp_path: Path) -> None:
    found = lint(image_net(tmp_path / "m.onnx"), "onnx", "nnapi")
    (gap,) = found.gaps
    assert (gap.op, gap.layer, gap.count) == ("Erf", "gelu", 1)
    assert "not on the list" in gap.why
    assert gap.remedy
    assert (found.operators, found.elsewhere, found.partitions) == (4, 1, 2)
    assert not found.whole
    assert found.notes()[0].startswith("1 of 4 operators don't run in NNAPI, in 2 pieces")


@pytest.mark.parametrize(("mode", "list_name", "elsewhere"), [("linear", "tensorrt", 0), ("cubic", "tensorrt", 1), ("linear", "qnn", 1)])
def test_conditions_are_checked_in_the_file(mode: str, list_name: str, elsewhere: int, tmp_path: Path) -> None:
    found = lint(image_net(tmp_path / "m.onnx", resize=mode), "onnx", list_name)
    assert found.elsewhere == elsewhere
    assert found.whole == (elsewhere == 0)


def test_free_axes_where_only_fixed_shapes_run(tmp_path: Path) -> None:
    found = lint(image_net(tmp_path / "m.onnx", batch="batch"), "onnx", "qnn")
    assert found.elsewhere == found.operators
    assert "--batch 1" in found.gaps[0].remedy


def chain(*ops: str) -> list[Node]:
    return [Node(op, op.lower(), (Value(str(i)),), (Value(str(i + 1)),)) for i, op in enumerate(ops)]


@pytest.mark.parametrize(
    ("taken", "pieces"),
    [([True] * 4, 1), ([False] * 4, 0), ([True, False, True, True], 2), ([False, True, False, True], 2), ([True, True, False, False], 1)],
)
def test_pieces_of_a_chain(taken: list[bool], pieces: int) -> None:
    assert len(partitions(chain("A", "B", "C", "D"), taken)) == pieces


def test_branches_do_not_count_twice() -> None:
    """Two CPU operators side by side between two pieces: the accelerator is entered twice, not three times."""
    v = [Value(n) for n in "xabcde"]
    nodes = [
        Node("A", "", (v[0],), (v[1],)),
        Node("B", "", (v[1],), (v[2],)),
        Node("A", "", (v[1],), (v[3],)),
        Node("B", "", (v[3],), (v[4],)),
        Node("A", "", (v[2], v[4]), (v[5],)),
    ]
    assert [len(p) for p in partitions(nodes, [n.op == "A" for n in nodes])] == [2, 1]


def test_one_piece_alone(tmp_path: Path) -> None:
    """An Edge TPU leaves everything behind the first refused operator to the CPU."""
    nodes = tuple(
        Node(op, op, (Value(str(i), (1, 4, 4, 8), "int8"),), (Value(str(i + 1), (1, 4, 4, 8), "int8"),))
        for i, op in enumerate(("CONV_2D", "CONV_2D", "HARD_SWISH", "CONV_2D", "ADD"))
    )
    found = lint_graph(Graph(nodes, nodes[0].inputs, nodes[-1].outputs), load_list("edge-tpu"))  # type: ignore[arg-type]
    assert (found.elsewhere, found.partitions) == (3, 1)
    assert [g.op for g in found.gaps] == ["HARD_SWISH", "CONV_2D"]


def test_onnx_runtime_s_own_checker_agrees(tmp_path: Path, captured) -> None:
    """The checker in the onnxruntime wheel finds the same operators off its lists, and, where no condition differs, as many pieces."""
    from onnxruntime.tools.mobile_helpers.usability_checker import check_coreml_partitions, check_nnapi_partitions

    from packlight.export.exporter import Options
    from packlight.export.formats import exporter

    file = tmp_path / exporter("onnx").write(captured("cyclegan"), tmp_path, Options(batch=1), None).file
    for path in (file, image_net(tmp_path / "m.onnx")):
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
        theirs = {
            "nnapi": check_nnapi_partitions(model, False),
            "coreml-mlprogram": check_coreml_partitions(model, False, "coreml_supported_mlprogram_ops.md"),
        }
        for name, info in theirs.items():
            ours = lint(path, "onnx", name)
            off = [g for g in ours.gaps if "not on the list" in g.why]
            assert {g.op for g in off} == {op.rpartition(":")[2] for op in info.unsupported_ops}
            assert sum(g.count for g in off) == info.nodes_unsupported_due_to_op
            if len(off) == len(ours.gaps):
                assert ours.partitions == info.num_partitions


def test_tflite_files(tmp_path: Path, captured) -> None:
    from packlight.export.exporter import Options
    from packlight.export.formats import exporter

    written = exporter("tflite").write(captured("superres"), tmp_path, Options(), load_target("android-arm64-gpu"))
    graph = read_graph(tmp_path / written.file, "tflite")
    assert {n.op: sum(m.op == n.op for m in graph.nodes) for n in graph.nodes} == written.ops.file
    assert any(v is not None and v.constant for v in graph.nodes[0].inputs)
    assert lint(tmp_path / written.file, "tflite", "tflite-gpu").whole
    assert lint(tmp_path / written.file, "tflite", "edge-tpu").elsewhere == len(graph.nodes)


@pytest.mark.parametrize("name", list_names())
def test_lists_are_sound(name: str) -> None:
    found = load_list(name)
    assert found.name == name
    assert len(found.operators) > 30
    assert found.url.startswith("https://")
    assert found.source
    names = {"onnx": {s.name for s in onnx.defs.get_all_schemas_with_history()}}
    if found.format == "onnx":
        extra = {"ImageScaler", "ParametricSoftplus", "ScaledTanh", "Inverse"}  # retired or contributed operators that the lists still hold
        own = {op for op in found.operators if ":" not in op}
        assert own <= names["onnx"] | extra
    else:
        from ai_edge_litert import schema_py_generated as schema

        assert set(found.operators) <= set(vars(schema.BuiltinOperator))


def test_profiles_name_lists_of_their_format() -> None:
    used = {r.operators for t in map(load_target, target_names()) for r in t.runtimes if r.operators}
    assert {"tflite-gpu", "edge-tpu", "coreml-mlprogram", "tensorrt", "qnn"} <= used


def test_a_wrong_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"unknown operator list 'tensort' \(did you mean 'tensorrt'\?\)"):
        load_list("tensort")
    mine = tmp_path / "mine.toml"
    text = 'schema = 1\nname = "m"\nruntime = "M"\nformat = "onnx"\nsource = "s"\nurl = "u"\n[operators]\nConv = ""\n'
    mine.write_text(text)
    assert load_list(str(mine)).operators == {"Conv": ""}
    mine.write_text(text + '[[limits]]\nop = "Gemm"\nwhy = "w"\n')
    with pytest.raises(TargetError, match="limits operators that it doesn't hold: Gemm"):
        load_list(str(mine))
    mine.write_text(text.replace("runtime", "runtimes"))
    with pytest.raises(TargetError, match=re.escape("unknown field `runtimes`")):
        load_list(str(mine))
