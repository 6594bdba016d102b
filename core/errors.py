"""One tree of errors; each carries the exit code that the command line ends with.

::

    PacklightError                       4  a bug of ours, unless a subclass says otherwise
    ├── InputError                       2  the user's input is wrong
    │   ├── ModelError                      the model, its weights or its program
    │   ├── DataError                       images, labels, arrays, preprocessing
    │   ├── RecipeError                     a recipe or one of its settings
    │   ├── TargetError                     a target, device or link
    │   ├── OutputExistsError               an output that stands in the way
    │   └── UnsupportedOpError              an operator that a pass or an exporter can't do
    ├── LacksError                       3  the environment lacks something
    │   ├── MissingDependencyError          a package; carries the install command
    │   └── StorageError                    the disk is full or can't be written
    ├── GateError                        1  a budget or a gate was not met
    │   └── ParityError                     a file doesn't compute what the model computed
    └── ContractError                    4  a pass, exporter or link broke its own promise

A message is one line: the thing, the value, the remedy.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class PacklightError(Exception):
    """The root. ``exit_code`` is what the process ends with."""

    exit_code = 4


class InputError(PacklightError):
    """The user's input is wrong; the message names the thing, the value and the remedy."""

    exit_code = 2


class ModelError(InputError):
    """A model, its weights or its exported program can't be used."""


class DataError(InputError):
    """Images, labels, arrays or the preprocessing can't be used."""


class RecipeError(InputError):
    """A recipe, or one setting of a pass, is wrong."""


class TargetError(InputError):
    """A target, device or link is unknown or can't do what was asked."""


class OutputExistsError(InputError):
    """An output exists already and ``--force`` was not given."""


class UnsupportedOpError(InputError):
    """An operator that this pass or exporter can't do.

    ``op`` is the operator (``aten.foo.default``), ``layer`` the module path in the user's model ("" if unknown).
    """

    def __init__(self, who: str, op: str, layer: str, why: str, remedy: str) -> None:
        self.who, self.op, self.layer, self.why, self.remedy = who, op, layer, why, remedy
        place = f" in layer '{layer}'" if layer else ""
        super().__init__(f"{who} can't do {op}{place}: {why}; {remedy}")


class LacksError(PacklightError):
    """The environment lacks something; the message says how to get it."""

    exit_code = 3


class MissingDependencyError(LacksError):
    """A Python package is not installed."""


class StorageError(LacksError):
    """The disk is full, or a place can't be written."""


class GateError(PacklightError):
    """A budget or a gate was not met; the message holds the figure and the limit."""

    exit_code = 1


class ParityError(GateError):
    """A written file doesn't compute what the model computed."""


class ContractError(PacklightError):
    """A pass, exporter or link didn't keep its own promise: our bug."""


def require(module: str, extra: str) -> ModuleType:
    """Import ``module`` late, or raise MissingDependencyError with the command that installs it.

    ``extra`` is the name of packlight's extra that holds the package.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        root = module.partition(".")[0]
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"can't be imported ({error})"
        raise MissingDependencyError(f"{root} {why}; install it with: pip install 'packlight[{extra}]'") from error
