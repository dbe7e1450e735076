"""The cache of graphs meant for TensorRT: the same decoder in both dialects, the same answers."""

import numpy as np
import pytest

from edgegeo.bundle import TrunkSpec
from edgegeo.runtime import open_session
from edgegeo.runtime.growing import GrowingCache
from edgegeo.runtime.trunk import Trunk, TrunkInput

torch = pytest.importorskip("torch")
SPEC = TrunkSpec(layers=2, kv_heads=2, head_dim=16, hidden=64, vocab=50, max_positions=64)


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trunk]:
    from transformers import LlamaConfig, LlamaModel

    from edgegeo.export.linear import Storage
    from edgegeo.export.trunk import build_trunk

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    text, folder = LlamaModel(config).eval(), tmp_path_factory.mktemp("trunks")
    found = {}
    for dialect in ("ort", "trt"):
        build_trunk(text, Storage(), dialect).save(folder / f"{dialect}.onnx")
        found[dialect] = Trunk(open_session(folder / f"{dialect}.onnx", 1), SPEC, dialect)
    return found


def rows(batch: int, length: int, seed: int = 0) -> TrunkInput:
    embeds = np.random.default_rng(seed).normal(size=(batch, length, 64)).astype(np.float32)
    return TrunkInput(embeds, np.full(batch, length, np.int64))


def every(batch: int, length: int) -> np.ndarray:
    return np.tile(np.arange(length), (batch, 1))


def test_the_dialect_chooses_the_cache(trunks: dict[str, Trunk]) -> None:
    assert isinstance(trunks["trt"].cache(1, 8), GrowingCache)
    assert not isinstance(trunks["ort"].cache(1, 8), GrowingCache)


@pytest.mark.parametrize("batch", [1, 3])
def test_extend_and_steps_agree_with_the_cache_in_place(trunks: dict[str, Trunk], batch: int) -> None:
    states = {}
    for dialect, trunk in trunks.items():
        cache = trunk.cache(batch, 12)
        found = [cache.extend(rows(batch, 5), every(batch, 5))]
        for seed in range(3):
            cache.step_embeds[:] = rows(batch, 1, seed).embeds
            found.append(cache.step().copy())
        assert cache.length == 8
        states[dialect] = np.concatenate(found, axis=1)
    np.testing.assert_allclose(states["trt"], states["ort"], atol=1e-5)


def test_suffixes_after_a_shared_prefix(trunks: dict[str, Trunk]) -> None:
    prefix, suffixes = rows(1, 6), [rows(1, 3, seed) for seed in (1, 2)]
    found = {}
    for dialect, trunk in trunks.items():
        cache = trunk.cache(1, 9)
        cache.extend(prefix, np.array([[5]]))
        start = cache.mark()
        seen = []
        for suffix in suffixes:
            cache.rewind(start)
            seen.append(cache.extend(suffix, np.array([[2]])))
        found[dialect] = np.concatenate(seen)
    np.testing.assert_allclose(found["trt"], found["ort"], atol=1e-5)
    assert np.abs(found["ort"][0] - found["ort"][1]).max() > 1e-3
