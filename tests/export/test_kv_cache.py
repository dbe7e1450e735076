"""KV caches in float16 and int8: what attention computes over them, and where there are none."""

from typing import Any

import numpy as np
import pytest
from tiny_decoders import Runner, make_decoder

from edgegeo.errors import CheckpointError, InputError
from edgegeo.export.linear import Storage
from edgegeo.export.trunk import build_trunk

ROWS = np.random.default_rng(5).normal(size=(1, 24, 64)).astype(np.float32)
READ = 20
"""Positions of the prompt; the others are appended one by one."""


class Seen:
    """Statistics of one half of a layer's cache."""

    def __init__(self, cache: np.ndarray) -> None:
        self.absmax = np.abs(cache).max(axis=(0, 2)).reshape(-1)


def decoded(runner: Runner) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Hidden states of all positions, the last of them one at a time, and the cache."""
    first, past = runner.run(ROWS[:, :READ], np.ones((1, READ), np.int64))
    parts = [first]
    for at in range(READ, ROWS.shape[1]):
        one, past = runner.run(ROWS[:, at : at + 1], np.ones((1, at + 1), np.int64), None, past)
        parts.append(one)
    return np.concatenate(parts, axis=1), past


def least_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min())


@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen2_5_vl"])
def test_smaller_caches_give_nearly_the_same(kind: str) -> None:
    decoder = make_decoder(kind)
    exact, cache = decoded(Runner(build_trunk(decoder, Storage())))
    seen: Any = {name.removeprefix("past_key_values."): Seen(value) for name, value in cache.items()}
    seen = {f"layers.{name}": one for name, one in seen.items()}
    for stored, dtype, least in (("fp16", np.float16, 0.9999), ("int8", np.int8, 0.995)):
        got, small = decoded(Runner(build_trunk(decoder, Storage(kv=stored, statistics=seen))))
        assert {value.dtype for value in small.values()} == {np.dtype(dtype)}
        assert least < least_cosine(got, exact) < 1.0, stored


def test_int8_needs_recordings() -> None:
    with pytest.raises(InputError, match="recorded keys and values"):
        build_trunk(make_decoder("llama"), Storage(kv="int8"))


def test_pictures_that_see_themselves_both_ways_are_refused() -> None:
    with pytest.raises(CheckpointError, match="leave kv at fp32"):
        build_trunk(make_decoder("gemma3"), Storage(kv="fp16"))
