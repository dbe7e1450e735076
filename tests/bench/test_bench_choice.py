"""The setting to deploy, and the recipe that is written for it."""

import math
import shlex
from pathlib import Path

import pytest
from measured import row, share

from edgegeo.bench.choice import Wanted, choose, commands, recipe_toml
from edgegeo.cli.bench.amounts import joules, megabytes, milliseconds
from edgegeo.cli.bench.amounts import share as share_of
from edgegeo.errors import InputError
from edgegeo.recipe import load_recipe, preset
from edgegeo.schema import to_plain

ROWS = [
    row("fp32", ms=30.0, accuracy=share(0.66)), row("int8", ms=12.0, accuracy=share(0.65)),
    row("int4", ms=10.0, accuracy=share(0.50)), row("int8", ms=50.0, batch=8, accuracy=share(0.65)),
    row("int8", "embed_text", ms=1.0, accuracy=share(0.9, "text_to_tile_recall_at_1")),
]  # fmt: skip


def test_the_fastest_that_is_as_accurate_as_the_best() -> None:
    chosen = choose(ROWS, Wanted())
    assert (chosen.row["label"], chosen.most_accurate["label"]) == ("int8", "fp32")
    assert (chosen.within, chosen.measured) == (4, 4)


@pytest.mark.parametrize(
    ("wanted", "label"),
    [
        (Wanted(max_latency_ms=11.0), "int4"),
        (Wanted(max_latency_ms=13.0), "int8"),
        (Wanted(min_accuracy=0.655), "fp32"),
    ],
)
def test_limits(wanted: Wanted, label: str) -> None:
    assert choose(ROWS, wanted).row["label"] == label


def test_throughput_prefers_batches() -> None:
    assert choose(ROWS, Wanted(min_throughput=100.0)).row["batch"] == 8


def test_memory_counts_on_process_and_device() -> None:
    rows = [row(accuracy=share(0.5), memory_mb={"peak": 80.0, "proportional": 1.0, "device": 900.0})]
    assert choose(rows, Wanted(max_memory_mb=1000)).row
    with pytest.raises(InputError, match="900 MB"):
        choose(rows, Wanted(max_memory_mb=800))


def test_energy_that_was_not_measured_keeps_no_limit() -> None:
    with pytest.raises(InputError, match="energy not measured"):
        choose(ROWS, Wanted(max_joules=1.0))
    assert Wanted().max_joules == math.inf


def test_nothing_keeps_the_limits() -> None:
    with pytest.raises(InputError, match=r"nearest: int8 generate batch 1 \(p90 12\.\d ms\)"):
        choose(ROWS, Wanted(max_latency_ms=5.0, min_accuracy=0.6))
    with pytest.raises(InputError, match="no row of the job locate; they hold generate, embed_text"):
        choose(ROWS, Wanted(), "locate")
    with pytest.raises(InputError, match="accuracy was not measured"):
        choose([row()], Wanted())


@pytest.mark.parametrize("name", ["fp32", "int8", "int4"])
def test_a_written_recipe_reads_back(tmp_path: Path, name: str) -> None:
    file = tmp_path / "best.toml"
    file.write_text(recipe_toml(to_plain(preset(name)), "why"))
    assert file.read_text().startswith("# why\n")
    assert load_recipe(file) == preset(name)


def test_toml_of_every_kind_of_value() -> None:
    import tomllib

    told = {"a": 'say "x" \\ é', "b": True, "c": 1, "d": 0.5, "e": [1, 2], "n": None, "t": {"vision.*.fc1": "fp16"}}
    assert tomllib.loads(recipe_toml(told)) == {name: value for name, value in told.items() if value is not None}


def test_commands_name_what_was_set() -> None:
    chosen = row(
        "int8 slq", "locate", recipe=to_plain(preset("int8")), asked_method="slq", checkpoint="my model", threads=2,
        rerank=5, candidates=3, power_mode=1,
    )  # fmt: skip
    export, mode, run = commands(chosen, "out/best.toml")
    assert shlex.split(export) == ["edgegeo", "export", "my model", "--recipe", "out/best.toml", "--method", "slq",
                                   "-o", "best"]  # fmt: skip
    assert mode == "sudo nvpmodel -m 1"
    assert run == "edgegeo locate photo.jpg --bundle best --threads 2 --rerank 5 --candidates 3"
    [embed] = commands(row("int8", "embed_image", dims=64, threads=1), "x.toml")
    assert embed == "edgegeo embed photo.jpg --bundle pocket-int8 --threads 1 --dims 64"
    assert commands(row(), "x.toml") == ["edgegeo locate photo.jpg --bundle pocket-int8"]


def test_amounts() -> None:
    assert [milliseconds(text, "x") for text in ("200ms", "1.5 s", "30", "50us")] == [200, 1500, 30, 0.05]
    assert [megabytes(text, "x") for text in ("2GB", "900 mb", "1.5GiB", "64")] == [2048, 900, 1536, 64]
    assert [joules(text, "x") for text in ("2J", "150mJ")] == [2, 0.15]
    assert [share_of(text, "x") for text in ("5%", "0.05", "100 %")] == [0.05, 0.05, 1.0]
    for wrong in ("fast", "-3ms", "3 GB", ""):
        with pytest.raises(InputError, match="--limit takes a time"):
            milliseconds(wrong, "--limit")
    with pytest.raises(InputError, match="up to 100 %"):
        share_of("5", "--limit")
