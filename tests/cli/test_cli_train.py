"""Flags of `edgegeo train` become the settings dataclasses, whole and checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgegeo.cli.train import _adapter, _schedule, gathered, settings_of
from edgegeo.errors import InputError
from edgegeo.train.settings import BaseSettings, GpsSettings, RerankerSettings, RetrieverSettings

RECIPES = sorted((Path(__file__).parents[2] / "export" / "train").glob("*.toml"))


def test_flags_not_given_leave_the_defaults(tmp_path: Path, home: Path) -> None:
    settings = settings_of(BaseSettings, gathered(None, {"out": tmp_path, "steps": None}, None))
    assert settings.out == tmp_path
    assert settings.data.cache == home / "planet-cache"
    assert settings.steps == BaseSettings(tmp_path).steps
    assert settings.shape == BaseSettings(tmp_path).shape


def test_flags_win_over_a_recipe_and_set_over_both(tmp_path: Path, home: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('method = "slq"\nqueries = 4\nlr = 0.5\n[schedule]\nsteps = 9\nbatch = 8\nwarmup = 2\n')
    given = _adapter(tmp_path, None, "coco", tmp_path, 20, None, 0.1) | _schedule(5, None, 3, 1, True)
    words = ["schedule.steps=7", "data.cache=~/x", "lora.targets=vision"]
    settings = settings_of(RetrieverSettings, gathered(recipe, given, words))
    plan = settings.schedule
    assert (plan.steps, plan.batch, plan.warmup, plan.seed, plan.threads, plan.resume) == (7, 8, 2, 3, 1, True)
    assert (settings.method, settings.queries, settings.lr, settings.lora.targets) == ("slq", 4, 0.1, "vision")
    assert (settings.data.name, settings.data.root, settings.data.places) == ("coco", tmp_path, 20)
    assert settings.data.cache == Path("~/x").expanduser()


def test_a_setting_leaves_the_rest_of_its_group_as_it_was(tmp_path: Path, home: Path) -> None:
    made = settings_of(RerankerSettings, gathered(None, {"out": tmp_path}, ["lora.targets=text", "schedule.warmup=3"]))
    plain = settings_of(RerankerSettings, gathered(None, {"out": tmp_path}, None))
    assert plain.lora == RerankerSettings(out=tmp_path).lora
    assert made == replace(plain, lora=replace(plain.lora, targets="text"), schedule=replace(plain.schedule, warmup=3))
    assert not made.lora.dora
    gps = settings_of(GpsSettings, gathered(None, {"out": tmp_path}, ["lora.rank=8"]))
    assert (gps.lora.rank, gps.lora.alpha, gps.lora.dora) == (8, 64, False)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_recipes_of_the_drawer_are_settings(recipe: Path, tmp_path: Path, home: Path) -> None:
    cls = {"gps": GpsSettings, "reranker": RerankerSettings}.get(recipe.name.split(".")[1], RetrieverSettings)
    assert settings_of(cls, gathered(recipe, {"out": tmp_path}, None)).out == tmp_path


def test_the_drawer_has_recipes() -> None:
    assert len(RECIPES) >= 4


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("wings=2", "wings"),
        ("steps=many", "steps"),
        ("out.deep=1", "out"),
        ("rank", "NAME=VALUE"),
        ("=1", "NAME=VALUE"),
    ],
)
def test_wrong_settings_are_named(word: str, part: str, tmp_path: Path, home: Path) -> None:
    with pytest.raises(InputError, match=part):
        settings_of(BaseSettings, gathered(None, {"out": tmp_path}, [word]))


def test_all_faults_are_told_at_once(tmp_path: Path, home: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)wings.*legs"):
        settings_of(BaseSettings, gathered(None, {"out": tmp_path}, ["wings=2", "legs=4"]))


@pytest.mark.parametrize("content", [None, "steps = ", "\xff"])
def test_recipes_that_cannot_be_read(content: str | None, tmp_path: Path, home: Path) -> None:
    recipe = tmp_path / "r.toml"
    if content is not None:
        recipe.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"can't read the recipe"):
        gathered(recipe, {"out": tmp_path}, None)


@pytest.mark.parametrize("verb", ["base", "retriever", "gps"])
def test_every_setting_is_listed_with_its_text(verb: str, cli: Any) -> None:
    listed = cli("train", "settings", verb, "--json").json
    assert all(entry["text"] for entry in listed.values())
    cls = {"base": BaseSettings, "retriever": RetrieverSettings, "gps": GpsSettings}[verb]
    words = [f"{name}={value['default']}" for name, value in listed.items() if type(value["default"]) in (int, float)]
    assert settings_of(cls, gathered(None, {"out": Path("x")}, words))
    assert listed["data.name"]["default"] == "planet"
    if verb == "gps":
        assert listed["lora.rank"]["default"] == 32  # as the method has it, not the shape's own default
    shown = cli("train", "settings", verb).out
    assert all(name in shown for name in listed)


def test_refusals(cli: Any, tmp_path: Path) -> None:
    assert "--method" in cli("train", "retriever", "-o", tmp_path, "--method", "magic").refused()
    assert "--output" in cli("train", "base").refused()
    assert "base, retriever, reranker, gps" in cli("train", "settings", "magic").refused()
