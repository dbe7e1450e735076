"""The drawers: every recipe and sample manifest a person may name, loaded; and what a recipe would write."""

from pathlib import Path

import PIL
import pytest

from edgegeo.calibration import check_samples, read_manifest
from edgegeo.evaluate import planet_scenes
from edgegeo.export.components import layout, write
from edgegeo.export.plan import plan
from edgegeo.export.source import Source
from edgegeo.recipe import load_recipe, preset

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "export").glob("*.toml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe_loads_and_its_file_name_tells_model_target_and_name(file: Path) -> None:
    model, target, name = file.stem.rsplit(".", 2)
    recipe = load_recipe(file)
    assert (recipe.target, recipe.name) == (target, name)
    assert model in ("pocket", "smolvlm-256m", "internvl3.5-1b", "qwen2.5-vl-3b", "gemma-3-4b")


@pytest.mark.parametrize("name", ["int8", "int4", "fp16", "int8-blocks"])
def test_pocket_recipes_are_the_presets_spelled_out(name: str) -> None:
    assert load_recipe(ROOT / "export" / f"pocket.cpu.{name}.toml") == preset(name)


def test_calibration_manifest_is_that_of_the_planet() -> None:
    manifest = read_manifest(ROOT / "calibration" / "pocket.json")
    recipe = load_recipe(ROOT / "export" / "pocket.cpu.int8-static.toml")
    assert (manifest.count, manifest.split) == (recipe.calibration_samples, "validation")
    if PIL.__version__.split(".")[0] != "13":
        pytest.skip("another Pillow writes other JPEG bytes")
    check_samples(manifest, planet_scenes(manifest.count, "validation", manifest.seed))


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "int4", "int8-blocks", "nf4", "int3", "int2"])
def test_plan_tells_the_size_that_is_written(source: Source, tmp_path: Path, name: str) -> None:
    recipe = preset(name)
    planned = {one.name: one for one in plan(source, recipe)}
    assert planned["trunk"].roles == ("rerank",)
    assert planned["vision"].roles == ("rerank", "generate")
    for part in layout(source).parts.values():
        component, _ = write(part, recipe, tmp_path)
        files = [tmp_path / component.file, tmp_path / f"{component.file}_data"]
        size = sum(f.stat().st_size for f in files if f.exists())
        # The rest is graph: nodes, names and the rotary tables, about 60 KB whatever the model's size.
        assert 0 <= size - planned[part.name].megabytes * 2**20 < 80_000
