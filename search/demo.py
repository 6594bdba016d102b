"""The demo: a small residual CNN trained on the spot on the 8x8 digits that scikit-learn ships, then the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from .job import Job

EPOCHS = 25
# The recipes are made for real training sets; on 1,257 images of 8x8 the fine-tuning is a matter of seconds.
QUICK = {"finetune": {"epochs": 15, "lr": 0.05}}


def prepare(out: Path, recipe_name: str, target_name: str, seed: int, force: bool, progress: Progress) -> Job:
    """Trains the model and gives the job, ready to run."""
    import torch

    from ..bench.plan import BenchOptions
    from ..compress.passes import Context, run_passes
    from ..compress.recipe import load_recipe, make_pass
    from ..core.bundle import Bundle
    from ..core.errors import ContractError
    from ..core.files import refuse_existing
    from ..core.preprocess import Preprocess
    from ..targets.load import load_target
    from ..tasks.data.digits import digits
    from ..tasks.data.load import splits_of
    from ..tasks.load import load_task
    from .job import Job
    from .judge import Limits

    refuse_existing(out, force)
    target, recipe, task = load_target(target_name), load_recipe(recipe_name), load_task("classification")
    recipe = recipe.override({k: v for k, v in QUICK.items() if k in {step.use for step in recipe.passes}})
    x, y = digits()
    spec = Preprocess(colour="GREY")
    data = splits_of({"all": (x, y)}, preprocess=spec, seed=seed)
    if data.train is None:
        raise ContractError("the digits have no training split")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = digit_net()
    example = torch.from_numpy(data.train.batch([0])[0][0])
    bundle = Bundle.capture(model, [example], name="digits", task=task.name, labels=data.train.classes, preprocess=spec)
    progress.say(f"train a small residual CNN on scikit-learn's digits ({len(data.train):,} images)")
    context = Context(target=target, task=task, train=data.train, val=data.val, seed=seed, progress=progress)
    trained = run_passes(bundle, [make_pass("finetune", {"epochs": EPOCHS, "lr": 0.1, "alpha": 0.0, "augment": "none"})], context)
    return Job(
        bundle=trained,
        data=data,
        task=task,
        target=target,
        recipe=recipe,
        out=out,
        bench=BenchOptions(seed=seed),
        limits=Limits(max_drop=3.0),
        seed=seed,
        force=force,
        source="a small residual CNN trained by 'packlight demo'",
    )


def digit_net() -> nn.Module:
    """A residual CNN for (N, 1, 8, 8): two stages of 32 and 64 channels, 0.14 M parameters, with random weights."""
    import torch
    from torch import Tensor, nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            same = stride == 1 and inputs == outputs
            project = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
            self.shortcut = nn.Sequential(*([] if same else project))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    class DigitNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
            self.blocks = nn.Sequential(Block(32, 32, 1), Block(32, 64, 2), Block(64, 64, 1))
            self.head = nn.Linear(64, 10)

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.head(self.blocks(self.stem(image)).mean((2, 3)))
            return logits

    return DigitNet()
