"""Adversarial distillation: a discriminator D learns to tell the student's images from real ones, and the student to be taken for real
(for distilled generators: Li et al., 2020, "GAN Compression", arXiv:2003.08936, equation 4).

With s(r), s(f) the scores of real and of the student's images, means over images and places::

    least-squares   D: 1/2 mean (s(r) - 1)^2 + 1/2 mean s(f)^2                student: 1/2 mean (s(f) - 1)^2
    hinge           D: mean max(0, 1 - s(r)) + mean max(0, 1 + s(f))          student: -mean s(f)
    non-saturating  D: mean log(1 + e^-s(r)) + mean log(1 + e^s(f))           student: mean log(1 + e^-s(f))

(Mao et al., 2016, arXiv:1611.04076; Lim and Ye, 2017, arXiv:1705.02894; Goodfellow et al., 2014, arXiv:1406.2661). Real are the data's
own images where the task has them, else the teacher's. The student's loss comes, times ``weight``, beside the distance to the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ...core.bundle import Bundle, aten_name
from ...core.verdict import YES, Verdict, no
from ..training.opponent import Against
from ..training.settings import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from ...tasks.task import Task

Form = Literal["least-squares", "hinge", "non-saturating"]
SQUASHED = ("sigmoid", "tanh", "softmax", "log_softmax", "hardsigmoid")


class AdversarialSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="kebab"):
    """How the discriminator is used: the ``form`` of the losses, the ``weight`` of the student's, the discriminator's peak rate ``lr``.

    The default form is the one with the least Frechet distance in benchmarks/distill/adversarial.md (one seed)."""

    form: Form = "hinge"
    weight: Positive = 0.01
    lr: Positive = 2e-4


def student_loss(form: Form, made: Sequence[Tensor]) -> Tensor:
    """From the scores of the student's images, one tensor of any shape an output of the discriminator: a scalar."""
    import torch
    from torch.nn.functional import softplus

    one: dict[str, Callable[[Tensor], Tensor]] = {
        "least-squares": lambda s: 0.5 * (s - 1).square().mean(),
        "hinge": lambda s: -s.mean(),
        "non-saturating": lambda s: softplus(-s).mean(),
    }
    return torch.stack([one[form](s) for s in made]).mean()


def discriminator_loss(form: Form, real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """From the scores of real images and of the student's: a scalar."""
    import torch
    from torch.nn.functional import softplus

    one: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "least-squares": lambda r, f: 0.5 * (r - 1).square().mean() + 0.5 * f.square().mean(),
        "hinge": lambda r, f: (1 - r).relu().mean() + (1 + f).relu().mean(),
        "non-saturating": lambda r, f: softplus(-r).mean() + softplus(f).mean(),
    }
    return torch.stack([one[form](r, f) for r, f in zip(real, made, strict=True)]).mean()


def check_discriminator(
    settings: AdversarialSettings | None, discriminator: Bundle | None, student: Bundle, teacher: Bundle | None, task: Task | None
) -> Verdict:
    """Whether the student's images can be judged so."""
    if discriminator is None:
        return no("an adversarial loss needs a discriminator; give --discriminator") if settings is not None else YES
    output = student.signature.outputs[0]
    if len(output.shape) != 4 or _range(task) is None:
        told = f"task '{task.name}' with output {output}" if task is not None else str(output)
        return no(f"a discriminator judges images, and {told} is none; leave --discriminator out, or choose restoration or generation")
    if task is not None and task.truth == "model" and teacher is None:
        return no("there are no real images to hold the student's against; give --teacher")
    reads, gives = discriminator.signature.inputs, discriminator.signature.outputs
    fits = len(reads) == 1 and len(reads[0].shape) == 4
    if not fits or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(reads[0].shape, output.shape, strict=True)):
        return no(f"the discriminator '{discriminator.name}' reads {', '.join(map(str, reads))}, but the student gives {output}")
    if not isinstance(reads[0].shape[0], str):
        return no(f"the discriminator '{discriminator.name}' was traced with a fixed batch; make its forward independent of the batch size")
    if any(not spec.dtype.startswith("float") for spec in gives) or not any(p.requires_grad for p in discriminator.graph.parameters()):
        return no(f"the discriminator '{discriminator.name}' must have weights to train and give real scores; it gives {gives[0]}")
    form = (settings or AdversarialSettings()).form
    last = _last(discriminator)
    if last in SQUASHED and not (form == "least-squares" and last == "sigmoid"):
        return no(f"the discriminator '{discriminator.name}' ends in {last}; '{form}' wants the scores before it: return those")
    return YES


def make_against(settings: AdversarialSettings | None, discriminator: Bundle, task: Task) -> Against:
    """The discriminator with its losses, for ``compress.train.fit``."""
    settings = settings or AdversarialSettings()
    low, high = _range(task) or (0.0, 1.0)
    own = task.truth == "data"

    def real(target: Tensor | None, taught: Sequence[Tensor] | None) -> Tensor:
        if own and target is not None:
            return target * (high - low) + low
        assert taught is not None
        return taught[0]

    return Against(
        discriminator.copy_graph(),
        lambda made: student_loss(settings.form, made),
        lambda seen, made: discriminator_loss(settings.form, seen, made),
        real,
        settings.weight,
        settings.lr,
        (settings.form,),
    )


def _range(task: Any) -> tuple[float, float] | None:
    """The values between which the task's images lie; None where its outputs are no images."""
    settings: Any = getattr(task, "settings", None)
    return (settings.low, settings.high) if hasattr(settings, "low") and hasattr(settings, "high") else None


def _last(bundle: Bundle) -> str:
    """The operator that gives the first output, views aside."""
    (end,) = (n for n in bundle.graph.graph.nodes if n.op == "output")
    node = end.all_input_nodes[0]
    while aten_name(node) in ("view", "reshape", "flatten", "squeeze", "permute"):
        node = node.all_input_nodes[0]
    return aten_name(node)
