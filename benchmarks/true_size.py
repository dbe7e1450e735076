"""SmolVLM-256M's true size with random weights: speed does not depend on what the weights say.

Sizes as published with HuggingFaceTB/SmolVLM-256M-Instruct: SigLIP-B/16 at 512 px, 30 decoder layers of width 576.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from contest import REFERENCE, Contest, Job

from edgegeo.bundle import TrunkSpec
from edgegeo.export.components import Part, write
from edgegeo.models.smolvlm import image_features
from edgegeo.recipe import preset
from edgegeo.runtime.sessions import open_session
from edgegeo.runtime.trunk import Trunk

VISION: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "image_size": 512, "patch_size": 16}  # fmt: skip
TEXT: dict[str, Any] = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49280,
        "max_position_embeddings": 8192, "rope_theta": 100000, "pad_token_id": 2, "bos_token_id": 1,
        "eos_token_id": 49279}  # fmt: skip


def random_model(seed: int = 0) -> Any:
    """SmolVLMForConditionalGeneration, float32, in evaluation mode."""
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    torch.manual_seed(seed)
    image_token = TEXT["vocab_size"] - 90
    config = SmolVLMConfig(vision_config=VISION, text_config=TEXT, scale_factor=4, image_token_id=image_token,
                           tie_word_embeddings=True)  # fmt: skip
    return SmolVLMForConditionalGeneration(config).eval()


def compare(contest: Contest, precisions: list[str], folder: Path, threads: int | None, repeats: int) -> None:
    """Vision tower, embedding-sized prefills, and an answer's prefill and decoding, at true size."""
    model = random_model()
    names = ("num_hidden_layers", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size")
    spec = TrunkSpec(*(TEXT[name] for name in names), TEXT["max_position_embeddings"])
    sessions = {precision: _sessions(model, precision, folder, threads) for precision in precisions}
    rng = np.random.default_rng(0)
    side = VISION["image_size"]
    pixels = rng.normal(size=(1, 3, side, side)).astype(np.float32)
    jobs = {REFERENCE: lambda: _torch_vision(model, pixels)}
    for name, found in sessions.items():
        jobs[f"edgegeo {name}"] = lambda s=found["vision"]: s.run(None, {"pixel_values": pixels})[0]
    contest.run(Job(f"vision tower, one {side} px picture", jobs, repeats))
    for title, batch, length in (
        ("decoder, 32 tokens", 1, 32),
        ("decoder, 32 x 32 tokens", 32, 32),
        ("decoder, 74 tokens", 1, 74),
    ):
        embeds = _embeds(model, rng, batch, length)
        jobs = {REFERENCE: lambda e=embeds: _torch_prefill(model, e)}
        for name, found in sessions.items():
            jobs[f"edgegeo {name}"] = lambda t=Trunk(found["trunk"], spec), e=embeds: _prefill(t, e)
        contest.run(Job(title, jobs, max(3, repeats // (4 if batch > 1 else 1))))
    embeds = _embeds(model, rng, 1, 124 + 24)
    jobs = {REFERENCE: lambda: _torch_decode(model, embeds, 124)}
    for name, found in sessions.items():
        jobs[f"edgegeo {name}"] = lambda f=found, t=Trunk(found["trunk"], spec): _decode(t, f["head"], embeds, 124)
    contest.run(Job("answer: 124 tokens in, 24 out", jobs, max(3, repeats // 4)))


def _sessions(model: Any, precision: str, folder: Path, threads: int | None) -> dict[str, Any]:
    """Write the three graphs through the exporter and open them."""
    place = folder / precision
    (place / "onnx").mkdir(parents=True)
    recipe = preset(precision)
    parts = {kind: write(Part(kind, kind, model), recipe, place) for kind in ("vision", "trunk", "head")}
    return {kind: open_session(place / part.file, threads) for kind, part in parts.items()}


@torch.inference_mode()
def _embeds(model: Any, rng: np.random.Generator, batch: int, length: int) -> Any:
    ids = torch.from_numpy(rng.integers(10, TEXT["vocab_size"] - 100, (batch, length)))
    return model.get_input_embeddings()(ids).numpy()


@torch.inference_mode()
def _torch_vision(model: Any, pixels: Any) -> Any:
    return image_features(model, torch.from_numpy(pixels)).numpy()


@torch.inference_mode()
def _torch_prefill(model: Any, embeds: Any) -> Any:
    return (
        model.model.text_model(inputs_embeds=torch.from_numpy(embeds), use_cache=False).last_hidden_state[:, -1].numpy()
    )


def _prefill(trunk: Trunk, embeds: Any) -> Any:
    batch, length, _ = embeds.shape
    return trunk.hidden(embeds, [length] * batch, np.full((batch, 1), length - 1, np.int64))[:, 0]


@torch.inference_mode()
def _torch_decode(model: Any, embeds: Any, prompt: int) -> Any:
    """Logits of the last step, after a prefill and single steps with given tokens; the head runs at every step."""
    rows = torch.from_numpy(embeds)
    out = model.model.text_model(inputs_embeds=rows[:, :prompt], use_cache=True)
    logits = model.lm_head(out.last_hidden_state[:, -1])
    for at in range(prompt, rows.shape[1]):
        out = model.model.text_model(
            inputs_embeds=rows[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True
        )
        logits = model.lm_head(out.last_hidden_state[:, -1])
    return logits.numpy()


def _decode(trunk: Trunk, head: Any, embeds: Any, prompt: int) -> Any:
    cache = trunk.cache(1, embeds.shape[1])
    hidden = cache.extend(embeds[:, :prompt], np.array([[prompt - 1]]))
    logits = head.run(["logits"], {"hidden_states": hidden})[0]
    for at in range(prompt, embeds.shape[1]):
        cache.step_embeds[:] = embeds[:, at : at + 1]
        logits = head.run(["logits"], {"hidden_states": cache.step()})[0]
    return logits[:, 0]
