"""Going on in a cache: several tokens at once, copies of a row, rows that change places; every kind of decoder."""

import numpy as np
import pytest

pytest.importorskip("torch")

from tiny_decoders import HIDDEN, KINDS, Runner, make_decoder

from edgegeo.bundle import TrunkSpec
from edgegeo.export.linear import Storage
from edgegeo.export.trunk import build_trunk
from edgegeo.runtime.growing import GrowingCache
from edgegeo.runtime.trunk import KVCache, Trunk, TrunkInput, continuation

PROMPT, MORE = 6, 4


@pytest.fixture(scope="module", params=[*((kind, "ort") for kind in KINDS), ("qwen2_5_vl", "trt"), ("llama", "trt")])
def trunk(request: pytest.FixtureRequest) -> Trunk:
    kind, dialect = request.param
    runner = Runner(build_trunk(make_decoder(kind), Storage(), dialect))
    spec = TrunkSpec(
        len(runner.keys) // 2, runner.kv_heads, runner.head_dim, HIDDEN, 96, 160,
        rope="mrope" if "position_ids" in runner.names else "plain", blocks="image_blocks" in runner.names,
    )  # fmt: skip
    return Trunk(runner.session, spec, dialect)


def embeds(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, count, HIDDEN)).astype(np.float32)


def picture(trunk: Trunk) -> TrunkInput:
    """A prompt with a picture of 2 x 2 tokens, where the decoder tells pictures from text."""
    fed = continuation(embeds(PROMPT), trunk.spec)
    if fed.rope is not None:
        rope = np.array([[[0, 1, 1, 1, 1, 3]], [[0, 1, 1, 2, 2, 3]], [[0, 1, 2, 1, 2, 3]]])
        return TrunkInput(fed.embeds, fed.lengths, rope, np.array([4]))
    blocks = np.array([[0, 1, 1, 1, 1, 0]]) if fed.blocks is not None else None
    return TrunkInput(fed.embeds, fed.lengths, None, None, blocks)


def prompted(trunk: Trunk) -> KVCache | GrowingCache:
    cache = trunk.cache(1, 20)
    cache.extend(picture(trunk), np.array([[PROMPT - 1]]))
    return cache


def stepped(cache: KVCache | GrowingCache, rows: np.ndarray) -> np.ndarray:
    """Hidden states (S, B, H) of rows (B, S, H) fed one by one."""
    out = []
    for at in range(rows.shape[1]):
        cache.step_embeds[:] = rows[:, at : at + 1]
        out.append(cache.step()[:, 0].copy())
    return np.stack(out)


def test_several_tokens_at_once(trunk: Trunk) -> None:
    rows = embeds(MORE, 1)
    wanted = stepped(prompted(trunk), rows)[:, 0]
    cache = prompted(trunk)
    mark = cache.mark()
    np.testing.assert_allclose(cache.append(rows)[0, 0], wanted[-1], atol=1e-5)
    cache.rewind(mark)
    np.testing.assert_allclose(cache.append(rows, rows.shape[1])[0], wanted, atol=1e-5)
    cache.rewind(cache.mark().before(MORE - 1))
    np.testing.assert_allclose(cache.append(rows[:, 1:], 2)[0], wanted[-2:], atol=1e-5)
    cache.rewind(mark)
    cache.append(rows[:, :3])
    np.testing.assert_allclose(cache.append(rows[:, 3:])[0, 0], wanted[-1], atol=1e-5)


def test_copies_of_a_row_that_change_places(trunk: Trunk) -> None:
    ways = np.concatenate([embeds(MORE, seed) for seed in (1, 2, 3)])
    alone = [stepped(prompted(trunk), ways[row : row + 1])[:, 0] for row in range(3)]
    first = prompted(trunk)
    wide = first.expand(3)
    half = stepped(wide, ways[:, :2])
    for row in range(3):
        np.testing.assert_allclose(half[:, row], alone[row][:2], atol=1e-5)
    order = np.array([2, 2, 0])
    wide.reorder(order, PROMPT)
    rest = stepped(wide, ways[order, 2:])
    for place, row in enumerate(order):
        np.testing.assert_allclose(rest[:, place], alone[row][2:], atol=1e-5)
    # The row they came from stays what it was.
    np.testing.assert_allclose(stepped(first, ways[1:2])[:, 0], alone[1], atol=1e-5)
