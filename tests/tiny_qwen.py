"""A tiny Qwen2.5-VL with random weights, and its checkpoint folder with the files of the hub's repositories.

Patches of 14 px as the real ones; windows of 56 px, so that small pictures have full and partly filled ones.
"""

import json
from pathlib import Path
from typing import Any

VOCABULARY = 400
SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
CORPUS = [
    "Yes No yes no Yes No yes no",
    "Do these show the same place? Answer Yes or No.",
    "You are a helpful assistant.\nuser\nassistant\nsystem\nWhere was this photo taken? <answer>-12.34, 56.78</answer>",
    "a green field beside a river, houses with red roofs",
]
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in "
    "content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}"
    "Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == "
    "'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video "
    "{{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% endif %}"
)
PREPROCESSOR = {
    "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
}  # fmt: skip
VISION = {
    "depth": 3, "hidden_size": 48, "intermediate_size": 52, "num_heads": 3, "out_hidden_size": 64, "window_size": 56,
    "fullatt_block_indexes": [1],
}  # fmt: skip
TEXT = {
    "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 128_000, "rms_norm_eps": 1e-6,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
}  # fmt: skip


def make_model(vision: dict[str, Any] | None = None, tied: bool = True, seed: int = 7) -> Any:
    """Qwen2_5_VLForConditionalGeneration, untrained but not degenerate; `vision` changes the configuration."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    tokens = {f"{kind}_token_id": SPECIALS.index(f"<|{kind}_pad|>") for kind in ("image", "video")}
    tokens |= {f"vision_{end}_token_id": SPECIALS.index(f"<|vision_{end}|>") for end in ("start", "end")}
    config = Qwen2_5_VLConfig(
        vision_config=VISION | (vision or {}), text_config=TEXT, tie_word_embeddings=tied, **tokens
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Zero biases and unit norms would hide a forgotten one.
            noise = torch.randn_like(parameter)
            norm = ("norm" in name or "ln_q" in name) and "weight" in name
            parameter.copy_(1 + 0.2 * noise if norm else 0.15 * noise)
    return model


def make_tokenizer() -> Any:
    """tokenizers.Tokenizer of Qwen's kind (byte-level BPE, NFC), trained on a few sentences."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS * 8, trainer)
    return tokenizer


def save_checkpoint(model: Any, folder: Path, **preprocessor: Any) -> Path:
    """Write the folder as it lies on the hub: config, weights, tokenizer, processor, chat template."""
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(_hub_config(model.config), indent=1))
    make_tokenizer().save(str(folder / "tokenizer.json"))
    tokenizer = {
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "add_bos_token": False, "processor_class": "Qwen2_5_VLProcessor", "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    written = {
        "tokenizer_config.json": tokenizer,
        "preprocessor_config.json": PREPROCESSOR | preprocessor,
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "generation_config.json": {"bos_token_id": 0, "pad_token_id": 0, "eos_token_id": [2, 0], "do_sample": False},
    }
    for name, data in written.items():
        (folder / name).write_text(json.dumps(data, indent=1))
    return folder


def _hub_config(config: Any) -> dict[str, Any]:
    """config.json in the layout of the hub's files, written by transformers 4: the decoder's settings at the top."""
    data = config.to_dict()
    text, vision = data.pop("text_config"), data.pop("vision_config")
    for added in ("layer_types", "model_type", "tie_word_embeddings"):
        text.pop(added, None)
    rope = text.pop("rope_parameters")
    windows = {"sliding_window": 32768, "use_sliding_window": False, "max_window_layers": 70}
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    for added in ("model_type", "rope_parameters"):
        vision.pop(added, None)
    vision |= {"in_chans": 3, "spatial_patch_size": 14, "tokens_per_second": 2}
    return text | windows | data | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling, "vision_config": vision}


def make_processor(folder: Path) -> Any:
    """transformers' Qwen2_5_VLProcessor of such a folder on the Pillow backend."""
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLProcessor

    class PicturesOnly(Qwen2_5_VLProcessor):  # type: ignore[misc]
        """Without its video part, whose class needs torchvision."""

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            known = name == "video_processor"
            return type(argument) if known else super().check_argument_for_proper_class(name, argument)

    images = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return PicturesOnly(
        image_processor=images, tokenizer=AutoTokenizer.from_pretrained(folder), chat_template=CHAT_TEMPLATE
    )  # fmt: skip
