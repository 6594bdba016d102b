"""Recipes: there and back, what is shipped, and each mistake told with what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from packlight.compress.passes import passes
from packlight.compress.recipe import load_passes, load_recipe, read_recipe, shipped
from packlight.core.errors import RecipeError

TEXT = """
schema = 1
name = "mine"
summary = "a \\"quoted\\" word"

[[pass]]
use = "fold-batchnorm"

[[pass]]
use = "finetune"
lr = 0.01
epochs = 3
augment = "none"

[export]
formats = ["onnx"]
precisions = ["fp32", "fp16"]

[gates]
max-drop = 1.5
"""


def read(text: str, name: str = "r") -> object:
    return read_recipe(text, f"recipe '{name}'", name)


@pytest.mark.parametrize("name", ["int8", "prune50-int8", "fp16", "qat-int8", "prune50-qat", "prune50-iterative", "prune50-sparse"])
def test_shipped_recipes_load_and_survive_a_round_trip(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert read_recipe(recipe.to_toml(), "again", "again") == recipe
    assert [p.name for p in recipe.make_passes()] == [step.use for step in recipe.passes]


def test_what_the_three_do() -> None:
    assert [s.use for s in load_recipe("int8").passes] == ["fold-batchnorm", "quantize"]
    assert [s.use for s in load_recipe("prune50-int8").passes] == ["prune", "finetune", "fold-batchnorm", "quantize"]
    assert load_recipe("prune50-int8").passes[0].settings["macs"] == 0.5
    assert load_recipe("prune50-int8").passes[1].settings["max-minutes"] <= 20
    assert load_recipe("fp16").export.precisions == ("fp32", "fp16")


def test_a_file_and_its_round_trip(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(TEXT)
    recipe = load_recipe(str(tmp_path / "r.toml"))
    assert recipe.name == "mine"
    assert recipe.gates.max_drop == 1.5
    assert recipe.export.formats == ("onnx",)
    assert recipe.passes[1].settings == {"lr": 0.01, "epochs": 3, "augment": "none"}
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    assert load_recipe(str(tmp_path / "again.toml")) == recipe


def test_overrides() -> None:
    recipe = load_recipe("prune50-int8").override({"finetune": {"max-minutes": 1, "min-steps": None}, "gates": {"max-drop": 2.0}})
    assert recipe.passes[1].settings["max-minutes"] == 1
    assert "min-steps" not in recipe.passes[1].settings
    assert recipe.gates.max_drop == 2.0
    assert load_recipe("prune50-int8").passes[1].settings["max-minutes"] == 20
    with pytest.raises(RecipeError, match="has no pass 'distil' to change; it has: prune, finetune, fold-batchnorm, quantize"):
        recipe.override({"distil": {}})
    with pytest.raises(RecipeError, match="pass 2: pass 'finetune'.*its settings are"):
        recipe.override({"finetune": {"max-hours": 1}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("schema = 1", "schema = 2"), "schema"),
        (("schema = 1", ""), "missing required field `schema`"),
        (("[gates]", "[gate]"), r"unknown key 'gate' \(did you mean 'gates'\?\); known: schema, name"),
        (("max-drop", "max_drop"), r"\[gates\] has the unknown key 'max_drop' \(did you mean 'max-drop'\?\)"),
        (("formats =", "format ="), r"\[export\] has the unknown key 'format'"),
        (('"fp16"]', '"int4"]'), "int4"),
        (('use = "finetune"', 'use = "fintune"'), r"pass 2: unknown pass 'fintune' \(did you mean 'finetune'\?\); known: .*fold-batchnorm"),
        (('use = "finetune"', ""), "pass 2 has no 'use'"),
        (("lr = 0.01", "lr = 'fast'"), "pass 2: pass 'finetune': Expected `float`, got `str`"),
        (("lr = 0.01", "learning-rate = 0.01"), "`learning-rate`; its settings are: .*lr"),
        (("schema = 1", "schema = "), "is not TOML"),
    ],
)
def test_mistakes_are_told(change: tuple[str, str], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        read(TEXT.replace(*change))
    assert "\n" not in str(caught.value)


def test_unknown_names_list_the_known() -> None:
    told = ", ".join(shipped())
    with pytest.raises(RecipeError, match=rf"unknown recipe 'int9' \(did you mean 'int8'\?\); known: {told}"):
        load_recipe("int9")
    with pytest.raises(RecipeError, match="recipe file '.*none.toml' does not exist; shipped recipes: fp16"):
        load_recipe("none.toml")


def test_every_pass_files_itself() -> None:
    load_passes()
    assert {"fold-batchnorm", "prune", "finetune", "quantize"} <= set(passes.names())
    assert set(shipped()) >= {"int8", "prune50-int8", "fp16", "qat-int8", "prune50-qat", "prune50-iterative", "prune50-sparse"}
