"""The ten graphs in every interpreter: the same answer, and no TRANSPOSE where images come in and go out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from zoo import ZOO

from packlight.core.bundle import Bundle
from packlight.export.parity import sqnr_db

IMAGES = ("resnet18", "mobilenetv2", "efficientnet", "unet", "dcgan", "superres")  # graphs 1, 2, 3, 4, 5 and 7


@pytest.mark.parametrize("name", ZOO)
def test_float(name: str, folded: Callable[[str], Bundle], emit: Callable[..., Any], every_way: Callable[..., Any]) -> None:
    bundle = folded(name)
    x = bundle.sized(1)
    want = [t.numpy() for t in bundle.run(*x)]
    for precision, limit in (("fp32", 90.0), ("fp16", 35.0)):
        path, written = emit(bundle, precision=precision)
        assert written.ops.transposes == 0 or name not in IMAGES
        for way, got in every_way(path, written.signature, x).items():
            for g, w in zip(got, want, strict=True):
                figure = sqnr_db(w, g)
                assert figure is None or figure > limit, f"{precision} {way}: {figure} dB"


@pytest.mark.parametrize("name", IMAGES)
def test_integer(name: str, quantized: Callable[[str], Bundle], emit: Callable[..., Any], every_way: Callable[..., Any]) -> None:
    """Integer and float doors hold the same numbers; the interpreters differ from the quantized graph by rounding alone."""
    bundle = quantized(name)
    x = bundle.sized(1)
    (want,) = (t.numpy() for t in bundle.run(*x))
    for doors in ("integer", "float32") if name == "superres" else ("integer",):
        path, written = emit(bundle, precision="int8", doors=doors)
        assert written.ops.transposes == 0
        assert written.ops.float_left == ()
        assert {t.dtype for t in (*written.signature.inputs, *written.signature.outputs)} == {"int8" if doors == "integer" else "float32"}
        for way, (got,) in every_way(path, written.signature, x).items():
            figure = sqnr_db(want, got)
            assert figure is None or figure > 12, f"{doors} {way}: {figure} dB"
