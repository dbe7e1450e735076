"""Batches of alike places: which, how alike, and that they depend on the generator only."""

import numpy as np

from edgegeo.train.alike import GROUP, AlikePlaces
from edgegeo.train.data import Words

KEYS = ("region", "crop", "road", "water", "tree", "roof")


def _words(count: int, rng: np.random.Generator) -> list[Words]:
    facts = rng.integers(0, 4, (count, len(KEYS)))
    return [Words(0.0, 0.0, (), {key: str(v) for key, v in zip(KEYS, row, strict=True)}) for row in facts]


def _likeness(alike: AlikePlaces, index: np.ndarray) -> float:
    """Mean share of facts that a place has in common with the most alike of the others."""
    facts = alike.facts[:, index]
    same = (facts[:, :, None] == facts[:, None]).mean(0)
    np.fill_diagonal(same, 0)
    return float(same.max(1).mean())


def test_a_batch_is_distinct_and_more_alike_than_chance() -> None:
    alike = AlikePlaces(_words(2000, np.random.default_rng(0)))
    batches = [alike.batch(32, np.random.default_rng(seed)) for seed in range(20)]
    assert all(len(set(batch.tolist())) == 32 for batch in batches)
    chance = [np.random.default_rng(seed).choice(2000, 32, replace=False) for seed in range(20)]
    found = np.mean([_likeness(alike, batch) for batch in batches])
    assert found > 0.05 + np.mean([_likeness(alike, batch) for batch in chance])


def test_every_place_has_its_turn() -> None:
    alike = AlikePlaces(_words(500, np.random.default_rng(1)))
    counts = np.bincount(np.concatenate([alike.batch(20, np.random.default_rng(seed)) for seed in range(400)]))
    assert len(counts) == 500
    assert counts.min() > 0


def test_the_generator_decides() -> None:
    alike = AlikePlaces(_words(300, np.random.default_rng(2)))
    one, again, other = (alike.batch(16, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_few_places_or_none_with_facts_are_drawn_by_chance() -> None:
    bare = AlikePlaces([Words(0.0, 0.0, (), {})] * 40)
    few = AlikePlaces(_words(GROUP + 1, np.random.default_rng(3)))
    assert len(set(bare.batch(16, np.random.default_rng(0)).tolist())) == 16
    assert sorted(few.batch(GROUP + 1, np.random.default_rng(0)).tolist()) == list(range(GROUP + 1))
