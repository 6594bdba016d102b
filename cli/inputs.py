"""From the words of a command to a bundle, data, a task, a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DataError, InputError
from .options import read_alphabet, read_pairs, read_preprocess

if TYPE_CHECKING:
    from ..core.axes import Wish
    from ..core.bundle import Bundle
    from ..core.preprocess import Preprocess
    from ..tasks.samples import Splits

MODEL_OPTIONS = ("model", "weights", "model_args", "input_shapes", "name")
PREPROCESS_OPTIONS = ("mean", "std", "size", "crop", "colour", "preprocess_file")


def read_inputs(options: dict[str, Any], *, need_data: bool) -> tuple[Bundle, Splits | None]:
    """The model as a Bundle and the data, from the options of ``cli.options``.

    The preprocessing is the one given, else the one a bundle folder carries. The shape of the model's inputs is the data's,
    else ``--input``.
    """
    spec = read_preprocess(**{key: options.pop(key) for key in PREPROCESS_OPTIONS})
    if spec is None:
        spec = _saved_preprocess(options["model"])
    splits = _read_data(options, spec, need_data)
    bundle = _read_model(options, splits)
    changes: dict[str, Any] = {}
    if spec is None and splits is not None:
        spec = splits.preprocess
    if spec is not None:
        changes["preprocess"] = spec
    if options.get("task"):
        changes["task"] = options["task"]
    if alphabet := read_alphabet(options.get("alphabet")):
        changes["labels"] = alphabet
    classes = next((s.classes for s in (splits.test, splits.train) if s is not None and s.classes), ()) if splits else ()
    if classes and not bundle.labels and "labels" not in changes:
        changes["labels"] = tuple(classes)
    return bundle.replace(**changes), splits


def read_wishes(options: dict[str, Any]) -> tuple[Wish, ...]:
    """What ``--dynamic`` asks for."""
    from ..core.axes import read_wish

    return tuple(read_wish(text) for text in options.get("dynamic") or ())


def asked_free(bundle: Bundle, options: dict[str, Any]) -> tuple[str, ...]:
    """The names of the axes that ``--dynamic`` asks for, as the bundle has them."""
    from ..core.axes import free_of

    return free_of(bundle.signature, read_wishes(options))


def _saved_preprocess(model: str) -> Preprocess | None:
    folder = Path(model)
    if (folder / "bundle.json").is_file():
        from ..core.artifact import read_json
        from ..core.bundle import BundleFile

        file: BundleFile = read_json(folder / "bundle.json", BundleFile)
        return file.preprocess
    return None


def _read_data(options: dict[str, Any], spec: Preprocess | None, need: bool) -> Splits | None:
    if all(options.get(name) is None for name in ("data", "calib", "test")):
        if need:
            raise DataError("no data given; add --data with a folder of class folders, an .npz or file.py:factory")
        return None
    from ..tasks.data.load import load_data

    return load_data(
        options.get("data"),
        preprocess=spec,
        seed=options.get("seed", 0),
        val=options.get("val"),
        calib=options.get("calib"),
        test=options.get("test"),
        degrade=options.get("degrade"),
        data_args=read_pairs(options.get("data_args") or ()),
    )


def _read_model(options: dict[str, Any], splits: Splits | None) -> Bundle:
    import torch

    from ..core.load import load_model
    from ..tasks.samples import example_rows

    examples: list[torch.Tensor] = []
    free: list[dict[int, str]] = []
    ways: list[str] = []
    if options["input_shapes"]:
        generator = torch.Generator().manual_seed(0)
        examples = [torch.rand(shape, generator=generator) for _, shape in options["input_shapes"]]
        ways = [way for way, _ in options["input_shapes"]]
    elif splits is not None:
        split, rows, free = example_rows(splits)
        if split is not None:
            examples = [torch.from_numpy(x) for x in split.batch(rows)[0]]
            ways = list(getattr(split, "ways", ()))
    weights = options["weights"]
    if weights is not None and not weights.is_file():
        raise InputError(f"weights file '{weights}' does not exist")
    return load_model(
        options["model"],
        weights=weights,
        model_args=read_pairs(options["model_args"]),
        inputs=examples,
        name=options["name"],
        free_axes=free,
        dynamic=read_wishes(options),
        ways=ways,
    )
