"""What the tests of TFLite files share: capture, write, run in LiteRT with and without its XNNPACK delegate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ai_edge_litert.interpreter", reason="needs packlight[tflite]")


def litert(path: Path, signature: Any, inputs: Sequence[np.ndarray], xnnpack: bool = True) -> list[np.ndarray]:
    """The outputs of a file for logical inputs, as logical arrays."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from packlight.core.tensor import from_door, to_door

    kind = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=kind)
    runner = interpreter.get_signature_runner()
    given = {s.name: to_door(v, s) for s, v in zip(signature.inputs, inputs, strict=True)}
    out = runner(**given)
    return [from_door(out[s.name], s) for s in signature.outputs]


@pytest.fixture
def run_file() -> Callable[..., list[np.ndarray]]:
    return litert


@pytest.fixture
def emit(tmp_path: Path) -> Callable[..., Any]:
    """``emit(bundle, **options)`` -> (path, Written)."""
    from packlight.export.exporter import Options
    from packlight.export.tflite.exporter import TfliteExporter

    def write(bundle: Any, **options: Any) -> tuple[Path, Any]:
        written = TfliteExporter().write(bundle, tmp_path, Options(**options), None)  # type: ignore[arg-type]
        return tmp_path / written.file, written

    return write


@pytest.fixture
def same_as_torch(emit: Callable[..., Any]) -> Callable[..., Any]:
    """``same_as_torch(module, *inputs)``: the float file gives what torch gives, with and without XNNPACK; returns ``Written``.

    ``names`` say in a failure which output it is.
    """
    from packlight.core.bundle import Bundle

    def check(module: torch.nn.Module, *inputs: torch.Tensor, rtol: float = 1e-5, names: Sequence[str] = (), **options: Any) -> Any:
        bundle = Bundle.capture(module.eval(), inputs, free_batch=False)
        path, written = emit(bundle, **options)
        expected = [t.numpy() for t in bundle.run(*inputs)]
        for xnnpack in (False, True):
            got = litert(path, written.signature, [t.numpy() for t in inputs], xnnpack)
            assert len(got) == len(expected)
            for i, (g, e) in enumerate(zip(got, expected, strict=True)):
                name = names[i] if names else f"output {i}"
                assert g.shape == e.shape, name
                assert g.dtype == e.dtype, name
                scale = max(1.0, float(np.abs(e).max())) if e.dtype.kind == "f" and e.size else 1.0
                np.testing.assert_allclose(g, e, rtol=rtol, atol=rtol * scale, err_msg=f"{name} (XNNPACK {xnnpack})")
        return written

    return check


@pytest.fixture
def every_way() -> Any:
    """``every_way(path, signature, inputs)``: the logical outputs by interpreter: LiteRT with and without XNNPACK, and tflite-runtime 2.14
    so, where PACKLIGHT_TFLITE_RUNTIME names a folder that has it."""
    from tflite_cases import run_ways
    from tflite_cases.aside import Aside, missing

    from packlight.core.tensor import from_door, to_door

    old = None if missing() else Aside()

    def run(path: Path, signature: Any, inputs: Sequence[torch.Tensor]) -> dict[str, list[np.ndarray]]:
        given = {s.name: to_door(v.numpy(), s) for s, v in zip(signature.inputs, inputs, strict=True)}
        found = run_ways(path.read_bytes(), given, old)
        return {way: [from_door(got[s.name], s) for s in signature.outputs] for way, got in found.items()}

    yield run
    if old is not None:
        old.close()
