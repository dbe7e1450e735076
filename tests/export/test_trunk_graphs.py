"""Trunk graphs of every decoder kind in both dialects against transformers (eager attention, float32)."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from tiny_decoders import HIDDEN, KINDS, VOCABULARY, Runner, make_decoder, torch_hidden

from edgegeo.export.linear import Storage
from edgegeo.export.trunk import build_trunk

EXACT = 2e-5
DIALECTS = ("ort", "trt")
EVERY = [(kind, dialect) for kind in KINDS for dialect in DIALECTS]
every = pytest.mark.parametrize(("kind", "dialect"), EVERY)


def noise(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@cache
def decoder(kind: str) -> Any:
    return make_decoder(kind)


@cache
def trunk(kind: str, dialect: str) -> Runner:
    return Runner(build_trunk(decoder(kind), Storage(), dialect))


@every
def test_padded_batch(kind: str, dialect: str) -> None:
    """Rows of several lengths, longer than Gemma's window; only valid positions are asked for."""
    lengths = (21, 13, 2)
    embeds = noise(3, 21, HIDDEN)
    mask = (np.arange(21) < np.array(lengths)[:, None]).astype(np.int64)
    positions = np.array([[20, 0, 9], [12, 11, 1], [1, 0, 1]], np.int64)
    got, _ = trunk(kind, dialect).run(embeds, mask, positions)
    expected = torch_hidden(decoder(kind), embeds, mask)
    np.testing.assert_allclose(got, np.take_along_axis(expected, positions[..., None], axis=1), atol=EXACT)


@every
def test_continues_from_its_cache(kind: str, dialect: str) -> None:
    """Several positions, several more after them, then single ones equal one pass over all."""
    embeds = noise(1, 30, HIDDEN)
    expected = torch_hidden(decoder(kind), embeds)
    runner, past, got, done = trunk(kind, dialect), None, [], 0
    for count in (5, 14, 3, 1, 6, 1):
        hidden, past = runner.run(embeds[:, done : done + count], np.ones((1, done + count), np.int64), past=past)
        got.append(hidden)
        done += count
    np.testing.assert_allclose(np.concatenate(got, axis=1), expected, atol=EXACT)


@every
def test_several_rows_go_on_one_by_one(kind: str, dialect: str) -> None:
    embeds = noise(3, 14, HIDDEN)
    runner = trunk(kind, dialect)
    hidden, past = runner.run(embeds[:, :12], np.ones((3, 12), np.int64))
    got = [hidden]
    for at in (12, 13):
        hidden, past = runner.run(embeds[:, at : at + 1], np.ones((3, at + 1), np.int64), past=past)
        got.append(hidden)
    np.testing.assert_allclose(np.concatenate(got, axis=1), torch_hidden(decoder(kind), embeds), atol=EXACT)


@every
def test_64_greedy_steps_give_the_same_tokens(kind: str, dialect: str) -> None:
    """Tokens and every step's hidden states, with the embedding module's own scale and a tied head."""
    import torch
    from transformers import DynamicCache

    model, runner = decoder(kind), trunk(kind, dialect)
    with torch.no_grad():
        table = model.embed_tokens(torch.arange(VOCABULARY)).numpy()
    head = noise(HIDDEN, VOCABULARY, seed=8)
    ids, past, steps = [5, 17, 80, 33, 4], None, []
    theirs, cache = list(ids), DynamicCache(config=model.config)
    for step in range(64):
        new = ids if step == 0 else ids[-1:]
        hidden, past = runner.run(table[new][None], np.ones((1, len(ids)), np.int64), past=past)
        ids.append(int((hidden[0, -1] @ head).argmax()))
        with torch.no_grad():
            out = model(torch.tensor([theirs if step == 0 else theirs[-1:]]), past_key_values=cache, use_cache=True)
        theirs.append(int((out.last_hidden_state[0, -1].numpy() @ head).argmax()))
        steps.append(np.abs(out.last_hidden_state[0, -1].numpy() - hidden[0, -1]).max())
    assert ids == theirs
    assert len(set(ids[5:])) > 8
    assert max(steps) < EXACT


@pytest.mark.parametrize("kind", KINDS)
def test_cache_bound_in_place(kind: str) -> None:
    """One buffer as past and present: only new rows are written, and the results are those of one pass."""
    import onnxruntime as ort

    runner = trunk(kind, "ort")
    embeds = noise(1, 24, HIDDEN)
    binding = runner.session.io_binding()
    buffers = {n: np.full((1, runner.kv_heads, 40, runner.head_dim), 7.0, np.float32) for n in runner.keys}
    values = {n: ort.OrtValue.ortvalue_from_numpy(b) for n, b in buffers.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
    got, done = [], 0
    for count in (10, 7, 1, 1, 5):
        mask, positions = np.ones((1, done + count), np.int64), np.arange(count)[None]
        feeds = {"inputs_embeds": embeds[:, done : done + count], "attention_mask": mask, "positions": positions}
        if kind == "qwen2_5_vl":
            feeds["position_ids"] = np.tile(np.arange(done, done + count), (3, 1, 1))
        if kind == "gemma3":
            # The second piece holds a picture, so that the branch reads a buffer longer than the sequence.
            feeds["image_blocks"] = np.array([[0, 1, 1, 1, 1, 0, 0]]) if count == 7 else np.zeros((1, count), np.int64)
        for name, value in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        out = np.empty((1, count, HIDDEN), np.float32)
        binding.bind_output("hidden_states", "cpu", 0, np.float32, out.shape, out.ctypes.data)
        runner.session.run_with_iobinding(binding)
        got.append(out)
        done += count
    seen: Any = None
    if kind == "gemma3":
        from test_trunk_masks import gemma_masks

        blocks = np.zeros((1, 24), np.int64)
        blocks[0, 11:15] = 1
        seen = gemma_masks(blocks, np.ones((1, 24), np.int64))
    np.testing.assert_allclose(np.concatenate(got, axis=1), torch_hidden(decoder(kind), embeds, seen), atol=EXACT)
    assert (values["past_key_values.0.key"].numpy()[:, :, 24:] == 7.0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_dialects_agree_on_the_cache(kind: str) -> None:
    embeds, mask = noise(2, 11, HIDDEN), np.ones((2, 11), np.int64)
    caches = [trunk(kind, dialect).run(embeds, mask)[1] for dialect in DIALECTS]
    for name, value in caches[0].items():
        np.testing.assert_allclose(value, caches[1][name], atol=EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_trt_keeps_to_standard_operators(kind: str) -> None:
    graph = build_trunk(decoder(kind), Storage(), "trt").model()
    assert [o.domain for o in graph.opset_import] == [""]
    assert graph.opset_import[0].version <= 20
    assert {n.domain for n in graph.graph.node} == {""}


def test_llama_nodes_do_not_grow() -> None:
    """12 nodes a layer, 10 before the layers, 1 after them and 2 that gather: what one pass over the weights needs."""
    nodes = build_trunk(decoder("llama"), Storage(), "ort").model().graph.node
    assert len(nodes) == 10 + 12 * 3 + 1 + 2


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_different_lengths_go_on(kind: str) -> None:
    """`ort` only: after a padded prompt each row's next token takes the place of its first padding."""
    lengths, embeds = np.array([12, 7]), noise(2, 12, HIDDEN)
    prompt = (np.arange(12) < lengths[:, None]).astype(np.int64)
    runner = trunk(kind, "ort")
    _, past = runner.run(embeds, prompt)
    new = noise(2, 1, HIDDEN, seed=9)
    mask = (np.arange(13) < lengths[:, None] + 1).astype(np.int64)
    more = {"position_ids": np.tile(lengths[:, None], (3, 1, 1))} if kind == "qwen2_5_vl" else {}
    got, _ = runner.run(new, mask, past=past, **more)
    for row, length in enumerate(lengths):
        whole = np.concatenate([embeds[row : row + 1, :length], new[row : row + 1]], axis=1)
        np.testing.assert_allclose(got[row, 0], torch_hidden(decoder(kind), whole)[0, -1], atol=EXACT)
