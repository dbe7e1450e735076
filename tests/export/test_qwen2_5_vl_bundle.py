"""Qwen2.5-VL from checkpoint folder to runtime, against transformers' own model called with the processor's output."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from tiny_qwen import make_model, make_processor, save_checkpoint

from edgegeo.bundle import open_bundle
from edgegeo.export import export
from edgegeo.models.adapters import hushed_peft
from edgegeo.models.checkpoint import Checkpoint, load_checkpoint
from edgegeo.models.prompts import word_ids
from edgegeo.models.reference import Reference
from edgegeo.recipe import TokenBudget, preset
from edgegeo.runtime import Decoding, Embedder, Generator, Model, Reranker

QUESTION = "Do these show the same place? Answer Yes or No."
WHERE = "Where was this photo taken? Answer as <answer>latitude, longitude</answer>."
FREE = Decoding(grammar=False, max_new_tokens=64)
TEXTS = ["a green field beside a river", "houses with red roofs", "No"]
SHOWN = "<|vision_start|><|image_pad|><|vision_end|>"
MOST = 28 * 28 * 24
"""Largest area of a picture in these tests: 24 image tokens."""
TARGETS = ["qkv", "proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Bare suffixes: they fit the tower as well as the decoder, and "proj" even the convolution over patches."""


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

    def margin(self, text: str, images: Sequence[Image.Image]) -> float:
        """Yes against no, from the whole head."""
        settings, tokenizer = self.checkpoint.settings, self.checkpoint.tokenizer
        yes, no = (list(word_ids(words, tokenizer)) for words in (settings.yes, settings.no))
        with torch.no_grad():
            logits = self.checkpoint.model.lm_head(self.states(text, images)[-1])
        return float(torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0))


def case_of(
    folder: Path, precision: str, out: Path, adapters: dict[str, Path] | None = None, **settings: Any
) -> Case:  # fmt: skip
    recipe = replace(preset(precision), image=TokenBudget(max_pixels=MOST), calibration_samples=2, **settings)
    export(folder, recipe, out, adapters=adapters, places=0)
    return Case(load_checkpoint(folder, recipe.image), make_processor(folder), Model(open_bundle(out), threads=1))


def saved(home: Path, tied: bool = True) -> Path:
    """A checkpoint whose own processor keeps to MOST as well."""
    return save_checkpoint(make_model(tied=tied), home / "tiny", max_pixels=MOST)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    home = tmp_path_factory.mktemp("qwen")
    return case_of(saved(home, request.param), "fp32", home / "bundle")


def pictures() -> list[Image.Image]:
    """Wide, nearly square, tall, and small: four grids, and windows that are not full."""
    rng = np.random.default_rng(9)
    sizes = [(190, 64), (121, 133), (40, 199), (30, 31)]
    coarse = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in sizes]
    return [Image.fromarray(c).resize(size) for c, size in zip(coarse, sizes, strict=True)]


def cosines(got: Any, wanted: Any) -> Any:
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_pictures_embed_as_in_transformers(case: Case) -> None:
    """A right-padded batch of different grids."""
    assert len({picture.grid for picture in case.model.prepare(pictures())}) == 4
    wanted = [case.states(SHOWN, [image])[-1].numpy() for image in pictures()]
    got = Embedder(case.model).images(pictures())
    assert cosines(got, wanted).min() > 0.9999
    assert cosines(got[0], got[1]) < 0.999  # pictures are told apart
    np.testing.assert_allclose(got[1:2], Embedder(case.model).images(pictures()[1:2]), atol=1e-5)


def test_texts_embed_as_in_transformers(case: Case) -> None:
    wanted = [case.states(text)[-1].numpy() for text in TEXTS]
    assert cosines(Embedder(case.model).texts(TEXTS), wanted).min() > 0.9999


def test_margins_of_two_pictures_in_one_prompt(case: Case) -> None:
    query, *candidates = pictures()
    got = Reranker(case.model).margins(query, candidates)
    wanted = [case.margin(case.chat("", "", QUESTION), [query, candidate]) for candidate in candidates]
    assert np.std(wanted) > 0.01
    np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_margins_of_a_text_and_a_picture(case: Case) -> None:
    got = Reranker(case.model).margins(TEXTS[0], pictures())
    wanted = [case.margin(case.chat(TEXTS[0], "", QUESTION), [candidate]) for candidate in pictures()]
    np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_the_same_64_tokens_are_written(case: Case) -> None:
    together = Generator(case.model).answers(pictures(), decoding=FREE)
    for image, answer in zip(pictures(), together, strict=True):
        made = case.processor(text=case.chat("", WHERE), images=[image], return_tensors="pt")
        with torch.no_grad():
            written = case.checkpoint.model.generate(**made, max_new_tokens=64, do_sample=False)
        wanted = written[0, made["input_ids"].shape[1] :].tolist()
        wanted = [token for token in wanted if token not in case.checkpoint.stop_ids]
        assert list(answer.tokens) == wanted


def test_pictures_of_equal_length_and_other_shape_decode_together(case: Case) -> None:
    """12 tokens either way, but 4 x 3 takes 4 rotary positions and 2 x 6 takes 6."""
    shapes = [Image.fromarray(np.asarray(pictures()[0].resize(size))) for size in ((84, 112), (168, 56))]
    assert [picture.grid for picture in case.model.prepare(shapes)] == [(4, 3), (2, 6)]
    one = Generator(case.model)
    assert [a.tokens for a in one.answers(shapes, decoding=FREE)] == [one.answer(s, FREE).tokens for s in shapes]


def test_candidates_are_as_likely_as_transformers_says(case: Case) -> None:
    """Rows that fork behind a shared picture go on from its rotary positions."""
    image, drawn = pictures()[0], Decoding(grammar=False, temperature=1.0, max_new_tokens=20, seed=3)
    whole = [one for one in Generator(case.model).candidates(image, 4, drawn) if len(one.tokens) == 20]
    assert len({one.tokens for one in whole}) > 1
    made = case.processor(text=case.chat("", WHERE), images=[image], return_tensors="pt")
    start = made["input_ids"].shape[1]
    for one in whole:
        # Not by the whole model's own forward: a drawn token can be the placeholder, which it would take for a picture.
        ids = torch.cat([made["input_ids"], torch.tensor([one.tokens])], dim=1)
        with torch.no_grad():
            states = case.checkpoint.family.hidden(case.checkpoint.model, ids, case.model.prepare([image]))
            logits = case.checkpoint.model.lm_head(states[0, start - 1 : -1])
        wanted = torch.log_softmax(logits, -1)[torch.arange(20), torch.tensor(one.tokens)].sum()
        assert abs(float(wanted) - one.logprob) < 1e-2


def test_int8_stays_close(tmp_path: Path) -> None:
    """The tower's ranges are calibrated picture by picture; the trunk's are of each call."""
    case = case_of(saved(tmp_path), "int8", tmp_path / "bundle", vision_activations="static")
    wanted = [case.states(SHOWN, [image])[-1].numpy() for image in pictures()]
    assert cosines(Embedder(case.model).images(pictures()), wanted).min() > 0.98


def test_latent_queries_behind_pictures_of_several_shapes(tmp_path: Path) -> None:
    """SLQ: the rows are appended to every prompt, at the rotary positions that follow its picture."""
    rows = np.random.default_rng(0).normal(0, 1, (3, 64)).astype(np.float32)
    (tmp_path / "slq").mkdir()
    save_file({"queries": rows, "log_scale": np.zeros((), np.float32)}, tmp_path / "slq" / "slq.safetensors")
    case = case_of(saved(tmp_path), "fp32", tmp_path / "bundle", {"embed": tmp_path / "slq"})
    wanted = Reference(case.checkpoint, case.checkpoint.model, rows).embed_images(pictures())
    assert cosines(Embedder(case.model).images(pictures()), wanted).min() > 0.9999


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_adapters_of_plain_peft(tmp_path: Path, dora: bool) -> None:
    """An adapter on tower and decoder embeds as PEFT does with it attached; the other roles stay the base."""
    from peft import LoraConfig, PeftModel, get_peft_model

    folder = saved(tmp_path)
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=32, target_modules=TARGETS, use_dora=dora, init_lora_weights="gaussian")
    with hushed_peft():
        adapted = get_peft_model(load_checkpoint(folder).model, config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(0.05 * torch.randn_like(parameter))
        adapted.save_pretrained(tmp_path / "adapter")
        case = case_of(folder, "fp32", tmp_path / "bundle", {"embed": tmp_path / "adapter"})
        attached = PeftModel.from_pretrained(load_checkpoint(folder).model, str(tmp_path / "adapter")).eval()
    assert any("visual" in name for name, _ in attached.named_parameters() if "lora_B" in name)
    inner = attached.base_model.model
    base = [case.states(SHOWN, [image])[-1].numpy() for image in pictures()]
    wanted = [case.states(SHOWN, [image], inner)[-1].numpy() for image in pictures()]
    assert cosines(Embedder(case.model).images(pictures()), wanted).min() > 0.9999
    assert cosines(base, wanted).max() < 0.99
    words = [case.states(text, (), inner)[-1].numpy() for text in TEXTS]
    assert cosines(Embedder(case.model).texts(TEXTS), words).min() > 0.9999
    got = Reranker(case.model).margins(TEXTS[0], pictures()[:1])[0]
    assert abs(got - case.margin(case.chat(TEXTS[0], "", QUESTION), pictures()[:1])) < 1e-3
