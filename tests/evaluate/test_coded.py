"""Recall@k of embeddings in fewer bytes."""

import numpy as np
import pytest

from edgegeo.evaluate.coded import coded_hits
from edgegeo.evaluate.retrieval import Embeddings, retrieval_hits
from edgegeo.runtime.codes import truncate


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    """Queries near their tile, texts farther off than photos; the first 16 numbers hold most of it."""
    rng = np.random.default_rng(0)
    spread = np.where(np.arange(64) < 16, 1.0, 0.3)
    tiles = unit(rng.normal(size=(300, 64)) * spread)
    texts, photos = (unit(tiles + off * rng.normal(size=(300, 64)) * spread) for off in (0.25, 0.2))
    return Embeddings(texts, photos, tiles)


def test_int8_keeps_what_signs_lose_and_rescoring_brings_back(embeddings: Embeddings) -> None:
    whole = {name: values.mean() for name, values in retrieval_hits(embeddings).items()}
    found = {name: values.mean() for name, values in coded_hits(embeddings, (16,)).items()}
    for pair in ("text_to_tile", "photo_to_tile"):
        exact = whole[f"{pair}_recall_at_1"]
        assert found[f"int8_{pair}_recall_at_1"] == pytest.approx(exact, abs=0.02)
        assert found[f"binary_{pair}_recall_at_1"] < exact - 0.02
        assert found[f"binary_{pair}_recall_at_1"] < found[f"binary_rescored_{pair}_recall_at_1"] <= exact + 0.02
        assert found[f"binary_{pair}_recall_at_10"] >= found[f"binary_{pair}_recall_at_1"]


def test_cut_embeddings_are_ranked_by_their_first_numbers(embeddings: Embeddings) -> None:
    cut = Embeddings(*(truncate(rows, 16) for rows in (embeddings.texts, embeddings.photos, embeddings.tiles)))
    wanted = retrieval_hits(cut)
    found = coded_hits(embeddings, (16,))
    np.testing.assert_array_equal(found["dims16_text_to_tile_recall_at_1"], wanted["text_to_tile_recall_at_1"])
    assert not any(name.startswith("dims") for name in coded_hits(embeddings))


def test_a_gallery_of_equal_rows_finds_nothing() -> None:
    same = unit(np.ones((50, 8)))
    found = coded_hits(Embeddings(same, same, same))
    assert max(values.max() for values in found.values()) == 0.0
