"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.errors import DataError, InputError, RecipeError

if TYPE_CHECKING:
    from ..core.preprocess import Preprocess

F = TypeVar("F", bound=Callable[..., Any])


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several click decorators as one, in the order they are listed in the help."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def numbers(kind: type) -> Callable[[click.Context, click.Parameter, str | None], tuple[Any, ...] | None]:
    """A callback that reads "a,b,c"."""

    def read(_: click.Context, parameter: click.Parameter, text: str | None) -> tuple[Any, ...] | None:
        if text is None:
            return None
        try:
            return tuple(kind(part) for part in text.replace("x", ",").split(","))
        except ValueError:
            raise click.BadParameter(f"'{text}' is not a list of numbers like 1,3,224,224", param=parameter) from None

    return read


def named_shapes(_: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Reads "1,3,224,224" and "batch.image=1,3,224,224": the way to an input ("" for the next position) and its shape."""
    read = numbers(int)
    found = []
    for text in texts:
        way, equals, sizes = text.rpartition("=")
        shape = read(_, parameter, sizes) or ()
        if any(size < 1 for size in shape):
            raise click.BadParameter(f"{list(shape)} must hold positive sizes", param=parameter)
        if equals and not all(re.fullmatch(r"\w+", part) for part in way.split(".")):
            raise click.BadParameter(
                f"'{way}' is not the way to an input; write name=1,3,224,224, or batch.mask=1,1,224,224", param=parameter
            )
        found.append((way, shape))
    return tuple(found)


common = together(
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else."),
    click.option("-v", "--verbose", is_flag=True, help="Say more; show tracebacks."),
)

output = together(
    click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the result goes."),
    click.option("--force", is_flag=True, help="Replace an existing output."),
)

model = together(
    click.argument("model"),
    click.option("--weights", type=click.Path(path_type=Path), help="safetensors, or a state dict (read with weights_only)."),
    click.option("--model-args", multiple=True, metavar="K=V", help="Arguments of the model factory; may be repeated."),
    click.option(
        "--input",
        "input_shapes",
        multiple=True,
        callback=named_shapes,
        metavar="[NAME=]1,3,224,224",
        help="Input shape, where no data is given; one per input. NAME is a parameter of forward, or batch.mask, pair.0 inside one.",
    ),
    click.option(
        "--dynamic",
        "dynamic",
        multiple=True,
        metavar="[INPUT=]AXES",
        help="Axes that stay free beside the batch: 2,3 or image=0,2:rows,width; may be repeated.",
    ),
    click.option("--name", help="Stem of the files that are written (default: from MODEL)."),
)

degrade = click.option("--degrade", metavar="WORDS", help="Make pairs of images: bicubic:4, noise:25, blur:1.6, or several with +.")
alphabet = click.option("--alphabet", metavar="CHARS", help="For text: the characters of the model's classes after the blank, or @FILE.")

data = together(
    click.option("--data", metavar="DATA", help="Class folders of images, low/ and high/, .npz, latents:64x1x1, or file.py:factory."),
    click.option("--val", metavar="DATA", help="Validation data, where DATA's own split is not wanted."),
    click.option("--calib", metavar="DATA", help="Calibration data; labels are not needed."),
    click.option("--data-args", multiple=True, metavar="K=V", help="Arguments of a data factory; may be repeated."),
    click.option("--task", metavar="TASK", help="classification, restoration[:channel=y,shave=4], recognition, generation, segmentation."),
    degrade,
    alphabet,
)

test_data = click.option("--test", metavar="DATA", help="Data to report on, all of it, where DATA's own split is not wanted.")
judge = click.option(
    "--judge", type=click.Path(path_type=Path), metavar="FILE", help="A judge.toml: a classifier that looks at generated images."
)

preprocessing = together(
    click.option("--mean", callback=numbers(float), metavar="R,G,B", help="Subtracted from values in [0, 1]."),
    click.option("--std", callback=numbers(float), metavar="R,G,B", help="Divided by."),
    click.option("--size", callback=numbers(int), metavar="H,W|S", help="Resize to H,W, or the shorter side to S."),
    click.option("--crop", callback=numbers(int), metavar="H,W|S", help="Centre crop after resizing."),
    click.option("--colour", type=click.Choice(["RGB", "BGR", "GREY"]), help="Colour order the model reads [RGB]."),
    click.option("--preprocess", "preprocess_file", type=click.Path(path_type=Path), help="The same as a TOML file."),
)

pictures = click.option(
    "--openvino-input",
    "pictures",
    type=click.Choice(["tensor", "pixels", "pictures"]),
    default="tensor",
    show_default=True,
    help="OpenVINO files take uint8 NHWC pixels, or pictures of any size, and preprocess them inside.",
)

seed = click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="For splits, training and intervals.")


def read_lines(file: Path) -> tuple[str, ...]:
    """The lines of a text file, without empty ones."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{file}' can't be read as lines of text: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def read_preprocess(
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    size: tuple[int, ...] | None,
    crop: tuple[int, ...] | None,
    colour: str | None,
    preprocess_file: Path | None,
) -> Preprocess | None:
    """The spec that the options describe; None where none was given. Options override the file."""
    import msgspec

    from ..core.preprocess import Preprocess

    fields: dict[str, Any] = {}
    if preprocess_file is not None:
        if not preprocess_file.is_file():
            raise DataError(f"preprocessing file '{preprocess_file}' does not exist")
        try:
            fields.update(msgspec.toml.decode(preprocess_file.read_bytes()))
        except msgspec.DecodeError as error:
            raise DataError(f"preprocessing file '{preprocess_file}' is not TOML: {error}") from error
    for key, value in (("mean", mean), ("std", std), ("colour", colour)):
        if value is not None:
            fields[key] = value
    if size is not None:
        fields["size"] = size[0] if len(size) == 1 else size
    if crop is not None:
        fields["crop"] = (crop[0], crop[0]) if len(crop) == 1 else crop
    if not fields:
        return None
    try:
        return msgspec.convert(fields, Preprocess)
    except msgspec.ValidationError as error:
        raise DataError(f"preprocessing: {error}") from error


def read_alphabet(text: str | None) -> tuple[str, ...]:
    """The characters of ``--alphabet``, one a label; ``@FILE`` holds them in its first line."""
    if text is None or not text.startswith("@") or len(text) == 1:
        return tuple(text or "")
    file = Path(text[1:])
    try:
        return tuple(file.read_text(encoding="utf-8").split("\n")[0])
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"alphabet file '{file}' can't be read: {error}") from error


def read_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``("depth=20", "name=a")`` -> ``{"depth": 20, "name": "a"}``: Python literals where they parse, else text."""
    read: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"'{pair}' is not KEY=VALUE")
        try:
            read[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            read[key] = text
    return read


def read_settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``("round-to=8",)`` -> ``{"round-to": 8}``."""
    return {key: value for pair in pairs for key, value in read_overrides((f"pass.{pair}",))["pass"].items()}


def read_overrides(pairs: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """``("prune.macs=0.4",)`` -> ``{"prune": {"macs": 0.4}}``."""
    overrides: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        left, equals, text = pair.partition("=")
        name, dot, key = left.partition(".")
        if not equals or not dot or not name or not key:
            raise RecipeError(f"'{pair}' is not PASS.SETTING=VALUE (for example prune.macs=0.4)")
        try:
            value: Any = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        overrides.setdefault(name, {})[key] = value
    return overrides
