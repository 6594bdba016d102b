"""The ``[trust]`` table of a recipe."""

import pytest

from packlight.compress.recipe import load_recipe, read_recipe
from packlight.core.errors import RecipeError
from packlight.core.trust import TrustLimits

HEAD = 'schema = 1\n[[pass]]\nuse = "fold-batchnorm"\n'


@pytest.mark.parametrize("table", ["[trust]\n", "[trust]\nclass-drop = 2.0\nece-rise = 100\nmin-samples = 300\n", ""])
def test_limits_come_back_from_their_file(table: str) -> None:
    recipe = read_recipe(HEAD + table, "here", "r")
    assert (recipe.trust is None) == (not table)
    assert read_recipe(recipe.to_toml(), "there", "r") == recipe


def test_limits_can_be_overridden() -> None:
    recipe = read_recipe(HEAD + "[trust]\nclass-drop = 2.0\n", "here", "r").override({"trust": {"class-drop": 3, "alpha": 0.01}})
    assert recipe.trust == TrustLimits(class_drop=3, alpha=0.01)
    assert load_recipe("int8").override({"trust": {"drop": 0.5}}).trust == TrustLimits(drop=0.5)


@pytest.mark.parametrize(
    ("table", "words"), [("clas-drop = 1", "did you mean 'class-drop'"), ("alpha = 0.9", "alpha is 0.9"), ("drop = 'x'", "trust")]
)
def test_mistakes_are_named(table: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read_recipe(HEAD + f"[trust]\n{table}\n", "here", "r")
