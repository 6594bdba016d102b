"""The runtimes installed here, opened in this process: for parity, for judging a quantization, and for ``doctor``.

Not for measuring time: that is ``bench/agent.py``'s, which runs in a process of its own, on the device.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..core.errors import DataError, InputError, MissingDependencyError, TargetError, require
from ..core.pt2 import first_line
from ..core.registry import unknown
from ..core.tensor import Axis

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Door(msgspec.Struct, frozen=True):
    """An input or output as the runtime reports it. Free axes are names, or "?" where the file has none; dtype as numpy names it."""

    name: str
    shape: tuple[Axis, ...]
    dtype: str


class Session(Protocol):
    """A file opened in a runtime."""

    inputs: tuple[Door, ...]
    outputs: tuple[Door, ...]

    def run(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """One array per output, for one array per input in the doors' own shapes, layouts and dtypes.

        A TFLite file with a fixed batch is run as often as the rows need. Raises DataError where the arrays don't fit.
        """


class Known(msgspec.Struct, frozen=True):
    """Where a runtime comes from: its module, the distributions that hold it (any one) and how to install it."""

    module: str
    distributions: tuple[str, ...]
    format: str
    install: str


RUNTIMES: dict[str, Known] = {
    "onnxruntime": Known("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "onnx", "pip install 'packlight[onnx]'"),
    "openvino": Known("openvino", ("openvino",), "openvino", "pip install 'packlight[openvino]'"),
    "litert": Known("ai_edge_litert.interpreter", ("ai-edge-litert",), "tflite", "pip install 'packlight[tflite]'"),
    "tflite-runtime": Known(
        "tflite_runtime.interpreter", ("tflite-runtime",), "tflite", "pip install tflite-runtime 'numpy<2' (Python up to 3.11)"
    ),
}


def installed(runtime: str) -> bool:
    """True where the runtime's module can be found here; nothing is imported."""
    return importlib.util.find_spec(_known(runtime).module.partition(".")[0]) is not None


def versions() -> dict[str, str]:
    """The version of each runtime that is installed here, by its distribution's metadata; nothing is imported."""
    found = {}
    for name, known in RUNTIMES.items():
        for distribution in known.distributions:
            try:
                found[name] = importlib.metadata.version(distribution)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def open_session(path: Path, runtime: str, *, threads: int = 1, optimise: bool = True, provider: str = "") -> Session:
    """Opens ``path`` in ``runtime`` ("onnxruntime", "openvino", "litert", "tflite-runtime").

    ``optimise=False`` runs the graph as written (ONNX Runtime: no graph optimisation; OpenVINO: quantize/dequantize pairs in float;
    TFLite: no XNNPACK delegate). ``provider`` is ONNX Runtime's execution provider or OpenVINO's device; "" is the CPU. Raises
    MissingDependencyError where the runtime, or its provider, is not installed, and InputError where it can't read the file.
    """
    known = _known(runtime)
    if not path.is_file():
        raise InputError(f"file '{path}' does not exist")
    module = _import(runtime, known)
    openers: dict[str, Callable[..., Session]] = {"onnxruntime": _OrtSession, "openvino": _OpenVinoSession}
    opener = openers.get(runtime, _TfliteSession)
    try:
        return opener(module, path, threads, optimise, provider)
    except (InputError, MissingDependencyError):
        raise
    except Exception as error:  # each runtime raises its own types
        raise InputError(f"{runtime} {versions().get(runtime, '')} can't open '{path.name}': {first_line(error)}") from error


def _known(runtime: str) -> Known:
    if runtime not in RUNTIMES:
        raise TargetError(unknown("runtime", runtime, RUNTIMES))
    return RUNTIMES[runtime]


def _import(runtime: str, known: Known) -> Any:
    if "packlight[" in known.install:
        return require(known.module, known.format)
    try:
        return importlib.import_module(known.module)
    except ImportError as error:
        raise MissingDependencyError(f"{runtime} is not installed; install it with: {known.install}") from error


def _check(arrays: Sequence[NDArray[Any]], doors: Sequence[Door], free_rows: bool = False) -> None:
    if len(arrays) != len(doors):
        raise DataError(f"the file takes {len(doors)} inputs ({', '.join(d.name for d in doors)}), got {len(arrays)}")
    for array, door in zip(arrays, doors, strict=True):
        if array.dtype.name != door.dtype:
            raise DataError(f"input '{door.name}' wants {door.dtype}, got {array.dtype.name}")
        skip = 1 if free_rows else 0
        fits = array.ndim == len(door.shape) and all(
            isinstance(want, str) or want == got for want, got in zip(door.shape[skip:], array.shape[skip:], strict=True)
        )
        if not fits:
            raise DataError(f"input '{door.name}' wants shape {list(door.shape)}, got {list(array.shape)}")


_ORT_DTYPES = {"float": "float32", "double": "float64"}


class _OrtSession:
    def __init__(self, ort: Any, path: Path, threads: int, optimise: bool, provider: str) -> None:
        provider = provider or "CPUExecutionProvider"
        available = ort.get_available_providers()
        if provider not in available:
            raise MissingDependencyError(
                f"onnxruntime here has no {provider}; it has {', '.join(available)}; install the build that has it"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        self._session = ort.InferenceSession(str(path), options, providers=[provider])
        self.inputs = tuple(self._door(d) for d in self._session.get_inputs())
        self.outputs = tuple(self._door(d) for d in self._session.get_outputs())

    def _door(self, value: Any) -> Door:
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        return Door(value.name, tuple("?" if a is None else a for a in value.shape), _ORT_DTYPES.get(kind, kind))

    def run(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        _check(arrays, self.inputs)
        return list(self._session.run(None, {d.name: a for d, a in zip(self.inputs, arrays, strict=True)}))


class _OpenVinoSession:
    def __init__(self, openvino: Any, path: Path, threads: int, optimise: bool, provider: str) -> None:
        core = openvino.Core()
        device = provider or "CPU"
        if device.partition(".")[0] not in {d.partition(".")[0] for d in core.available_devices}:
            raise MissingDependencyError(f"openvino has no device {device} here; it has {', '.join(core.available_devices)}")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        if device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = threads
            if not optimise:
                settings["LP_TRANSFORMS_MODE"] = False
        self._model = core.compile_model(core.read_model(str(path)), device, settings)
        self._request = self._model.create_infer_request()
        self.inputs = tuple(self._door(p) for p in self._model.inputs)
        self.outputs = tuple(self._door(p) for p in self._model.outputs)

    @staticmethod
    def _door(port: Any) -> Door:
        import numpy as np

        shape = tuple("?" if d.is_dynamic else int(d.get_length()) for d in port.get_partial_shape())
        names = sorted(port.get_names())
        return Door(names[0] if names else port.get_node().get_friendly_name(), shape, np.dtype(port.get_element_type().to_dtype()).name)

    def run(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        import numpy as np

        _check(arrays, self.inputs)
        self._request.infer([np.ascontiguousarray(a) for a in arrays])
        return [np.array(self._request.get_output_tensor(i).data) for i in range(len(self.outputs))]


class _TfliteSession:
    def __init__(self, tflite: Any, path: Path, threads: int, optimise: bool, provider: str) -> None:
        if provider not in ("", "xnnpack"):
            raise MissingDependencyError(f"TFLite delegate '{provider}' can't be opened in this process; leave it empty for the CPU")
        kinds = tflite.OpResolverType
        resolver = kinds.AUTO if optimise else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self._interpreter = tflite.Interpreter(str(path), num_threads=threads, experimental_op_resolver_type=resolver)
        self._interpreter.allocate_tensors()
        self.inputs = self._doors("inputs", self._interpreter.get_input_details())
        self.outputs = self._doors("outputs", self._interpreter.get_output_details())

    def _doors(self, side: str, details: list[dict[str, Any]]) -> tuple[Door, ...]:
        import numpy as np

        names = {index: name for s in self._signatures().values() for name, index in s[side].items()}
        doors = []
        for detail in details:
            fixed, written = detail["shape"], detail["shape_signature"]
            free = len(written) == len(fixed)
            shape = tuple("?" if free and w < 0 else int(f) for f, w in zip(fixed, written if free else fixed, strict=True))
            doors.append(Door(names.get(detail["index"], detail["name"]), shape, np.dtype(detail["dtype"]).name))
        return tuple(doors)

    def _signatures(self) -> dict[str, Any]:
        get = getattr(self._interpreter, "_get_full_signature_list", None)
        return dict(get()) if get else {}

    def run(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        import numpy as np

        _check(arrays, self.inputs, free_rows=True)
        if any("?" in d.shape for d in self.inputs):
            for detail, array in zip(self._interpreter.get_input_details(), arrays, strict=True):
                self._interpreter.resize_tensor_input(detail["index"], array.shape)
            self._interpreter.allocate_tensors()
            return self._once(arrays)
        rows, size = arrays[0].shape[:1], self.inputs[0].shape[:1]
        if rows == size:
            return self._once(arrays)
        parts = [self._once(chunk) for chunk in _chunks(arrays, int(size[0]), int(rows[0]))]
        return [np.concatenate(column)[: rows[0]] for column in zip(*parts, strict=True)]

    def _once(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        self._interpreter.reset_all_variables()
        for detail, array in zip(self._interpreter.get_input_details(), arrays, strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(d["index"]) for d in self._interpreter.get_output_details()]


def _chunks(arrays: Sequence[NDArray[Any]], size: int, rows: int) -> list[list[NDArray[np.generic]]]:
    """``size`` rows at a time; the last chunk is filled up with its own first row."""
    import numpy as np

    chunks = []
    for start in range(0, rows, size):
        part = [a[start : start + size] for a in arrays]
        missing = size - part[0].shape[0]
        chunks.append([np.concatenate([p, np.repeat(p[:1], missing, axis=0)]) if missing else p for p in part])
    return chunks
