"""An untrained checkpoint folder: tokenizer, configuration and processor files in Hugging Face layout."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.models.families.smolvlm import smolvlm_marks
from edgegeo.train.settings import Shape

PAD, START, END, IMAGE, FAKE, GLOBAL = (
    "<pad>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
)
CONTROL = (PAD, START, END, IMAGE, FAKE, GLOBAL, "<video>")
ANSWER_TAGS = ("<answer>", "</answer>")
# Turns end with the control token and have no role names: every token costs time on a small device.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "<end_of_utterance>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>{% endfor %}"
)
PROMPTS = {
    "embed_text": "{text}<end_of_utterance>",
    "embed_image": "{image}<end_of_utterance>",
    "rerank": "{image|text}<end_of_utterance>{image}<end_of_utterance>same place?<end_of_utterance>",
    "generate": "{image}<end_of_utterance>where?<end_of_utterance>",
}
YES, NO = "yes", "no"


def train_tokenizer(texts: Iterable[str], vocab: int) -> Any:
    """Byte-level BPE with one token per digit; returns tokenizers.Tokenizer. Deterministic in its texts."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(ANSWER_TAGS),
        special_tokens=list(CONTROL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Tags are one token each, yet ordinary text: decoding keeps them and parsing needs them.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ANSWER_TAGS])
    return tokenizer


def image_spec(shape: Shape, tokenizer: Any = None) -> ImageSpec:
    """Preprocessing of a model made from nothing: SmolVLM's, at its size, without tile splitting.

    Without a tokenizer it has no marks: enough to draw pictures.
    """
    return ImageSpec(
        kind="smolvlm",
        size=shape.image_size,
        longest_edge=shape.image_size,
        resample=1,
        rescale=1 / 255,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        tokens=(shape.image_size // shape.patch_size // shape.shuffle) ** 2,
        marks={} if tokenizer is None else smolvlm_marks(tokenizer),
    )


def new_model(shape: Shape, tokenizer: Any) -> Any:
    """A SmolVLMForConditionalGeneration with random weights (torch's generator), float32."""
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    token = tokenizer.token_to_id
    ends = {"pad_token_id": token(PAD), "bos_token_id": token(START), "eos_token_id": token(END)}
    heads = shape.hidden // 32
    config = SmolVLMConfig(
        vision_config={
            "hidden_size": shape.hidden,
            "intermediate_size": 4 * shape.hidden,
            "num_hidden_layers": shape.vision_layers,
            "num_attention_heads": heads,
            "image_size": shape.image_size,
            "patch_size": shape.patch_size,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": shape.hidden,
            "intermediate_size": shape.ffn,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": 32,
            "vocab_size": shape.vocab,
            "max_position_embeddings": shape.max_positions,
            "tie_word_embeddings": True,
            **ends,
        },
        scale_factor=shape.shuffle,
        image_token_id=token(IMAGE),
        tie_word_embeddings=True,
        **ends,
    )
    return SmolVLMForConditionalGeneration(config)


def save_checkpoint(folder: Path, model: Any, tokenizer: Any, shape: Shape, planet_seed: int) -> None:
    """Write a whole checkpoint folder, weights in float16; adapters that lie in it already stay."""
    import torch
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        chat_template=None,
        additional_special_tokens=[FAKE, IMAGE, GLOBAL],
        model_max_length=shape.max_positions,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    spec = image_spec(shape)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_image_splitting": False,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(spec.mean),
            "image_std": list(spec.std),
            "image_processor_type": "SmolVLMImageProcessor",
            "max_image_size": {"longest_edge": spec.size},
            "processor_class": "SmolVLMProcessor",
            "resample": spec.resample,
            "rescale_factor": spec.rescale,
            "size": {"longest_edge": spec.longest_edge},
        },
    )
    _write_json(folder / "processor_config.json", {"image_seq_len": spec.tokens, "processor_class": "SmolVLMProcessor"})
    _write_json(
        folder / "edgegeo_model.json",
        {
            "prompts": PROMPTS,
            "yes": [YES],
            "no": [NO],
            "max_new_tokens": 24,
            "answer": {"form": "fixed", "decimals": 1},
            "planet_seed": planet_seed,
        },
    )
    half = type(model)(model.config).to(torch.float16)
    half.load_state_dict({name: value.to(torch.float16) for name, value in model.state_dict().items()})
    ends = {"eos_token_id": tokenizer.token_to_id(END), "pad_token_id": tokenizer.token_to_id(PAD)}
    half.generation_config = GenerationConfig(bos_token_id=tokenizer.token_to_id(START), **ends)
    half.save_pretrained(folder)


def _write_json(file: Path, data: dict[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
