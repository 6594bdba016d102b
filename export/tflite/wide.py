"""Which operators compute on int16 activations (weights stay int8): those that both interpreters compute right.

By the random cases of benchmarks/tflite/properties.py: ai-edge-litert 2.3 and tflite-runtime 2.14, with and without XNNPACK. What is left
out has no int16 kernel in one of them (ARG_MAX, GELU, PRELU, TILE, ELU), is coarse (RESIZE_BILINEAR has 10 bits of position) or aborts
there (broadcasts of five axes); it stays float between DEQUANTIZE and QUANTIZE.
"""

from __future__ import annotations

from .graph import Op

KNOWN = frozenset(
    f"aten.{name}"
    for name in (
        *("conv1d.default", "conv2d.default", "conv1d.padding", "conv2d.padding", "linear.default"),
        *("conv_transpose1d.default", "conv_transpose2d.input", "matmul.default", "bmm.default", "mm.default"),
        *("relu.default", "relu6.default", "hardtanh.default", "clamp.default", "clamp_min.default", "clamp_max.default"),
        *("leaky_relu.default", "sigmoid.default", "tanh.default", "silu.default", "hardswish.default", "softmax.int", "_softmax.default"),
        *("add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "rsub.Scalar", "mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar"),
        *("minimum.default", "maximum.default", "mean.dim", "amax.default", "amin.default"),
        *("max_pool1d.default", "max_pool2d.default", "avg_pool1d.default", "avg_pool2d.default"),
        *("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "_adaptive_avg_pool2d.default", "adaptive_max_pool2d.default"),
        *("upsample_nearest1d.vec", "upsample_nearest2d.vec", "_upsample_nearest_exact2d.vec", "pixel_shuffle.default"),
        *("channel_shuffle.default", "cat.default", "stack.default", "split.Tensor", "split_with_sizes.default", "chunk.default"),
        *("tensor_split.sections", "unbind.int", "slice.Tensor", "select.int", "index_select.default", "gather.default", "flip.default"),
        *("constant_pad_nd.default", "pad.default", "reflection_pad1d.default", "reflection_pad2d.default", "replication_pad1d.default"),
        *("replication_pad2d.default", "view.default", "reshape.default", "_unsafe_view.default", "flatten.using_ints", "permute.default"),
        *("transpose.int", "squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default", "t.default", "roll.default"),
    )
) | {"packlight.requantize"}


def runs_wide(op: Op) -> bool:
    """Whether the operator may read and give int16."""
    values = [*(r.value for r in op.reads()), *op.outputs]
    return op.name in KNOWN and all(len(v.shape) <= 4 for v in values)
