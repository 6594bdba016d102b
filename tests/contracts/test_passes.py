"""One contract for every registered pass. A pass without a case below fails here: give it one."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from packlight.compress.passes import Context, PassResult, make, passes, run_passes
from packlight.compress.recipe import load_passes
from packlight.core.bundle import Bundle
from packlight.core.errors import ContractError, RecipeError
from packlight.core.verdict import Verdict
from packlight.targets.load import load_target
from packlight.tasks.data.load import splits_of
from packlight.tasks.load import load_task


@dataclasses.dataclass(frozen=True)
class Case:
    """How a pass is run here. ``needs`` are the context's fields without which it must refuse. ``extra`` installs what it imports."""

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    imports: str | None = None
    prepare: Callable[[Bundle, Context], Bundle] | None = None


def student(bundle: Bundle, context: Context) -> Bundle:
    """The same architecture with other weights: a model taught by itself is refused."""
    graph = bundle.copy_graph()
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.mul_(0.9)
    return bundle.replace(graph=graph, name="student")


CASES: dict[str, Case] = {
    "fold-batchnorm": Case(),
    "equalize": Case(needs=("calib",)),
    "quantize": Case({"samples": 32}, needs=("calib",), imports="torchao"),
    "qat": Case(
        {"epochs": 1, "batch-size": 16, "samples": 32, "augment": "none", "min-steps": 4}, needs=("train", "task"), imports="torchao"
    ),
    "prune": Case({"macs": 0.6}),
    "prune-iterative": Case(
        {"macs": 0.5, "steps": 2, "finetune": {"epochs": 1, "batch-size": 16, "augment": "none"}},
        needs=("train", "task"),
        imports="lightning_fabric",
    ),
    "sparse-train": Case(
        {"epochs": 1, "batch-size": 16, "augment": "none", "prune": {"macs": 0.6}}, needs=("train", "task"), imports="lightning_fabric"
    ),
    "sparsify": Case({"share": 0.5}),
    "drop-blocks": Case({"blocks": 1, "images": 32}, needs=("calib",)),
    "factorise": Case({"measure": False, "round-to": 1, "energy": 0.6}),
    "fold-parametrised": Case(),
    "reestimate-batchnorm": Case({"images": 64, "batch": 32}, needs=("calib",)),
    "distill": Case(
        {"epochs": 1, "batch-size": 16, "augment": "none"}, needs=("train", "teacher"), imports="lightning_fabric", prepare=student
    ),
    "finetune": Case({"epochs": 1, "batch-size": 16, "augment": "none"}, needs=("train", "task"), imports="lightning_fabric"),
}

load_passes()


class Net(nn.Module):
    """A small residual net: BatchNorm, ReLU, pooling, a linear layer. (N, 3, 8, 8) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.body, self.body_norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.body_norm(self.body(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net().train()
        with torch.no_grad():
            for _ in range(3):
                net(torch.randn(16, 3, 8, 8))
        return Bundle.capture(net, (torch.randn(2, 3, 8, 8),), name="net", task="classification")


@pytest.fixture(scope="module")
def context(bundle: Bundle) -> Context:
    random = np.random.default_rng(0)
    splits = splits_of({"all": (random.integers(0, 255, (96, 8, 8, 3), dtype=np.uint8), np.arange(96) % 4)})
    return Context(
        target=load_target("x86-64-avx2"),
        task=load_task("classification"),
        train=splits.train,
        val=splits.val,
        calib=splits.calib,
        teacher=bundle,
        seed=3,
    )


@pytest.fixture(params=passes.names())
def case(request: pytest.FixtureRequest) -> tuple[str, Case]:
    name = request.param
    assert name in CASES, f"pass '{name}' has no case in this file"
    package = CASES[name].imports
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return name, CASES[name]


def run(case: tuple[str, Case], bundle: Bundle, context: Context) -> Bundle:
    name, how = case
    given = how.prepare(bundle, context) if how.prepare else bundle
    return run_passes(given, [make(name, how.settings)], context)


def weights(bundle: Bundle) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in bundle.graph.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_what_goes_in_stays_as_it_was_and_the_promise_is_kept(case: tuple[str, Case], bundle: Bundle, context: Context) -> None:
    before, program = weights(bundle), str(bundle.graph.graph)
    generator = torch.random.get_rng_state()
    after = run(case, bundle, context)
    assert equal(before, weights(bundle))
    assert program == str(bundle.graph.graph)
    assert torch.equal(generator, torch.random.get_rng_state()), "the pass left torch's random state changed"
    step = after.history[-1]
    assert (step.name, step.seed) == (case[0], 3)
    assert step.changes
    assert after.signature.inputs == bundle.signature.inputs
    assert [t.shape for t in after.run(*bundle.samples)] == [t.shape for t in bundle.run(*bundle.samples)]
    if step.changes.get("changed", True):
        assert not equal(before, weights(after))


def test_the_same_seed_gives_the_same_model(case: tuple[str, Case], bundle: Bundle, context: Context) -> None:
    one, two = run(case, bundle, context), run(case, bundle, context)
    assert str(one.graph.graph) == str(two.graph.graph)
    assert equal(weights(one), weights(two))


def test_the_result_survives_the_disk_and_exports_with_any_batch(
    case: tuple[str, Case], bundle: Bundle, context: Context, tmp_path
) -> None:
    after = run(case, bundle, context)
    again = Bundle.load(after.save(tmp_path / "bundle"))
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(after.run(x)[0], again.run(x)[0])
    for field in ("history", "quantized", "signature"):
        assert msgspec.json.encode(getattr(again, field)) == msgspec.json.encode(getattr(after, field))
    assert after.export(batch=1).module()(x[:1]).shape == (1, 4)
    assert torch.equal(after.export().module(check_guards=False)(x), after.run(x)[0])


def test_it_refuses_with_a_reason_what_it_lacks(case: tuple[str, Case], bundle: Bundle, context: Context) -> None:
    name, how = case
    for field in how.needs:
        lacking = dataclasses.replace(context, **dict.fromkeys(("train", "calib") if field == "calib" else (field,)))
        verdict = make(name, how.settings).requires(bundle, lacking)
        assert not verdict, f"'{name}' runs without {field}"
        assert len(verdict.why) > 10
        with pytest.raises(RecipeError, match=f"pass '{name}' can't run: "):
            run_passes(bundle, [make(name, how.settings)], lacking)


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do(case: tuple[str, Case]) -> None:
    with pytest.raises(RecipeError, match=f"pass '{case[0]}': .*its settings are: "):
        make(case[0], {"no-such-setting": 1})


def test_float_passes_refuse_a_quantized_model(case: tuple[str, Case], bundle: Bundle, context: Context) -> None:
    verdict = make(case[0], case[1].settings).requires(bundle.replace(quantized={"scheme": {}}), context)
    assert not verdict
    assert "quantized" in verdict.why


class Liar:
    """A pass of the wrong sort: breaks one promise at a time."""

    name = "liar"
    settings = make("fold-batchnorm", {}).settings

    def __init__(self, how: str) -> None:
        self.how = how

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        return Verdict(True)

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        if self.how == "changes its input":
            with torch.no_grad():
                next(iter(bundle.graph.parameters())).add_(1)
        return PassResult(bundle.replace(), self.how != "says unchanged")

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        return Verdict(self.how != "breaks its promise", "it did not")


@pytest.mark.parametrize("how", ["changes its input", "says unchanged", "breaks its promise"])
def test_the_loop_catches_a_pass_that_breaks_its_contract(how: str, context: Context) -> None:
    mine = Bundle.capture(nn.Linear(3, 2).eval(), (torch.randn(2, 3),))
    with pytest.raises(ContractError, match="liar"):
        run_passes(mine, [Liar(how)], context)
