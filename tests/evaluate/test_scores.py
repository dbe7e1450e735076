"""Ranks, distances and whole evaluations, the latter on a tiny real bundle."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import InputError
from edgegeo.evaluate import difference, evaluate, planet_scenes
from edgegeo.evaluate.bootstrap import Metric
from edgegeo.evaluate.card import plain
from edgegeo.evaluate.gps import guessed_distances, locate_scenes, random_distances
from edgegeo.evaluate.retrieval import Embeddings, ranks, retrieval_hits
from edgegeo.runtime import Generator, Model


def test_ranks_count_what_scores_higher() -> None:
    gallery = np.eye(4, dtype=np.float32)
    queries = np.array([[1, 0, 0, 0], [0.9, 0.5, 0, 0], [0.9, 0.8, 0.7, 0], [0, 0, 0, 1]], np.float32)
    assert ranks(queries, gallery).tolist() == [0, 1, 2, 0]


def test_equal_embeddings_score_nothing() -> None:
    """A collapsed model must not look perfect because of how ties are broken."""
    same = np.ones((20, 8), np.float32)
    hits = retrieval_hits(Embeddings(same, same, same))
    assert hits["text_to_tile_recall_at_10"].sum() == 0


def test_scenes_are_jpegs_of_the_place_and_drawn_once() -> None:
    scenes = planet_scenes(3)
    assert planet_scenes(2) == scenes[:2]
    assert planet_scenes(2)[0] is scenes[0]
    assert all(s.photo.startswith(b"\xff\xd8") and s.tile.startswith(b"\xff\xd8") and s.text for s in scenes)
    assert {s.id for s in scenes}.isdisjoint({s.id for s in planet_scenes(3, "validation")})
    with pytest.raises(InputError, match="at least one place"):
        planet_scenes(0)


def test_guessing_is_one_position_for_all_and_better_than_random() -> None:
    scenes = planet_scenes(40)
    positions = np.array([[s.lat, s.lon] for s in planet_scenes(60, "validation")])
    guess = guessed_distances(scenes, positions)
    assert guess.shape == (40,)
    assert np.median(guess) < np.median(random_distances(scenes)) * 1.2
    assert (random_distances(scenes) > 0).all()


def wide(path: Path) -> Bundle:
    """The tiny bundle, allowed the length of a planet description."""
    bundle = open_bundle(path)
    roles = bundle.manifest.roles
    assert roles.embed is not None
    embed = replace(roles.embed, max_text_tokens=220)
    return replace(bundle, manifest=replace(bundle.manifest, roles=replace(roles, embed=embed)))


def test_evaluation_of_a_tiny_bundle(tiny_bundle: Path) -> None:
    stages: list[str] = []
    bundle = wide(tiny_bundle)
    scores = evaluate(bundle, 6, threads=1, progress=lambda stage, done, total: stages.append(stage))
    assert scores.metrics["text_to_tile_recall_at_10"].value == 1.0
    assert 0 <= scores.metrics["photo_to_tile_recall_at_1"].value <= 1
    assert {"gps_within_750_km", "gps_answered", "gps_guess_median_km"} <= set(scores.metrics)
    assert {"rerank_text_recall_at_1", "rerank_fused_photo_recall_at_1"} <= set(scores.metrics)
    assert {"draw places", "embed", "generate", "re-rank by text"} <= set(stages)
    assert scores.to_dict()["places"] == 6
    again = evaluate(bundle, 6, ["retrieval"], threads=1)
    assert all(m == Metric(0.0, 0.0, 0.0) for m in difference(again, scores).values())


def test_a_model_that_never_answers_scores_zero(tiny_bundle: Path) -> None:
    """Random weights write no `<answer>`: a miss at every threshold, never a distance to 0,0."""
    run = locate_scenes(Generator(Model.open(tiny_bundle, threads=1)), planet_scenes(3))
    assert np.isinf(run.distances).all()
    assert run.distinct == 0
    assert plain(Metric(float("inf"), 1.0, float("inf"))) == {"value": None, "low": 1.0, "high": None}


def test_unknown_task(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="unknown task 'speed'"):
        evaluate(tiny_bundle, 2, ["speed"])
