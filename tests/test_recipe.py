"""Export recipes."""

from pathlib import Path

import pytest

from edgegeo.errors import InputError
from edgegeo.recipe import PRECISIONS, load_recipe, preset

ROOT = Path(__file__).resolve().parents[1]


def test_presets() -> None:
    assert {preset(p).trunk for p in PRECISIONS} == set(PRECISIONS)
    with pytest.raises(InputError, match="fp32, fp16, int8, int4"):
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
