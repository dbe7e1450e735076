"""Sweep definitions: the drawer, the faults a person makes, and the cells they span."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgegeo.bench.cells import Subject, expand
from edgegeo.bench.definition import Axes, Measuring, Models, Sweep, load_sweep
from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "benchmarks" / "sweeps").glob("*.toml"))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    """The tiny bundle, as if trained for shorter embeddings."""
    whole = open_bundle(tiny_bundle)
    roles = whole.manifest.roles
    assert roles.embed is not None
    shorter = replace(roles, embed=replace(roles.embed, matryoshka=(96, 48, 24, 8)))
    return replace(whole, manifest=replace(whole.manifest, roles=shorter))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_a_sweep_of_the_drawer_loads_and_has_cells(file: Path, bundle: Bundle, tmp_path: Path) -> None:
    sweep = load_sweep(file)
    assert (sweep.name, bool(sweep.about)) == (file.stem, True)
    assert expand([Subject("int8", bundle)], sweep, tmp_path)
    assert f"--sweep benchmarks/sweeps/{file.name}" in file.read_text()


def test_the_default_sweep_is_the_pocket_one() -> None:
    pocket = load_sweep(ROOT / "benchmarks" / "sweeps" / "pocket.toml")
    assert (pocket.models, pocket.cells, pocket.measure) == (Models(), Axes(), Measuring())


def test_every_job_takes_its_own_axes(bundle: Bundle, tmp_path: Path) -> None:
    axes = Axes(
        jobs=("embed_text", "rerank", "generate", "locate"), batch=(1, 8), dims=(0, 8, 32), rerank=(0, 5),
        candidates=(1, 4), threads=(1, 2),
    )  # fmt: skip
    cells = expand([Subject("int8", bundle)], Sweep(cells=axes), tmp_path)
    seen = [(c.job, c.batch, c.dims, c.rerank, c.candidates) for c in cells if c.threads == 1]
    assert len(cells) == 2 * len(seen) == 2 * len(set(seen))
    # The tiny model's embeddings have 32 dimensions, so that 32 is all of them.
    assert [s[1:3] for s in seen if s[0] == "embed_text"] == [(1, 0), (1, 8), (8, 0), (8, 8)]
    assert [s for s in seen if s[0] == "rerank"] == [("rerank", 1, 0, 5, 1)]
    assert [s for s in seen if s[0] == "generate"] == [
        ("generate", 1, 0, 0, 1), ("generate", 1, 0, 0, 4), ("generate", 8, 0, 0, 1),
    ]  # fmt: skip
    assert [s[3:] for s in seen if s[0] == "locate"] == [(0, 1), (0, 4), (5, 1), (5, 4)]


def test_lengths_that_a_model_was_not_trained_for(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not 9; for others train a retriever"):
        expand([Subject("int8", bundle)], Sweep(cells=Axes(jobs=("search",), dims=(9,))), tmp_path)


def test_jobs_that_a_bundle_lacks_are_left_out(bundle: Bundle, tmp_path: Path) -> None:
    roles = replace(bundle.manifest.roles, rerank=None, generate=None)
    lesser = replace(bundle, manifest=replace(bundle.manifest, roles=roles))
    axes = Axes(jobs=("embed_text", "rerank", "generate", "locate"), batch=(1,))
    assert {cell.job for cell in expand([Subject("x", lesser)], Sweep(cells=axes), tmp_path)} == {"embed_text"}
    with pytest.raises(InputError, match="no cell"):
        expand([Subject("x", lesser)], Sweep(cells=replace(axes, jobs=("rerank",))), tmp_path)


def test_the_key_names_all_that_matters(bundle: Bundle, tmp_path: Path) -> None:
    sweep = Sweep(cells=Axes(jobs=("embed_image",), batch=(1,)))
    [cell] = expand([Subject("int8", bundle)], sweep, tmp_path)
    assert cell.key() == replace(cell, bundle="elsewhere", inputs="elsewhere", gallery="elsewhere").key()
    changed: list[dict[str, Any]] = [
        {"fingerprint": "0"}, {"batch": 2}, {"threads": 2}, {"places": 4}, {"dims": 8}, {"rerank": 1},
        {"candidates": 2}, {"provider": "cuda"}, {"power_mode": 1}, {"target": 0.1},
    ]  # fmt: skip
    assert len({cell.key(), *(replace(cell, **one).key() for one in changed)}) == 1 + len(changed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[cells]\nbatch = [0]", "batch must be between 1 and 1,024"),
        ("[cells]\njobs = ['dance']", "jobs takes some of"),
        ("[cells]\nprovider = []", "provider takes some of"),
        ("[cells]\ncandidates = [99]", "candidates must be between 1 and 32"),
        ("[cells]\nrerank = []", "at least one number"),
        ("[measure]\nplaces = 0", "places must be"),
        ("[measure]\nmin_repeats = 5\nmax_repeats = 4", "repeats must be 1 or more"),
        ("[measure]\ntarget = 1.5", "repeats must be 1 or more"),
        ("[measure]\ncool_down_s = -1", "cool_down_s must be between 0 and"),
        ("[measure]\npause_s = nan", "pause_s must be between 0 and"),
        ("[measure]\ntimeout_s = inf", "timeout_s must be between 1 and"),
        ("[measure]\nwarmup = 99999999999999999999", "warmup must be between 0 and"),
        ("[measure]\nspeed = 1", "unknown key 'speed'"),
        ("[models]\nprecision = ['int9']", "unknown precision 'int9'"),
        ("[models]\nbundles = ['a']\nimage_size = [64]", "leave them out with bundles"),
        ("[models]\nprecision = []", "nothing to measure"),
        ("cells = 3", "must be a table"),
        ("[cells", "sweep"),
    ],
)
def test_a_fault_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        load_sweep(file)
    assert "mine.toml" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="benchmarks/sweeps"):
        load_sweep(tmp_path / "none.toml")
