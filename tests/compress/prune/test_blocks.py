"""Blocks taken out of a residual network: found by their graph, scored against networks built without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.passes import Context, run_passes
from packlight.compress.prune.blocks import blocks_of
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.cost import macs
from packlight.core.errors import RecipeError
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, scale: float, inplace: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace)
        self.short = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.constant_(self.norm2.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        y += self.short(x)
        return self.relu(y)


class Net(nn.Module):
    """A stem, a block that changes the width, and three identity blocks: a weak one, one that does nothing, a strong one."""

    def __init__(self, blocks: tuple[str, ...] = ("weak", "nothing", "strong"), inplace: bool = True) -> None:
        super().__init__()
        strength = {"weak": 0.1, "nothing": 0.0, "strong": 3.0}
        self.stem, self.wider = nn.Conv2d(3, 8, 3, padding=1), Block(8, 12, 1.0, inplace)
        self.stage = nn.ModuleDict({name: Block(12, 12, strength[name], inplace) for name in blocks})
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wider(torch.relu(self.stem(x)))
        for block in self.stage.values():
            x = block(x)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def module() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def net(module: Net) -> Bundle:
    return Bundle.capture(module, (torch.randn(2, 3, 8, 8),), name="net")


@pytest.fixture(scope="module")
def context() -> Context:
    random = np.random.default_rng(0)
    splits = splits_of({"all": (random.integers(0, 255, (96, 8, 8, 3), dtype=np.uint8), np.arange(96) % 4)})
    return Context(target=None, task=load_task("classification"), train=splits.train, val=splits.val)  # type: ignore[arg-type]


@pytest.mark.parametrize("inplace", [True, False])
def test_identity_blocks_are_found_and_others_are_not(inplace: bool) -> None:
    bundle = Bundle.capture(Net(inplace=inplace).eval(), (torch.randn(2, 3, 8, 8),))
    assert [b.name for b in blocks_of(bundle.graph)] == ["stage.weak", "stage.nothing", "stage.strong"]
    assert [b.name for b in blocks_of(bundle.graph, ["stage.weak.conv1", "*.strong"])] == ["stage.nothing"]


@pytest.mark.parametrize("score", ["cosine", "error", "loss"])
def test_what_does_nothing_goes_first_then_the_weak(net: Bundle, module: Net, context: Context, score: str) -> None:
    after = run_passes(net, [make_pass("drop-blocks", {"blocks": 2, "score": score, "images": 64})], context)
    told = after.history[-1].changes
    gone = [b["block"] for b in told["blocks"]]
    if score != "loss":  # a loss may fall without a block
        assert gone == ["stage.nothing", "stage.weak"]
        assert told["blocks"][0]["change"] == pytest.approx(0.0, abs=1e-6)
    left = tuple(n for n in ("weak", "nothing", "strong") if f"stage.{n}" not in gone)
    truth = Net(left)
    truth.load_state_dict({k: v for k, v in module.state_dict().items() if not any(k.startswith(g) for g in gone)})
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(after.run(x)[0], truth.eval()(x))
    assert not any(name.startswith(tuple(gone)) for name in after.graph.state_dict())
    assert told["macs"] == [macs(net), macs(after)]


def test_the_change_is_that_of_the_outputs(net: Bundle, module: Net, context: Context) -> None:
    after = run_passes(net, [make_pass("drop-blocks", {"blocks": 1, "protect": ["stage.nothing"], "images": 48})], context)
    assert context.train is not None
    rows = [int(i) for i in np.random.default_rng(0).permutation(len(context.train))[:48]]
    x = torch.from_numpy(context.train.batch(rows)[0][0])
    a, b = net.run(x)[0], after.run(x)[0]
    change = 1 - np.mean([float(p @ q / (p.norm() * q.norm())) for p, q in zip(a, b, strict=True)])
    assert after.history[-1].changes["blocks"][0]["change"] == pytest.approx(change, abs=1e-6)


def test_a_share_and_a_bound(net: Bundle, context: Context) -> None:
    after = run_passes(net, [make_pass("drop-blocks", {"macs": 0.8, "images": 32})], context)
    assert macs(after) <= 0.8 * macs(net)
    kept = run_passes(net, [make_pass("drop-blocks", {"blocks": 3, "images": 32, "score": "error", "most-change": 1e-9})], context)
    assert [b["block"] for b in kept.history[-1].changes["blocks"]] == ["stage.nothing"]
    assert "changes more than" in kept.history[-1].changes["why"]


def test_refusals(net: Bundle, context: Context) -> None:
    plain = Bundle.capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()).eval(), (torch.randn(2, 3, 4, 4),))
    with pytest.raises(RecipeError, match="no identity block"):
        run_passes(plain, [make_pass("drop-blocks", {"blocks": 1})], context)
    with pytest.raises(RecipeError, match="exactly one of blocks and macs"):
        make_pass("drop-blocks", {})
