from pathlib import Path

import numpy as np
import pytest

from edgegeo.errors import InputError
from edgegeo.runtime.model import Model
from edgegeo.runtime.trunk import Head, Trunk, TrunkInput


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return Model.open(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def trunk(model: Model) -> Trunk:
    return model.trunk("trunk")


def inputs(batch: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, length, 32)).astype(np.float32)


def fed(embeds: np.ndarray, lengths: list[int] | None = None) -> TrunkInput:
    full = [embeds.shape[1]] * len(embeds)
    return TrunkInput(embeds, np.array(lengths or full, np.int64))


def every(batch: int, length: int) -> np.ndarray:
    return np.tile(np.arange(length), (batch, 1))


def test_padding_changes_nothing(trunk: Trunk) -> None:
    embeds, lengths = inputs(3, 9), [9, 4, 1]
    together = trunk.hidden(fed(embeds, lengths), every(3, 9))
    for row, length in enumerate(lengths):
        alone = trunk.hidden(fed(embeds[row : row + 1, :length]), every(1, length))
        np.testing.assert_allclose(together[row, :length], alone[0], atol=1e-5)


def test_asked_positions_only(trunk: Trunk) -> None:
    embeds = inputs(2, 6)
    full = trunk.hidden(fed(embeds), every(2, 6))
    some = trunk.hidden(fed(embeds), np.array([[5, 0], [2, 2]]))
    np.testing.assert_allclose(some, np.stack([full[0, [5, 0]], full[1, [2, 2]]]), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_cache_in_place_equals_one_pass(trunk: Trunk, batch: int) -> None:
    embeds = inputs(batch, 10)
    full = trunk.hidden(fed(embeds), every(batch, 10))
    cache = trunk.cache(batch, 10)
    first = cache.extend(fed(embeds[:, :4]), every(batch, 4))
    np.testing.assert_allclose(first, full[:, :4], atol=1e-5)
    for at in range(4, 10):
        cache.step_embeds[:] = embeds[:, at : at + 1]
        np.testing.assert_allclose(cache.step()[:, 0], full[:, at], atol=1e-5)
    assert cache.length == 10


def test_a_suffix_after_a_shared_prefix(trunk: Trunk) -> None:
    prefix, suffixes = inputs(1, 5), inputs(4, 3, seed=1)
    cache = trunk.cache(1, 8)
    cache.extend(fed(prefix), np.array([[4]]))
    start = cache.mark()
    for suffix in suffixes:
        cache.rewind(start)
        found = cache.extend(fed(suffix[None]), np.array([[2]]))[0, 0]
        whole = np.concatenate([prefix, suffix[None]], axis=1)
        np.testing.assert_allclose(found, trunk.hidden(fed(whole), np.array([[7]]))[0, 0], atol=1e-5)


def test_steps_after_a_second_extend(trunk: Trunk) -> None:
    embeds = inputs(1, 7)
    full = trunk.hidden(fed(embeds), every(1, 7))
    cache = trunk.cache(1, 7)
    cache.extend(fed(embeds[:, :2]), every(1, 2))
    cache.step_embeds[:] = embeds[:, 2:3]
    cache.step()
    cache.extend(fed(embeds[:, 3:6]), every(1, 3))
    cache.step_embeds[:] = embeds[:, 6:]
    np.testing.assert_allclose(cache.step()[0, 0], full[0, 6], atol=1e-5)


def test_no_room(trunk: Trunk) -> None:
    with pytest.raises(InputError, match="257 positions, the model reads up to 256"):
        trunk.cache(1, 257)
    with pytest.raises(InputError, match="shorten"):
        trunk.hidden(fed(inputs(1, 300)), np.array([[0]]))


def test_head_reuses_its_buffer(model: Model) -> None:
    spec = model.bundle.decoder
    head = Head(model.session("head"), 2, spec.hidden, spec.vocab)
    hidden = inputs(2, 1)
    first = head.run(hidden).copy()
    hidden[:] = 0
    assert np.abs(first).max() > 0
    assert np.abs(head.run(hidden)).max() == 0
    other = inputs(2, 1)
    np.testing.assert_array_equal(head.run(other), first)
