from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from packlight.core.axes import Wish, free_of, grant, other_sizes, read_wish, renamed
from packlight.core.bundle import Bundle
from packlight.core.errors import InputError, ModelError
from packlight.core.load import load_model


def test_what_dynamic_says() -> None:
    assert read_wish("image=0,2:rows,width") == Wish("image", ((0, ""), (2, "rows"), (3, "width")))
    assert read_wish("height, width") == Wish("", ((2, "height"), (3, "width")))
    for wrong in ("image=", "image=two", "=2", "image=2:3", "image=-1"):
        with pytest.raises(InputError, match="--dynamic"):
            read_wish(wrong)


def test_axes_get_names() -> None:
    wishes = [read_wish("image=0,2,3"), read_wish("mask=2"), read_wish("steps=1")]
    assert grant(wishes, ["image", "mask", "steps"], [4, 4, 3]) == [
        {0: "batch", 2: "height", 3: "width"},
        {2: "mask_height"},
        {1: "steps_1"},
    ]
    with pytest.raises(InputError, match="names the input 'picture'; the model's inputs are: image"):
        grant([read_wish("picture=2")], ["image"], [4])
    with pytest.raises(InputError, match="has 2 inputs .image, mask.; say whose axes"):
        grant([read_wish("2")], ["image", "mask"], [4, 4])
    with pytest.raises(InputError, match="has 4 axes, so there is no axis 4"):
        grant([read_wish("4")], ["image"], [4])
    assert renamed("4*s77 + s1", {"s77": "height"}) == "4*height + s1"


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings: object) -> None:
        super().__init__()
        self.rnn = kind(6, 8, **settings)
        self.head = nn.Linear(8 * (2 if settings.get("bidirectional") else 1), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (nn.LSTM, {"batch_first": True, "num_layers": 2, "bidirectional": True}),
        (nn.LSTM, {"proj_size": 8, "batch_first": True}),
        (nn.GRU, {"batch_first": True, "bidirectional": True}),
        (nn.RNN, {"batch_first": True}),
    ],
)
def test_time_is_free_through_recurrent_layers(kind: type[nn.RNNBase], settings: dict[str, object]) -> None:
    if settings.get("proj_size"):
        settings = {**settings, "hidden_size": 12}
        module: nn.Module = Recurrent.__new__(Recurrent)
        nn.Module.__init__(module)
        module.rnn, module.head = nn.LSTM(6, 12, proj_size=8, batch_first=True), nn.Linear(8, 3)
    else:
        module = Recurrent(kind, **settings)
    module.eval()
    bundle = Bundle.capture(module, (torch.randn(2, 9, 6),), free_axes=[{1: "time"}])
    assert bundle.signature.inputs[0].shape == ("batch", "time", 6)
    assert bundle.signature.outputs[0].shape == ("batch", "time", 3)
    kinds = [str(n.target) for n in bundle.graph.graph.nodes if n.op == "call_function"]
    assert sum(k in ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input") for k in kinds) == 1
    for rows, time in ((2, 9), (1, 4), (3, 17)):
        x = torch.randn(rows, time, 6)
        assert torch.allclose(bundle.run(x)[0], module(x), atol=1e-6)


def test_recurrent_layers_outside_are_as_before() -> None:
    ops = [torch.ops.aten.lstm.input, torch.ops.aten.gru.input]
    before = [dict(op.py_kernels) for op in ops]
    Bundle.capture(Recurrent(nn.LSTM), (torch.randn(5, 2, 6),), free_batch=False)
    with pytest.raises(ModelError):
        Bundle.capture(Fixed(), (torch.randn(2, 3, 8, 8),), free_axes=[{3: "width"}])
    assert [dict(op.py_kernels) for op in ops] == before


class Fixed(nn.Module):
    """Its linear layer holds the number of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3 * 8 * 8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x.flatten(1))


class Turns(nn.Module):
    """It computes something else for wide images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[-1] > 100 else x + 1


def test_an_axis_that_the_model_holds_is_refused() -> None:
    with pytest.raises(ModelError, match="axis 3 of input 'x' can't be free: the model fixes it to 8"):
        Bundle.capture(Fixed(), (torch.randn(2, 3, 8, 8),), free_axes=[{3: "width"}])
    with pytest.raises(ModelError, match="width can't be free: at width 101 the model goes another way .*differs"):
        Bundle.capture(Turns(), (torch.randn(2, 3, 8, 8),), free_axes=[{3: "width"}])


def test_one_row_is_enough_where_the_batch_is_asked_for() -> None:
    bundle = Bundle.capture(nn.Conv2d(3, 4, 3), (torch.randn(1, 3, 8, 8),), free_batch=False, free_axes=[{0: "batch", 2: "height"}])
    assert bundle.signature.inputs[0].shape == ("batch", 3, "height", 8)


def test_sizes_to_try_are_others() -> None:
    bundle = Bundle.capture(Turns(), (torch.randn(2, 3, 8, 6),), free_axes=[{2: "height"}])
    tried = other_sizes(bundle.signature, [(2, 3, 8, 6)])
    assert all(set(t) == {"height"} and t["height"] != 8 for t in tried)
    assert {11, 12, 4, 16} <= {t["height"] for t in tried}


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: torch.Tensor, pair: tuple, batch: dict, *, extra: torch.Tensor | None = None) -> dict:
        y = self.conv(image) + batch["mask"] + pair[0] * pair[1]
        y = y if extra is None else y + extra
        return {"scores": y.mean((2, 3)), "maps": [y, 2 * y], "aux": {"image": pair[0] + 1}, "image": y}


def nested() -> tuple[Nested, tuple, dict]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    arguments = (noise(2, 3, 8, 8), (noise(2, 1, 8, 8), noise(2, 4, 1, 1)), {"mask": noise(2, 1, 8, 8)})
    return Nested().eval(), arguments, {"extra": noise(2, 4, 8, 8)}


INPUTS = ["image", "pair_0", "pair_1", "batch_mask", "extra"]
OUTPUTS = ["scores", "maps_0", "maps_1", "aux_image", "image_out"]


def test_nested_arguments_become_named_doors(tmp_path: Path) -> None:
    module, arguments, keywords = nested()
    bundle = Bundle.capture(module, arguments, keywords=keywords)
    assert [s.name for s in bundle.signature.inputs] == INPUTS
    assert [s.name for s in bundle.signature.outputs] == OUTPUTS
    want = module(*arguments, **keywords)
    flat = [want["scores"], *want["maps"], want["aux"]["image"], want["image"]]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(bundle.run(*bundle.samples), flat, strict=True))
    bundle.save(tmp_path / "b")
    again = Bundle.load(tmp_path / "b")
    assert again.signature == bundle.signature
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(again.run(*bundle.samples), flat, strict=True))


def test_a_program_with_keyword_inputs(tmp_path: Path) -> None:
    module, arguments, keywords = nested()
    file = tmp_path / "nested.pt2"
    torch.export.save(torch.export.export(module, arguments, keywords), file)
    bundle = load_model(str(file))
    assert [s.name for s in bundle.signature.inputs] == INPUTS
    assert [s.name for s in bundle.signature.outputs] == OUTPUTS
    assert bundle.signature.inputs[0].shape[0] == "batch"
    want = module(*arguments, **keywords)
    got = bundle.run(*arguments[:1], *arguments[1], arguments[2]["mask"], keywords["extra"])
    assert torch.allclose(got[0], want["scores"], atol=1e-6)
    assert torch.allclose(got[4], want["image"], atol=1e-6)


def test_a_program_keeps_what_it_fixed(tmp_path: Path) -> None:
    file = tmp_path / "turns.pt2"
    torch.export.save(torch.export.export(nn.Conv2d(3, 4, 3), (torch.randn(2, 3, 8, 8),)), file)
    with pytest.raises(ModelError, match="axis 3 of input 'input' can't be free: the model was traced or saved with 8 there"):
        load_model(str(file), dynamic=[read_wish("3")])
    wide = torch.export.export(nn.Conv2d(3, 4, 3), (torch.randn(2, 3, 8, 8),), dynamic_shapes=({3: torch.export.Dim.DYNAMIC},))
    torch.export.save(wide, file)
    bundle = load_model(str(file), dynamic=[read_wish("3")])
    assert free_of(bundle.signature, [read_wish("3")]) == ("width",)


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match="input 'pair_1' is a float"):
        Bundle.capture(Nested(), (torch.randn(2, 3, 8, 8), (torch.randn(2, 1, 8, 8), 2.0), {"mask": torch.randn(2, 1, 8, 8)}))
    with pytest.raises(ModelError, match="its forward takes image, pair, batch, extra"):
        Bundle.capture(Nested(), (torch.randn(2, 3, 8, 8),))
