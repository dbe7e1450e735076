"""InternVL from checkpoint folder to runtime, against transformers' model called with the processor's own output."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_internvl import make_model, make_processor, save_checkpoint

from edgegeo.bundle import open_bundle
from edgegeo.export import export
from edgegeo.models.adapters import hushed_peft
from edgegeo.models.checkpoint import Checkpoint, load_checkpoint
from edgegeo.models.prompts import word_ids
from edgegeo.recipe import Recipe, TokenBudget, preset
from edgegeo.runtime import Decoding, Embedder, Generator, Model, Reranker

QUESTION = "Do these show the same place? Answer Yes or No."
WHERE = "Where was this photo taken? Answer as <answer>latitude, longitude</answer>."
FREE = Decoding(grammar=False, max_new_tokens=64)
TEXTS = ["a green field beside a river", "houses with red roofs", "No"]
PAPER_TARGETS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "k_proj", "q_proj", "out_proj", "v_proj"]
"""Names of NGCG-MLLM's adapters: as suffixes they fit the vision tower too."""


@dataclass(frozen=True)
class Case:
    """A bundle beside what it was made from."""

    checkpoint: Checkpoint
    processor: Any
    model: Model

    @torch.no_grad()
    def states(self, text: str, images: Sequence[Image.Image] = (), model: Any = None) -> Any:
        """Last hidden states (S, hidden) of a prompt as the processor makes it."""
        made = self.processor(text=text, images=list(images) or None, return_tensors="pt")
        return (model or self.checkpoint.model).model(**made, use_cache=False).last_hidden_state[0]

    def chat(self, *content: str) -> str:
        """A question in the words of the chat template; "" is a picture."""
        parts = [{"type": "text", "text": text} if text else {"type": "image"} for text in content]
        text: str = self.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        return text


def recipe_for(precision: str, tiles: int) -> Recipe:
    return replace(preset(precision), image=TokenBudget(max_tiles=tiles), calibration_samples=2)


def case_of(folder: Path, precision: str, tiles: int, out: Path, adapters: dict[str, Path] | None = None) -> Case:
    recipe = recipe_for(precision, tiles)
    export(folder, recipe, out, adapters=adapters, places=0)
    checkpoint = load_checkpoint(folder, recipe.image)
    return Case(checkpoint, make_processor(folder, tiles), Model(open_bundle(out), threads=1))


@pytest.fixture(scope="module", params=[("llama", 4), ("qwen2", 1), ("qwen3", 4)], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    text, tiles = request.param
    home = tmp_path_factory.mktemp("internvl")
    return case_of(save_checkpoint(make_model(text), home / text), "fp32", tiles, home / "bundle")


def pictures() -> list[Image.Image]:
    """Three shapes: 2 x 1, nearly square and tall."""
    rng = np.random.default_rng(9)
    coarse = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(3)]
    return [Image.fromarray(c).resize(size) for c, size in zip(coarse, [(90, 44), (61, 64), (30, 99)], strict=True)]


def cosines(got: Any, wanted: Any) -> Any:
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_pictures_embed_as_in_transformers(case: Case) -> None:
    wanted = [case.states("<IMG_CONTEXT>", [image])[-1].numpy() for image in pictures()]
    got = Embedder(case.model).images(pictures())
    assert cosines(got, wanted).min() > 0.9999
    assert cosines(got[0], got[1]) < 0.999  # pictures are told apart


def test_texts_embed_as_in_transformers(case: Case) -> None:
    wanted = [case.states(text)[-1].numpy() for text in TEXTS]
    assert cosines(Embedder(case.model).texts(TEXTS), wanted).min() > 0.9999


def margin_faults(case: Case, model: Any = None) -> Any:
    """How far the margins of two pictures in one prompt are off, by candidate."""
    settings, tokenizer, head = case.checkpoint.settings, case.checkpoint.tokenizer, case.checkpoint.model.lm_head
    yes, no = (list(word_ids(words, tokenizer)) for words in (settings.yes, settings.no))
    query, *candidates = pictures()
    wanted = []
    for candidate in candidates:
        with torch.no_grad():
            logits = head(case.states(case.chat("", "", QUESTION), [query, candidate], model)[-1])
        wanted.append(float(torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0)))
    return np.abs(Reranker(case.model).margins(query, candidates) - wanted)


def test_margins_of_two_pictures_in_one_prompt(case: Case) -> None:
    assert margin_faults(case).max() < 1e-3


def test_margins_of_a_text_and_a_picture(case: Case) -> None:
    settings, tokenizer, head = case.checkpoint.settings, case.checkpoint.tokenizer, case.checkpoint.model.lm_head
    yes, no = (list(word_ids(words, tokenizer)) for words in (settings.yes, settings.no))
    candidate = pictures()[2]
    with torch.no_grad():
        logits = head(case.states(case.chat(f"{TEXTS[0]}\n", "", QUESTION), [candidate])[-1])
    wanted = torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0)
    assert abs(float(wanted) - Reranker(case.model).margins(TEXTS[0], [candidate])[0]) < 1e-3


def test_the_same_64_tokens_are_written(case: Case) -> None:
    """One batch of pictures with unequal numbers of tiles, each against its own run of transformers."""
    together = Generator(case.model).answers(pictures(), decoding=FREE)
    for image, answer in zip(pictures(), together, strict=True):
        made = case.processor(text=case.chat("", WHERE), images=[image], return_tensors="pt")
        with torch.no_grad():
            written = case.checkpoint.model.generate(**made, max_new_tokens=64, do_sample=False)
        wanted = written[0, made["input_ids"].shape[1] :].tolist()
        assert list(answer.tokens) == [token for token in wanted if token not in case.checkpoint.stop_ids]


def test_int8_stays_close(tmp_path: Path) -> None:
    case = case_of(save_checkpoint(make_model("qwen3"), tmp_path / "tiny"), "int8", 1, tmp_path / "bundle")
    wanted = [case.states("<IMG_CONTEXT>", [image])[-1].numpy() for image in pictures()]
    assert cosines(Embedder(case.model).images(pictures()), wanted).min() > 0.98


def adapter_of(folder: Path, out: Path, dora: bool) -> Path:
    """An adapter as plain PEFT saves it, with effect: its B matrices are not zero."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=32, target_modules=PAPER_TARGETS, use_dora=dora, init_lora_weights="gaussian")
    with hushed_peft(), torch.no_grad():
        adapted = get_peft_model(load_checkpoint(folder).model, config)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn_like(parameter))
        adapted.save_pretrained(out)
    return out


def test_adapters_of_plain_peft(tmp_path: Path) -> None:
    """A DoRA embeds and a LoRA re-ranks as PEFT does with them attached, in vision tower and decoder; one base."""
    from peft import PeftModel

    folder = save_checkpoint(make_model("qwen3"), tmp_path / "tiny")
    adapters = {role: adapter_of(folder, tmp_path / role, role == "embed") for role in ("embed", "rerank")}
    case = case_of(folder, "fp32", 1, tmp_path / "bundle", adapters)
    with hushed_peft():
        embed, rerank = (PeftModel.from_pretrained(load_checkpoint(folder).model, str(f)) for f in adapters.values())
    assert any("vision_tower" in name for name, _ in embed.named_parameters() if "lora_magnitude_vector" in name)
    attached = embed.eval().base_model.model
    base = [case.states("<IMG_CONTEXT>", [image])[-1].numpy() for image in pictures()]
    wanted = [case.states("<IMG_CONTEXT>", [image], attached)[-1].numpy() for image in pictures()]
    assert cosines(base, wanted).max() < 0.99
    assert cosines(Embedder(case.model).images(pictures()), wanted).min() > 0.9999
    words = [case.states(text, (), attached)[-1].numpy() for text in TEXTS]
    assert cosines(Embedder(case.model).texts(TEXTS), words).min() > 0.9999
    assert margin_faults(case, rerank.eval().base_model.model).max() < 1e-3
    assert {name for name, part in case.model.bundle.manifest.components.items() if part.kind != "head"} == {
        "vision", "vision_embed", "vision_rerank", "trunk", "trunk_embed", "trunk_rerank"
    }  # fmt: skip
