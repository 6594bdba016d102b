"""Normalisations."""

from __future__ import annotations

from ..fuse import affine
from ..layout import channels_last
from ..lower import Site, lowers


@lowers("aten._native_batch_norm_legit_no_training.default", "aten.batch_norm.default")
def batch_norm(s: Site) -> None:
    """A BatchNorm that no layer before could take: x * scale + shift, MUL and ADD."""
    if s["training"]:
        raise s.refuse("it normalises with the batch's own statistics", "call model.eval() before exporting")
    scale, shift = affine(s.op)
    order = channels_last(len(s.out.shape))
    x = s.tensor(s["input"], order)
    y = s.same("MUL", [x, s.const(scale.numpy())], fusedActivationFunction="NONE")
    s.put(s.same("ADD", [y, s.const(shift.numpy())], fusedActivationFunction=s.op.fused), order)
