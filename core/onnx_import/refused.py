"""Operators that are not imported, each with its reason and what to try."""

from __future__ import annotations

from typing import NamedTuple

CONTROL = "it chooses a path or a number of turns while it runs; a graph of torch.export has one fixed path"
CONTROL_REMEDY = "simplify the file with fixed input sizes first (onnxslim, onnxsim), or export the PyTorch model without the branch"
QUANTIZED = "the file is quantized already; packlight quantizes float models itself, so that one calibration serves every format"
QUANTIZED_REMEDY = "give the float model that it was made from"
SIZES = "the size of what it gives depends on the numbers that go in"
SIZES_REMEDY = "cut the model before it (onnx.utils.extract_model) and do that step in the app"
SEQUENCE = "it works on lists of tensors or on text"
RANDOM = "it draws random numbers; nothing could be proven about the import"
RANDOM_REMEDY = "make the noise an input of the model"
LIBRARY = "torch itself has no such operator"
REWRITE = "export the PyTorch model itself (file.py:factory or .pt2), or rewrite that layer before exporting to ONNX"


class Refusal(NamedTuple):
    """Why an operator isn't imported, and what to try."""

    why: str
    remedy: str


_GROUPS: tuple[tuple[str, str, str], ...] = (
    ("If Loop Scan SequenceMap", CONTROL, CONTROL_REMEDY),
    (
        "QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger QLinearAdd QLinearMul "
        "QLinearConcat QLinearAveragePool QLinearGlobalAveragePool QLinearLeakyRelu QLinearSigmoid QGemm",
        QUANTIZED,
        QUANTIZED_REMEDY,
    ),
    ("NonZero Compress Unique NonMaxSuppression", SIZES, SIZES_REMEDY),
    (
        "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence ConcatFromSequence "
        "Optional OptionalGetElement OptionalHasElement StringConcat StringNormalizer StringSplit RegexFullMatch TfIdfVectorizer",
        SEQUENCE,
        REWRITE,
    ),
    ("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli", RANDOM, RANDOM_REMEDY),
    ("RoiAlign MaxRoiPool DeformConv MaxUnpool Col2Im", LIBRARY, REWRITE),
)
_TABLE = {op: Refusal(why, remedy) for ops, why, remedy in _GROUPS for op in ops.split()}


def refusal(domain: str, op: str) -> Refusal:
    """The reason for an operator without a converter."""
    if op in _TABLE:
        return _TABLE[op]
    if domain in ("com.microsoft", "com.ms.internal.nhwc"):
        return Refusal("ONNX Runtime fused it into an operator of its own", "give the file as it was before ONNX Runtime optimised it")
    if domain not in ("", "ai.onnx"):
        return Refusal(f"it is of the domain '{domain}', not one of ONNX's own", REWRITE)
    return Refusal("it has no converter here", REWRITE)
