"""Gemma 3 from checkpoint folder to runtime, against transformers' model called with the processor's whole output."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from tiny_gemma import PROCESSOR, WINDOW, make_model, make_processor, make_tokenizer, save_checkpoint

from edgegeo.bundle import open_bundle
from edgegeo.export import export
from edgegeo.models.adapters import hushed_peft
from edgegeo.models.checkpoint import Checkpoint, load_checkpoint
from edgegeo.models.family import find_family
from edgegeo.models.prompts import word_ids
from edgegeo.recipe import Recipe, TokenBudget, preset
from edgegeo.runtime import Decoding, Embedder, Generator, Model, Reranker
from edgegeo.runtime.verify import golden_outputs

QUESTION = "Do these show the same place? Answer Yes or No."
WHERE = "Where was this photo taken? Answer as <answer>latitude, longitude</answer>."
TEXTS = ["a green field beside a river", "houses with red roofs", "No", "a green field beside a river. " * 4 + "No"]
TARGETS = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "fc1", "out_proj"]
"""Of an adapter on decoder and vision tower."""


@dataclass(frozen=True)
class Case:
    """A bundle beside what it was made from."""

    checkpoint: Checkpoint
    processor: Any
    model: Model
    crops: int

    @torch.no_grad()
    def states(self, text: str, images: Sequence[Image.Image] = (), model: Any = None) -> Any:
        """Last hidden states (S, hidden) of a prompt as the processor makes it, token types and all."""
        return (model or self.checkpoint.model).model(**self.inputs(text, images), use_cache=False).last_hidden_state[0]

    def inputs(self, text: str, images: Sequence[Image.Image]) -> Any:
        if not images:
            return self.processor.tokenizer(text, return_tensors="pt", add_special_tokens="<bos>" not in text)
        settings = {"do_pan_and_scan": self.crops > 1, "pan_and_scan_max_num_crops": self.crops,
                    "pan_and_scan_min_crop_size": 10}  # fmt: skip
        words = {"add_special_tokens": "<bos>" not in text}
        made = self.processor(
            text=text, images=[list(images)], return_tensors="pt", images_kwargs=settings, text_kwargs=words
        )
        assert "token_type_ids" in made
        return made

    def chat(self, *content: str) -> str:
        """A question in the words of the chat template; "" is a picture."""
        parts = [{"type": "text", "text": text} if text else {"type": "image"} for text in content]
        text: str = self.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        return text

    def margin(self, text: str, images: Sequence[Image.Image]) -> float:
        settings, tokenizer = self.checkpoint.settings, self.checkpoint.tokenizer
        yes, no = (list(word_ids(words, tokenizer)) for words in (settings.yes, settings.no))
        with torch.no_grad():
            logits = self.checkpoint.model.lm_head(self.states(text, images)[-1])
        return float(torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0))


def recipe_for(precision: str, crops: int) -> Recipe:
    return replace(preset(precision), image=TokenBudget(max_tiles=crops), calibration_samples=2)


def case_of(folder: Path, precision: str, crops: int, out: Path, adapters: dict[str, Path] | None = None) -> Case:
    recipe = recipe_for(precision, crops)
    export(folder, recipe, out, adapters=adapters, places=0)
    checkpoint = load_checkpoint(folder, recipe.image)
    return Case(checkpoint, make_processor(folder), Model(open_bundle(out), threads=1), crops)


def folder_of(model: Any, folder: Path) -> Path:
    """The checkpoint on disk. Short answers, since the export's own parity check writes them without a cache."""
    save_checkpoint(model, folder)
    small = PROCESSOR | {"pan_and_scan_min_crop_size": 10}
    (folder / "preprocessor_config.json").write_text(json.dumps(small))
    settings = find_family("gemma3").default_settings(make_tokenizer()) | {"max_new_tokens": 24}
    (folder / "edgegeo_model.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module", params=[(1, WINDOW), (3, 10)], ids=["whole", "pan and scan"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Prompts longer than the sliding window; in the second case even one picture is."""
    crops, window = request.param
    home = tmp_path_factory.mktemp("gemma")
    return case_of(folder_of(make_model(sliding_window=window), home / "tiny"), "fp32", crops, home / "bundle")


def pictures() -> list[Image.Image]:
    """Three shapes: 2 x 1, nearly square and tall; the first and the last are cropped by pan and scan."""
    rng = np.random.default_rng(9)
    coarse = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(3)]
    return [Image.fromarray(c).resize(size) for c, size in zip(coarse, [(90, 44), (61, 64), (30, 99)], strict=True)]


def cosines(got: Any, wanted: Any) -> Any:
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_pictures_embed_as_in_transformers(case: Case) -> None:
    """In one batch, whose rows are padded to the picture with the most crops."""
    wanted = [case.states("<start_of_image>", [image])[-1].numpy() for image in pictures()]
    got = Embedder(case.model).images(pictures())
    assert cosines(got, wanted).min() > 0.9999
    assert cosines(got[0], got[1]) < 0.999  # pictures are told apart


def test_texts_embed_as_in_transformers(case: Case) -> None:
    wanted = [case.states(text)[-1].numpy() for text in TEXTS]
    assert case.states(TEXTS[-1]).shape[0] > WINDOW
    assert cosines(Embedder(case.model).texts(TEXTS), wanted).min() > 0.9999


def on_own_lines(prompt: str) -> str:
    """The re-rank prompt's line break before the candidate, where the words of pan and scan begin."""
    before, picture, after = prompt.rpartition("<start_of_image>")
    return f"{before}\n{picture}{after}"


def test_margins_of_two_pictures_in_one_prompt(case: Case) -> None:
    query, *candidates = pictures()
    for one in (query, candidates[0]):
        got = Reranker(case.model).margins(one, candidates)
        for margin, candidate in zip(got, candidates, strict=True):
            assert abs(case.margin(on_own_lines(case.chat("", "", QUESTION)), [one, candidate]) - margin) < 1e-3


def test_margins_of_a_text_and_a_picture(case: Case) -> None:
    got = Reranker(case.model).margins(TEXTS[0], pictures())
    for margin, candidate in zip(got, pictures(), strict=True):
        assert abs(case.margin(on_own_lines(case.chat(TEXTS[0], "", QUESTION)), [candidate]) - margin) < 1e-3


def test_the_same_64_tokens_are_written(case: Case) -> None:
    for image in pictures()[:2]:
        made = case.inputs(case.chat("", WHERE), [image])
        with torch.no_grad():
            written = case.checkpoint.model.generate(**made, max_new_tokens=64, do_sample=False)
        wanted = written[0, made["input_ids"].shape[1] :].tolist()
        got = list(Generator(case.model).answer(image, Decoding(grammar=False, max_new_tokens=64)).tokens)
        assert got == [token for token in wanted if token not in case.checkpoint.stop_ids]
        assert len(got) > 60


def test_golden_vectors_of_any_shape(case: Case) -> None:
    """What a bundle stores of a picture: its pixels, and its words as they stand in the processor's prompt."""
    image = pictures()[0]
    golden = golden_outputs(case.model, np.asarray(image)[None], TEXTS[:1])
    made = case.inputs(case.chat("", WHERE), [image])
    np.testing.assert_array_equal(golden["pixels.0.pixel_values"], made["pixel_values"].numpy())
    soft = case.checkpoint.family.image_token_id(case.checkpoint.config)
    runs = [[soft] * -run if run < 0 else [run] for run in golden["layout.0"].tolist()]
    words = [f"{token}" for run in runs for token in run]
    assert " ".join(words) in " ".join(map(str, made["input_ids"][0].tolist()))


def test_int8_stays_close(tmp_path: Path) -> None:
    case = case_of(folder_of(make_model(), tmp_path / "tiny"), "int8", 1, tmp_path / "bundle")
    wanted = [case.states("<start_of_image>", [image])[-1].numpy() for image in pictures()]
    assert cosines(Embedder(case.model).images(pictures()), wanted).min() > 0.98


def test_latent_queries_stand_behind_the_prompt_unscaled(tmp_path: Path) -> None:
    """SLQ: queries are appended as they are, after scaled words and pictures, and see what came before them."""
    folder = folder_of(make_model(), tmp_path / "tiny")
    queries = np.random.default_rng(0).normal(0, 1, (3, 64)).astype(np.float32)
    (tmp_path / "slq").mkdir()
    save_file({"queries": queries, "log_scale": np.zeros((), np.float32)}, tmp_path / "slq" / "slq.safetensors")
    case = case_of(folder, "fp32", 3, tmp_path / "bundle", {"embed": tmp_path / "slq"})
    inner, wanted = case.checkpoint.model.model, []
    for image in pictures():
        made = case.inputs("<start_of_image>", [image])
        with torch.no_grad():
            embeds = inner.get_input_embeddings()(made["input_ids"])
            shown = made["input_ids"] == case.checkpoint.config.image_token_id
            embeds[shown] = inner.get_image_features(made["pixel_values"]).pooler_output.flatten(0, 1)
            embeds = torch.cat([embeds, torch.from_numpy(queries)[None]], dim=1)
            kinds = torch.nn.functional.pad(made["token_type_ids"], (0, 3))
            states = inner(inputs_embeds=embeds, token_type_ids=kinds, use_cache=False).last_hidden_state[0]
        wanted.append(states[-3:].mean(0).numpy())
    assert cosines(Embedder(case.model).images(pictures()), wanted).min() > 0.9999


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_adapters_of_plain_peft(tmp_path: Path, dora: bool) -> None:
    """An adapter on vision tower and decoder embeds as PEFT does with it attached; the other roles stay the base."""
    from peft import LoraConfig, PeftModel, get_peft_model

    folder = folder_of(make_model(), tmp_path / "tiny")
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=32, target_modules=TARGETS, use_dora=dora, init_lora_weights="gaussian")
    with hushed_peft():
        adapted = get_peft_model(load_checkpoint(folder).model, config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(0.05 * torch.randn_like(parameter))
        adapted.save_pretrained(tmp_path / "adapter")
        case = case_of(folder, "fp32", 1, tmp_path / "bundle", {"embed": tmp_path / "adapter"})
        attached = PeftModel.from_pretrained(load_checkpoint(folder).model, str(tmp_path / "adapter")).eval()
    assert any("vision_tower" in name for name, _ in attached.named_parameters() if "lora_B" in name)
    inner = attached.base_model.model
    base = [case.states("<start_of_image>", [image])[-1].numpy() for image in pictures()]
    wanted = [case.states("<start_of_image>", [image], inner)[-1].numpy() for image in pictures()]
    assert cosines(Embedder(case.model).images(pictures()), wanted).min() > 0.9999
    assert cosines(base, wanted).max() < 0.99
    words = [case.states(text, (), inner)[-1].numpy() for text in TEXTS]
    assert cosines(Embedder(case.model).texts(TEXTS), words).min() > 0.9999
    roles = case.model.bundle.manifest.roles
    assert roles.embed is not None
    assert roles.rerank is not None
    assert (roles.embed.vision, roles.embed.trunk) != (roles.rerank.vision, roles.rerank.trunk)
