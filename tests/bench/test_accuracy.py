from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from packlight.bench.accuracy import agreement, score_artifacts, with_scores
from packlight.bench.stage import Stage, fixed_rows
from packlight.core.errors import DataError
from packlight.core.report import Measurement
from packlight.core.tensor import DoorQuantization, Signature, TensorSpec, to_door
from packlight.targets.link.local import Local


def test_every_runtime_scores_what_numpy_scores(files: Any) -> None:
    """Label noise is known: every tenth label is wrong. Doors differ: NCHW with a free batch, NHWC with a batch of one."""
    data = files.data(count := 130)
    subjects = [
        (files.onnx, files.folder, "onnxruntime"),
        (files.openvino, files.folder, "openvino"),
        (files.tflite, files.folder, "litert"),
        (files.write_onnx("three.onnx", batch=3), files.folder, "onnxruntime"),
    ]
    with Local() as link:
        scores = score_artifacts(subjects, link, samples=data, task=files.task(), keep_outputs=True)
    expected = files.reference(data.x)
    for score in scores:
        np.testing.assert_allclose(score.outputs[0], expected, rtol=1e-4, atol=1e-5)
        assert score.metric.n == score.n == count
        assert score.metric.value == pytest.approx(np.mean(expected.argmax(1) == data.y))
        assert agreement(scores[0], score) == 1
    assert [s.rows for s in scores] == [min(count, 128), min(count, 128), 1, 3]


def test_a_single_sample_will_do(files: Any) -> None:
    three = (files.write_onnx("three.onnx", batch=3), files.folder, "onnxruntime")
    with Local() as link:
        (score,) = score_artifacts([three], link, samples=files.data(1), task=files.task(), keep_outputs=True)
    np.testing.assert_allclose(score.outputs[0], files.reference(files.data(1).x), rtol=1e-4, atol=1e-5)


def test_a_limit_takes_the_first_samples(files: Any) -> None:
    with Local() as link:
        (score,) = score_artifacts([(files.onnx, files.folder, "onnxruntime")], link, samples=files.data(20), task=files.task(), limit=7)
    assert score.n == 7
    assert score.outputs == ()


class TwoSizes:
    """Every third sample is smaller than the file's input."""

    def __init__(self, data: Any) -> None:
        self.data, self.classes, self.source = data, data.classes, "two sizes"

    def __len__(self) -> int:
        return len(self.data)

    def shape_of(self, index: int) -> str:
        return "small" if index % 3 == 0 else "as it is"

    def batch(self, indices: Any) -> Any:
        (x,), y = self.data.batch(indices)
        return (x[:, :, :-1] if self.shape_of(indices[0]) == "small" else x,), y

    def raw(self, index: int) -> None:
        return None


def test_a_file_of_one_size_is_not_scored_on_others_and_says_why(files: Any) -> None:
    subjects = [(files.onnx, files.folder, "onnxruntime"), (files.tflite, files.folder, "litert")]
    with Local() as link:
        scores = score_artifacts(subjects, link, samples=TwoSizes(files.data(12)), task=files.task())
    for score in scores:
        assert score.metric is None
        assert "images of 16x16 only" in score.why
    bare = Measurement(file="net.fp32.onnx", format="onnx", runtime="onnxruntime", precision="fp32", bytes=1, sha256="0")
    assert "give all one size with --crop" in with_scores([bare], scores)[0].why["metric"]


def test_metrics_join_measurements_and_absences_have_reasons(files: Any) -> None:
    with Local() as link:
        scores = score_artifacts([(files.onnx, files.folder, "onnxruntime")], link, samples=files.data(20), task=files.task())
    bare = Measurement(file="net.fp32.onnx", format="onnx", runtime="onnxruntime", precision="fp32", bytes=1, sha256="0")
    first, second = with_scores([bare, msgspec.structs.replace(bare, file="other.onnx")], scores)
    assert first.metric == scores[0].metric
    assert second.metric is None
    assert second.why["metric"] == "the file was not scored"


def test_stage_writes_each_door_once_and_keeps_targets(files: Any) -> None:
    data = files.data(600)  # more than one chunk
    nchw = TensorSpec(name="x", shape=("batch", 3, 16, 16), layout="NCHW")
    same = msgspec.structs.replace(nchw, name="other")
    one = msgspec.structs.replace(nchw, shape=(1, 3, 16, 16))
    integer = TensorSpec(name="x", shape=(1, 16, 16, 3), layout="NHWC", dtype="int8", quantization=DoorQuantization(0.05, 3))
    signatures = [Signature((spec,), ()) for spec in (nchw, same, one, integer)]
    with Stage(data, signatures) as stage:
        paths = [stage.files(s)[0] for s in signatures]
        assert len(set(paths)) == 2
        np.testing.assert_array_equal(np.load(paths[0]), data.x)
        stored = np.load(paths[3])
        assert stored.dtype == np.int8
        np.testing.assert_array_equal(stored[:1], to_door(data.x[:1], integer))
        np.testing.assert_array_equal(stored[599:], to_door(data.x[599:], integer))
        np.testing.assert_array_equal(stage.targets, data.y)
    assert not stage.folder.exists()
    assert [fixed_rows(s) for s in signatures] == [None, None, 1, 1]


def test_stage_refuses_nothing_and_too_few_inputs(files: Any) -> None:
    spec = TensorSpec(name="x", shape=("batch", 3, 16, 16))
    with pytest.raises(DataError, match="no samples"):
        Stage(np.zeros((0, 3, 16, 16), np.float32), [Signature((spec,), ())])
    with pytest.raises(DataError, match="2 or more inputs"):
        Stage(files.data(2), [Signature((spec, spec), ())])
