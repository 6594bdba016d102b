"""Where a model will live: a validated profile (``profiles/*.toml``, schema 1). Nobody subclasses a target; it is data."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..core.errors import TargetError
from .scheme import Scheme


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The machine. ``isa`` names what the kernels can use ("avx2", "avx512_vnni", "neon", "dotprod", "i8mm")."""

    machine: Literal["x86_64", "aarch64", "armv7l"]
    cpu: str
    isa: tuple[str, ...]
    cores: int
    ram_bytes: int
    os: str = "linux"
    gpu: str | None = None


class Runtime(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to run a file there.

    ``precisions`` are those whose kernels exist there; ``provider`` is an execution provider, device or delegate
    ("CPUExecutionProvider", "GPU", "xnnpack"). ``operators`` names the published list of what it takes (``coverage/lists``, or a
    .toml file): what is not on it falls back to the CPU, and the export says so. ``refuses`` maps operators that it can't run at all
    (the format's own names) to the reason. ``caveats`` are measured or documented facts a user should know, with their source.
    """

    name: Literal["onnxruntime", "openvino", "litert", "tflite-runtime"]
    format: Literal["onnx", "openvino", "tflite"]
    precisions: tuple[str, ...]
    provider: str = ""
    operators: str = ""
    refuses: dict[str, str] = {}
    caveats: tuple[str, ...] = ()


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A profile. ``runtimes`` are in order of preference; ``links`` are the ways to reach such a device."""

    schema: Literal[1] = 1
    name: str
    title: str
    device: Device
    quantization: Scheme
    runtimes: tuple[Runtime, ...]
    links: tuple[Literal["local", "ssh", "adb"], ...]
    notes: tuple[str, ...] = ()

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that some runtime of the target reads, in order, without repeats."""
        return tuple(dict.fromkeys(r.format for r in self.runtimes))

    def runtimes_for(self, format: str, precision: str) -> tuple[Runtime, ...]:
        """The runtimes that run ``format`` in ``precision`` there (maybe none)."""
        return tuple(r for r in self.runtimes if r.format == format and precision in r.precisions)

    def require_format(self, format: str) -> None:
        """Raises TargetError where no runtime of the target reads ``format``."""
        if format not in self.formats:
            raise TargetError(f"target '{self.name}' does not run {format}; it runs: {', '.join(self.formats)}")
