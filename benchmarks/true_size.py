"""SmolVLM-256M's true size with random weights: speed does not depend on what the weights say.

Sizes as published with HuggingFaceTB/SmolVLM-256M-Instruct: SigLIP-B/16 at 512 px, 30 decoder layers of width 576.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import plain_export
import torch
from contest import REFERENCE, Contest, Job
from plain_export import Plain

from edgegeo.bundle import ImageSpec, TrunkSpec
from edgegeo.export.components import Part, write
from edgegeo.models.families.smolvlm import image_features
from edgegeo.models.family import find_family
from edgegeo.recipe import preset
from edgegeo.runtime.sessions import open_session
from edgegeo.runtime.trunk import Trunk, TrunkInput

VISION: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "image_size": 512, "patch_size": 16}  # fmt: skip
TEXT: dict[str, Any] = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49280,
        "max_position_embeddings": 8192, "rope_theta": 100000, "pad_token_id": 2, "bos_token_id": 1,
        "eos_token_id": 49279}  # fmt: skip
PROMPT, ANSWER = 124, 24
"""Tokens of an answer's prompt with one picture, and of the answer."""


def random_model(seed: int = 0) -> Any:
    """SmolVLMForConditionalGeneration, float32, in evaluation mode."""
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    torch.manual_seed(seed)
    image_token = TEXT["vocab_size"] - 90
    config = SmolVLMConfig(vision_config=VISION, text_config=TEXT, scale_factor=4, image_token_id=image_token,
                           tie_word_embeddings=True)  # fmt: skip
    return SmolVLMForConditionalGeneration(config).eval()


def compare(
    contest: Contest, precisions: list[str], folder: Path, threads: int | None, repeats: int, plain: bool = False
) -> None:
    """Vision tower, embedding-sized prefills, and an answer's prefill and decoding, at true size.

    plain: also what torch.onnx.export and quantize_dynamic make of the same modules.
    """
    model = random_model()
    names = ("num_hidden_layers", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size")
    spec = TrunkSpec(*(TEXT[name] for name in names), TEXT["max_position_embeddings"])
    rivals: dict[str, Any] = {REFERENCE: Eager(model)}
    for precision in precisions:
        start = time.perf_counter()
        found = open_sessions(model, precision, folder, threads)
        rivals[f"edgegeo {precision}"] = Ours(found["vision"], Trunk(found["trunk"], spec), found["head"])
        contest.settings[f"edgegeo {precision} exported and loaded in s"] = round(time.perf_counter() - start, 1)
    if plain:
        rivals |= _plain(contest, model, folder / "plain", threads)
    rng = np.random.default_rng(0)
    side = VISION["image_size"]
    pixels = rng.normal(size=(1, 3, side, side)).astype(np.float32)
    jobs = {name: lambda r=rival: r.vision(pixels) for name, rival in rivals.items()}
    contest.run(Job(f"vision tower, one {side} px picture", jobs, repeats))
    for title, batch, length in (
        ("decoder, 32 tokens", 1, 32),
        ("decoder, 32 x 32 tokens", 32, 32),
        ("decoder, 74 tokens", 1, 74),
    ):
        embeds = _embeds(model, rng, batch, length)
        jobs = {name: lambda r=rival, e=embeds: r.embed(e) for name, rival in rivals.items()}
        contest.run(Job(title, jobs, max(3, repeats // (4 if batch > 1 else 1))))
    embeds = _embeds(model, rng, 1, PROMPT + ANSWER)
    prompt, rest = np.ascontiguousarray(embeds[:, :PROMPT]), np.ascontiguousarray(embeds[:, PROMPT:])
    jobs = {name: lambda r=rival: r.prefill(prompt)[0] for name, rival in rivals.items()}
    contest.run(Job(f"answer: {PROMPT} tokens in", jobs, repeats))
    # Every rival starts each time from the same prefilled cache.
    jobs = {name: lambda r=rival, past=rival.prefill(prompt)[1]: r.decode(rest, past) for name, rival in rivals.items()}
    contest.run(Job(f"answer: {ANSWER} tokens out", jobs, repeats))
    jobs = {name: lambda r=rival: r.decode(rest, r.prefill(prompt)[1]) for name, rival in rivals.items()}
    contest.run(Job(f"answer: {PROMPT} tokens in, {ANSWER} out", jobs, repeats))


def _plain(contest: Contest, model: Any, folder: Path, threads: int | None) -> dict[str, Plain]:
    start = time.perf_counter()
    plain_export.export(model, folder)
    rivals = {"plain export fp32": Plain(folder, "", threads)}
    exported = time.perf_counter()
    plain_export.quantise(folder)
    rivals["plain export int8"] = Plain(folder, "_int8", threads)
    contest.settings["plain export fp32 exported and loaded in s"] = round(exported - start, 1)
    contest.settings["plain export int8 exported and loaded in s"] = round(time.perf_counter() - start, 1)
    return rivals


def open_sessions(model: Any, precision: str, folder: Path, threads: int | None) -> dict[str, Any]:
    """Write the three graphs through the exporter and open them."""
    place = folder / precision
    (place / "onnx").mkdir(parents=True)
    recipe = preset(precision)
    family, image = (
        find_family("smolvlm"),
        ImageSpec("smolvlm", VISION["image_size"], 1, 1 / 255, (0.5,) * 3, (0.5,) * 3, 64),
    )
    parts = {kind: write(Part(kind, kind, model, family, image), recipe, place) for kind in ("vision", "trunk", "head")}
    return {kind: open_session(place / part.file, threads) for kind, part in parts.items()}


@torch.inference_mode()
def _embeds(model: Any, rng: np.random.Generator, batch: int, length: int) -> Any:
    ids = torch.from_numpy(rng.integers(10, TEXT["vocab_size"] - 100, (batch, length)))
    return model.get_input_embeddings()(ids).numpy()


@torch.inference_mode()
def torch_vision(model: Any, pixels: Any) -> Any:
    return image_features(model, torch.from_numpy(pixels)).numpy()


class Eager:
    """transformers in eager mode, called as a person would."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def vision(self, pixels: Any) -> Any:
        return torch_vision(self._model, pixels)

    @torch.inference_mode()
    def embed(self, embeds: Any) -> Any:
        out = self._model.model.text_model(inputs_embeds=torch.from_numpy(embeds), use_cache=False)
        return out.last_hidden_state[:, -1].numpy()

    @torch.inference_mode()
    def prefill(self, embeds: Any) -> tuple[Any, Any]:
        """Logits (B, V) and the cache."""
        out = self._model.model.text_model(inputs_embeds=torch.from_numpy(embeds), use_cache=True)
        return self._model.lm_head(out.last_hidden_state[:, -1]).numpy(), out.past_key_values

    @torch.inference_mode()
    def decode(self, embeds: Any, past: Any) -> Any:
        """Logits of the last step, by single steps with given tokens; the head runs at every step."""
        rows = torch.from_numpy(embeds)
        for at in range(rows.shape[1]):
            out = self._model.model.text_model(inputs_embeds=rows[:, at : at + 1], past_key_values=past, use_cache=True)
            logits = self._model.lm_head(out.last_hidden_state[:, -1])
        past.crop(-rows.shape[1])  # views only: as it came, for the next run
        return logits.numpy()


class Ours:
    """The three graphs of a bundle, through the runtime's own cache."""

    def __init__(self, vision: Any, trunk: Trunk, head: Any) -> None:
        self._vision, self._trunk, self._head = vision, trunk, head

    def vision(self, pixels: Any) -> Any:
        return self._vision.run(None, {"pixel_values": pixels})[0]

    def embed(self, embeds: Any) -> Any:
        batch, length, _ = embeds.shape
        fed = TrunkInput(embeds, np.full(batch, length, np.int64))
        return self._trunk.hidden(fed, np.full((batch, 1), length - 1, np.int64))[:, 0]

    def prefill(self, embeds: Any) -> tuple[Any, Any]:
        """Logits (1, V) and a cache with room for the answer."""
        length = embeds.shape[1]
        cache = self._trunk.cache(1, length + ANSWER)
        hidden = cache.extend(TrunkInput(embeds, np.array([length])), np.array([[length - 1]]))
        return self._logits(hidden), cache

    def decode(self, embeds: Any, past: Any) -> Any:
        """Logits (1, V) of the last step; the cache is as it came afterwards."""
        mark = past.mark()
        for at in range(embeds.shape[1]):
            past.step_embeds[:] = embeds[:, at : at + 1]
            logits = self._logits(past.step())
        past.rewind(mark)
        return logits

    def _logits(self, hidden: Any) -> Any:
        return self._head.run(["logits"], {"hidden_states": hidden})[0][:, 0]
