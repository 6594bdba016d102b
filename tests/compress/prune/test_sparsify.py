"""Zeros by magnitude: masks against numpy, kept through training, seen in the compressed size."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.passes import Context, run_passes
from packlight.compress.prune.sparsify import largest, n_of_m
from packlight.compress.recipe import make_pass
from packlight.core.bundle import Bundle
from packlight.core.errors import RecipeError
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.body = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3)
        self.rnn, self.head = nn.GRU(16, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(torch.relu(self.norm(self.stem(x)))))
        return self.head(self.rnn(x.flatten(2).transpose(1, 2))[0][:, -1])


@pytest.fixture(scope="module")
def net() -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Bundle.capture(Net(), (torch.randn(2, 3, 8, 8),), name="net", task="classification")


@pytest.fixture(scope="module")
def context() -> Context:
    random = np.random.default_rng(0)
    splits = splits_of({"all": (random.integers(0, 255, (96, 8, 8, 3), dtype=np.uint8), np.arange(96) % 4)})
    return Context(target=None, task=load_task("classification"), train=splits.train, val=splits.val)  # type: ignore[arg-type]


def test_two_of_four_along_the_inputs() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 8, 3, 3)).astype(np.float32)
    mask = n_of_m(torch.from_numpy(weight), 2, 4)
    assert mask is not None
    for o, y, x in np.ndindex(5, 3, 3):
        for start in (0, 4):
            four = np.abs(weight[o, start : start + 4, y, x])
            kept = mask[o, start : start + 4, y, x].numpy()
            assert set(np.flatnonzero(kept)) == set(np.argsort(-four)[:2])
    assert n_of_m(torch.zeros(5, 3, 3, 3), 2, 4) is None


def test_the_smallest_go_together_or_by_layer() -> None:
    weights = {"a": torch.tensor([[1.0, -2.0], [3.0, -4.0]]), "b": torch.tensor([[10.0, 20.0], [30.0, 40.0]])}
    together = largest(weights, 0.5, together=True)
    assert not together["a"].any()
    assert together["b"].all()
    each = largest(weights, 0.5, together=False)
    assert each["a"].tolist() == [[False, False], [True, True]] == each["b"].tolist()


@pytest.mark.parametrize("settings", [{"share": 0.8}, {"share": 0.8, "scope": "layer"}, {"pattern": "2:4"}, {"pattern": "1:8"}])
def test_the_pass(net: Bundle, context: Context, settings: dict[str, object]) -> None:
    after = run_passes(net, [make_pass("sparsify", settings)], context)
    told = after.history[-1].changes
    old, new = net.graph.state_dict(), after.graph.state_dict()
    names = ("stem.weight", "body.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight")
    if "share" in settings:
        gone = sum(int((new[n] == 0).sum()) for n in names)
        assert gone == round(0.8 * sum(new[n].numel() for n in names)) or settings.get("scope") == "layer"
        assert told["zeros"] == pytest.approx(0.8, abs=0.01)
    else:
        kept, of = map(int, str(settings["pattern"]).split(":"))
        rows = new["body.weight"].movedim(1, -1).reshape(-1, of)
        assert bool(((rows != 0).sum(1) == kept).all())
        assert "stem.weight" in told["skipped"]
        assert "3 inputs are not a multiple" in told["skipped"]["stem.weight"]
    for name, value in new.items():
        assert bool(((value == old[name]) | (value == 0)).all())
        assert name in names or torch.equal(value, old[name]), f"{name} is no weight of a layer"
    assert "do not get faster" in told["notes"][0]
    plain = len(zlib.compress(b"".join(p.detach().numpy().tobytes() for p in net.graph.parameters())))
    assert told["deflated-bytes"][0] == plain
    assert told["deflated-bytes"][1] < 0.8 * plain


def test_zeros_stay_through_the_passes_that_train(net: Bundle, context: Context) -> None:
    steps = [make_pass("sparsify", {"share": 0.7, "protect": ["head"]})]
    steps += [make_pass("finetune", {"epochs": 2, "batch-size": 16, "augment": "none", "lr": 0.05})]
    sparse = run_passes(net, steps[:1], context)
    after = run_passes(sparse, steps[1:], context)
    assert after.history[-1].changes["zeros-kept"] == 4
    trained = 0
    for name, value in sparse.graph.named_parameters():
        now = after.graph.state_dict()[name]
        if value.ndim > 1 and not name.startswith("head"):
            assert bool((now[value == 0] == 0).all()), name
        trained += not torch.equal(now, value)
    assert trained > 0 or not after.history[-1].changes.get("changed", True)
    assert not bool((sparse.graph.state_dict()["head.weight"] == 0).any())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "exactly one of share and pattern"),
        ({"share": 0.5, "pattern": "2:4"}, "exactly one"),
        ({"share": 1.5}, "share between 0 and 1"),
        ({"pattern": "4:2"}, "not N:M with N below M"),
        ({"pattern": "many"}, "not N:M"),
        ({"share": 0.5, "protect": ["nowhere"]}, "'nowhere', which is no layer"),
    ],
)
def test_wrong_settings(net: Bundle, context: Context, settings: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        run_passes(net, [make_pass("sparsify", settings)], context)
