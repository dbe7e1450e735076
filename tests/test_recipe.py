"""Export recipes."""

from pathlib import Path

import pytest

from edgegeo.errors import InputError
from edgegeo.recipe import (
    PRECISIONS,
    Recipe,
    TokenBudget,
    check_layers,
    load_recipe,
    precision_of,
    preset,
    with_budget,
)

ROOT = Path(__file__).resolve().parents[1]


def test_presets() -> None:
    assert {preset(p).trunk for p in PRECISIONS} == set(PRECISIONS)
    with pytest.raises(InputError, match="fp32, fp16, bf16, int8-blocks, int8, nf4, int4, int3, int2"):
        preset("int7")


def test_every_recipe_in_the_drawer_loads() -> None:
    recipes = sorted((ROOT / "export").glob("*.toml"))
    assert recipes
    for file in recipes:
        load_recipe(file)


def test_faults_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('name = "x"\ntrunk = "int7"\n')
    with pytest.raises(InputError, match=r"bad\.toml.*trunk must be one of"):
        load_recipe(file)
    file.write_text("name = ")
    with pytest.raises(InputError, match=r"bad\.toml"):
        load_recipe(file)
    with pytest.raises(InputError, match="can't be read"):
        load_recipe(tmp_path / "none.toml")


def test_a_budget_is_a_table_of_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text('name = "small"\n[image]\nimage_size = 256\nmax_tiles = 4\n')
    assert load_recipe(file).image == TokenBudget(256, 4)
    for line, fault in (
        ("image_size = 0", "image_size must be between 1 and 4,096, not 0"),
        ("max_tiles = 145", "max_tiles must be between 1 and 144"),
        ("max_pixels = -1", "max_pixels must be between 1"),
        ("image_size = 1.5", "image_size must be int"),
        ("tiles = 4", "unknown key 'tiles'"),
    ):
        file.write_text(f'name = "small"\n[image]\n{line}\n')
        with pytest.raises(InputError, match=fault):
            load_recipe(file)


def test_a_budget_refines_a_recipe_and_its_name() -> None:
    assert with_budget(preset("int8"), TokenBudget()) == preset("int8")
    once = with_budget(preset("int8"), TokenBudget(image_size=64))
    assert (once.name, once.image, once.trunk) == ("int8-64px", TokenBudget(64), "int8")
    twice = with_budget(once, TokenBudget(max_tiles=4))
    assert (twice.name, twice.image) == ("int8-64px-4tiles", TokenBudget(64, 4))
    assert TokenBudget(max_tiles=1).label == "1tile"
    assert TokenBudget(max_pixels=50_176).label == "50176pixels"


def test_targets_choose_dialects_and_blocks() -> None:
    assert preset("int8").target == "cpu"
    made = preset("int4", "tensorrt")
    assert (made.name, made.target, made.block_size) == ("int4-tensorrt", "tensorrt", 64)
    with pytest.raises(InputError, match="unknown target 'orin'; use one of cpu, tensorrt"):
        preset("int8", "orin")
    with pytest.raises(ValueError, match="64 or 128 for int4 under TensorRT"):
        Recipe("x", target="tensorrt", trunk="int4")


def test_layers_are_a_table_of_patterns(tmp_path: Path) -> None:
    file = tmp_path / "mixed.toml"
    file.write_text('name = "mixed"\ntrunk = "int4"\n[layers]\n"trunk.layers.0.*" = "fp32"\n"trunk*.down" = "int8"\n')
    recipe = load_recipe(file)
    names = ("trunk.layers.0.down", "trunk.layers.1.down", "trunk.layers.10.qkv", "trunk_generate.layers.1.down")
    found = [precision_of(name, recipe.layers, recipe.trunk) for name in names]
    assert found == ["fp32", "int8", "int4", "int8"]
    assert recipe.precisions == {"fp32", "int4", "int8"}
    check_layers(recipe, names)
    file.write_text('name = "mixed"\n[layers]\n"trunk.layers.0.*" = "int5"\n')
    with pytest.raises(InputError, match=r"layers.'trunk\.layers\.0\.\*' must be one of .*, not 'int5'"):
        load_recipe(file)


def test_a_pattern_without_a_layer_is_an_error() -> None:
    recipe = Recipe("mixed", layers={"vision.layer.0.qkv": "fp32"})
    with pytest.raises(InputError, match=r"no layer matches 'vision\.layer\.0\.qkv'; layers are named as"):
        check_layers(recipe, ("vision.patch", "vision.layers.0.qkv", "head.logits"))
    check_layers(Recipe("plain"), ())


def test_nothing_rounded_is_exact() -> None:
    assert preset("fp32").exact
    assert not Recipe("mixed", layers={"*.down": "int8"}).exact
    assert not Recipe("table", embeddings="fp16").exact


def test_four_bit_layers_under_tensorrt_need_its_blocks() -> None:
    with pytest.raises(ValueError, match="64 or 128 for int4 under TensorRT"):
        Recipe("x", target="tensorrt", layers={"*.down": "int4"})
