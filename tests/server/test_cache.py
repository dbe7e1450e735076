"""Embeddings that are remembered: found by content, bounded, never another bundle's."""

import numpy as np
import pytest

from edgegeo.server.cache import ENTRY_BYTES, EmbeddingCache, content_key
from edgegeo.server.metrics import Metrics

DIM = 64
ENTRY = DIM * 4 + ENTRY_BYTES


def vector(value: float) -> np.ndarray:
    return np.full(DIM, value, np.float32)


def test_the_least_recently_used_goes_first_and_the_bytes_stay_below_the_limit() -> None:
    metrics = Metrics(lambda: 0)
    cache = EmbeddingCache(3 * ENTRY, metrics)
    keys = [content_key("space", str(i)) for i in range(4)]
    for i in range(3):
        cache.put(keys[i], vector(i))
    assert cache.get(keys[0]) is not None
    cache.put(keys[3], vector(3))
    assert cache.get(keys[1]) is None
    for i in (0, 2, 3):
        np.testing.assert_array_equal(cache.get(keys[i]), vector(i))
    assert (len(cache), cache.bytes) == (3, 3 * ENTRY)
    cache.put(keys[3], vector(3))
    assert cache.bytes == 3 * ENTRY
    text = metrics.text()
    assert b'edgegeo_cache_inputs_total{result="hit"} 4.0' in text
    assert b'edgegeo_cache_inputs_total{result="miss"} 1.0' in text
    assert b"edgegeo_cache_bytes %.1f" % (3 * ENTRY) in text


def test_a_row_of_a_batch_does_not_keep_the_batch_and_cannot_be_changed() -> None:
    cache = EmbeddingCache(10 * ENTRY, Metrics(lambda: 0))
    batch = np.ones((16, DIM), np.float32)
    key = content_key("space", b"picture")
    cache.put(key, batch[3])
    batch[3] = 0
    kept = cache.get(key)
    assert kept is not None
    assert kept.base is None
    np.testing.assert_array_equal(kept, vector(1))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 2


def test_space_kind_and_content_all_make_the_key() -> None:
    keys = {
        content_key("space", "a"), content_key("other", "a"), content_key("space", b"a"), content_key("space", "b"),
        content_key("spac", "e text a"),
    }  # fmt: skip
    assert len(keys) == 5


def test_without_bytes_nothing_is_kept_or_counted() -> None:
    metrics = Metrics(lambda: 0)
    cache = EmbeddingCache(0, metrics)
    key = content_key("space", "a")
    cache.put(key, vector(1))
    assert cache.get(key) is None
    assert b'edgegeo_cache_inputs_total{result="miss"} 0.0' in metrics.text()
