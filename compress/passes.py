"""The contract of every pass and the one loop that runs them.

A pass is a value: ``requires`` -> call -> ``ensures``. It gets a Bundle and gives a new one; it writes no file, prints nothing
and knows no format. The loop refuses what the pass can't do, before anything ran where possible, and holds it to its promise after.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from ..core.bundle import Bundle
from ..core.errors import ContractError, RecipeError
from ..core.history import Step
from ..core.progress import Progress, Silent
from ..core.registry import Registry
from ..core.verdict import YES, Verdict

if TYPE_CHECKING:
    from ..core.latency import Clock
    from ..targets.target import Target
    from ..tasks.samples import Samples
    from ..tasks.task import Task


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="kebab"):
    """The settings of a pass, as a recipe writes them (kebab-case). Subclasses add typed fields with defaults."""


AnySettings = Settings  # a name for it inside classes that have a Settings of their own
S = TypeVar("S", bound=Settings)


@dataclasses.dataclass(frozen=True)
class Context:
    """What a pass may use beside the bundle. Splits are None where the user gave no such data.

    ``teacher`` is the uncompressed model; ``discriminator`` tells its images from real ones, None where the user gave none. ``work`` is a
    folder for checkpoints and caches, None where nothing may be kept. ``clock`` measures models on a device, None where nothing may be
    measured.
    """

    target: Target
    task: Task | None = None
    train: Samples | None = None
    val: Samples | None = None
    calib: Samples | None = None
    teacher: Bundle | None = None
    discriminator: Bundle | None = None
    seed: int = 0
    work: Path | None = None
    clock: Clock | None = None
    progress: Progress = dataclasses.field(default_factory=Silent)


@dataclasses.dataclass(frozen=True)
class PassResult:
    """What a pass made. ``changed`` False means the bundle is the one that came in. ``changes`` goes into the history."""

    bundle: Bundle
    changed: bool
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)


class Pass(Protocol, Generic[S]):
    """One way to make a model smaller or better.

    ``settings`` is the value it was made with. The graph that comes in is never changed in place. One that asks the context's clock has
    ``measures`` (a bool) beside, so that whoever runs it opens one.
    """

    name: str
    settings: S

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        """Whether the pass can run on this bundle with what the context holds; cheap; the reason where it can't."""

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        """Does it."""

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        """Whether the promise was kept, judged from the two bundles alone."""


class Kind(Protocol):
    """How a pass is registered: its settings' type and what makes the pass from them."""

    @property
    def Settings(self) -> type[AnySettings]:
        """What ``settings`` are read into."""

    def __call__(self, settings: Any) -> Pass[Any]: ...


passes: Registry[Kind] = Registry("pass", RecipeError)


def make(name: str, settings: dict[str, Any]) -> Pass[Any]:
    """The pass ``name`` with ``settings`` (kebab-case keys, as in a recipe); a wrong key or type raises RecipeError."""
    kind = passes.get(name)
    try:
        return kind(msgspec.convert(settings, kind.Settings))
    except msgspec.ValidationError as error:
        known = ", ".join(f.encode_name for f in msgspec.structs.fields(kind.Settings)) or "none"
        raise RecipeError(f"pass '{name}': {error}; its settings are: {known}") from error


def run_passes(bundle: Bundle, steps: Sequence[Pass[Any]], context: Context, *, seen: Callable[[Bundle], None] | None = None) -> Bundle:
    """Runs ``steps`` in order and records each in the history; ``seen`` is given the bundle after each.

    A pass whose ``requires`` says no raises RecipeError with its reason; one that breaks its promise raises ContractError.
    """
    for number, step in enumerate(steps, 1):
        context.progress.say(f"[{number}/{len(steps)}] {step.name}")
        verdict = step.requires(bundle, context)
        if not verdict:
            raise RecipeError(f"pass '{step.name}' can't run: {verdict.why}")
        before, state = bundle, _fingerprint(bundle)
        started = time.perf_counter()
        result = step(bundle, context)
        seconds = time.perf_counter() - started
        if _fingerprint(before) != state:
            raise ContractError(f"pass '{step.name}' changed the bundle that it was given")
        if not result.changed and result.bundle is not before:
            raise ContractError(f"pass '{step.name}' says that nothing changed but gave another bundle")
        kept = step.ensures(before, result.bundle, context) if result.changed else YES
        if not kept:
            raise ContractError(f"pass '{step.name}' broke its promise: {kept.why}")
        record = Step(
            name=step.name,
            settings=msgspec.to_builtins(step.settings),
            changes=result.changes if result.changed else {"changed": False, **result.changes},
            seed=context.seed,
            seconds=round(seconds, 3),
        )
        bundle = result.bundle.replace(history=(*before.history, record))
        if seen is not None:
            seen(bundle)
    return bundle


def _fingerprint(bundle: Bundle) -> tuple[int, tuple[tuple[str, int, tuple[int, ...]], ...]]:
    """Number of nodes, and each weight's name, version counter and shape: cheap, and any change in place shows."""
    state = bundle.graph.state_dict(keep_vars=True)
    return len(bundle.graph.graph.nodes), tuple((k, int(v._version), tuple(v.shape)) for k, v in state.items())
