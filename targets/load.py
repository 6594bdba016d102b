"""Profiles by name or from a user's own file. A profile is data: TOML, schema 1, validated; an unknown key is refused."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import msgspec

from ..core.errors import TargetError
from ..core.registry import unknown
from .coverage.lists import load_list
from .target import Target

PRECISIONS = ("fp32", "fp16", "int8", "int16", "weight-int8", "dynamic-int8")


def target_names() -> tuple[str, ...]:
    """The names of the profiles that come with packlight, sorted."""
    return tuple(sorted(p.name.removesuffix(".toml") for p in _shipped().iterdir() if p.name.endswith(".toml")))


def load_target(name_or_path: str | Path) -> Target:
    """A target by its name, or from a .toml file of the user's (whatever ends in .toml, or holds a path separator).

    Raises TargetError: an unknown name lists the known ones; a wrong file is named with the key and what was expected.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text or "\\" in text:
        path = Path(name_or_path)
        try:
            return parse_target(path.read_bytes(), f"profile '{path}'")
        except FileNotFoundError:
            raise TargetError(f"profile '{path}' does not exist; known targets: {', '.join(target_names())}") from None
        except OSError as error:
            raise TargetError(f"profile '{path}' can't be read: {error.strerror}") from error
    if text not in target_names():
        raise TargetError(unknown("target", text, target_names()) + "; or give a profile.toml")
    return parse_target((_shipped() / f"{text}.toml").read_bytes(), f"target '{text}'")


def parse_target(data: bytes, what: str) -> Target:
    """A target from the bytes of a profile; ``what`` begins the message of a TargetError."""
    try:
        target = msgspec.toml.decode(data, type=Target)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # ValidationError is a DecodeError
        raise TargetError(f"{what} is not a profile of schema 1: {error}") from error
    _check(target, what)
    return target


def _check(target: Target, what: str) -> None:
    """What types can't say."""
    if not target.name or any(c in target.name for c in "/\\ ") or target.name != target.name.lower():
        raise TargetError(f"{what}: name '{target.name}' must be lower case, without spaces and slashes")
    if not target.runtimes:
        raise TargetError(f"{what} has no runtimes; add at least one [[runtimes]]")
    reads = {"onnxruntime": "onnx", "openvino": "openvino", "litert": "tflite", "tflite-runtime": "tflite"}
    for runtime in target.runtimes:
        if runtime.format != reads[runtime.name]:
            raise TargetError(f"{what}: {runtime.name} does not read {runtime.format}; it reads {reads[runtime.name]}")
        for precision in runtime.precisions:
            if precision not in PRECISIONS:
                raise TargetError(f"{what}: {runtime.name} has unknown precision '{precision}'; known: {', '.join(PRECISIONS)}")
        if runtime.operators:
            known = load_list(runtime.operators)
            if known.format != runtime.format:
                raise TargetError(f"{what}: operator list '{known.name}' is for {known.format}, {runtime.name} reads {runtime.format}")
    if not 1 <= target.quantization.weight_max <= 127:
        raise TargetError(f"{what}: weight_max is {target.quantization.weight_max}; it must be within 1 and 127")
    for figure in ("cores", "ram_bytes"):
        if getattr(target.device, figure) < 1:
            raise TargetError(f"{what}: device.{figure} must be positive")


def _shipped() -> Path:
    # The wheel is always unpacked (pip), so the traversable is a folder.
    return Path(str(files(__package__) / "profiles"))
