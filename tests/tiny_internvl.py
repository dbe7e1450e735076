"""A tiny InternVL with random weights, and its checkpoint folder with the files of the `-HF` repositories on the hub.

Three text decoders: "qwen2" as in InternVL3 (biases, dynamic rotary scaling, a head of its own), "qwen3" as in
InternVL3.5 (q/k norms, tied head) and "llama" as in InternVL2.5. 32-pixel tiles in 8-pixel patches, so 16 patches and
4 image tokens a tile.
"""

import json
from pathlib import Path
from typing import Any

SIZE, TOKENS, VOCABULARY = 32, 4, 340
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
IMAGE_TOKEN, END = SPECIALS.index("<IMG_CONTEXT>"), SPECIALS.index("<|im_end|>")
CORPUS = [
    "Yes No yes no Yes No yes no",
    "Do these show the same place? Answer Yes or No.",
    "user\nassistant\nsystem\nWhere was this photo taken? <answer>-12.34, 56.78</answer>",
    "a green field beside a river, houses with red roofs",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
PROCESSOR = {
    "crop_to_patches": False, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "GotOcr2ImageProcessorFast",
    "image_std": [0.229, 0.224, 0.225], "max_patches": 12, "min_patches": 1, "processor_class": "InternVLProcessor",
    "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": SIZE, "width": SIZE},
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "attention_bias": True, "image_size": [SIZE, SIZE], "patch_size": [8, 8],
}  # fmt: skip
TEXT = {
    "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 512, "bos_token_id": 0,
    "eos_token_id": END, "pad_token_id": 0,
}  # fmt: skip


def make_model(text: str = "qwen3", vision: dict[str, Any] | None = None, seed: int = 7, **top: Any) -> Any:
    """InternVLForConditionalGeneration, untrained but not degenerate; `vision` and `top` change the configuration."""
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    torch.manual_seed(seed)
    tied = text == "qwen3"
    words = {"model_type": text, **TEXT, "tie_word_embeddings": tied, "rope_theta": 1e6}
    if text == "qwen3":
        words["head_dim"] = 16
    else:
        words["rope_scaling"] = {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}
    settings = {"image_token_id": IMAGE_TOKEN, "image_seq_length": TOKENS, "tie_word_embeddings": tied, **top}
    config = InternVLConfig(vision_config=VISION | (vision or {}), text_config=words, **settings)
    model = InternVLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Zero biases, positions and class tokens, unit norms and equal layer scales would hide a forgotten one.
            noise = torch.randn_like(parameter)
            scales = "norm" in name and "weight" in name
            parameter.copy_(1 + 0.2 * noise if scales else 0.4 + 0.2 * noise if "lambda" in name else 0.15 * noise)
    return model


def make_tokenizer() -> Any:
    """tokenizers.Tokenizer of Qwen's kind (byte-level BPE, NFC), trained on a few sentences."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS * 8, trainer)
    return tokenizer


def save_checkpoint(model: Any, folder: Path) -> Path:
    """Write the folder as it lies on the hub: config, weights, tokenizer, processors, chat template."""
    model.save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
             "video_token": "<video>"}  # fmt: skip
    tokenizer = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
                 "processor_class": "InternVLProcessor", "extra_special_tokens": marks, **marks}  # fmt: skip
    processor = {"image_seq_length": TOKENS, "processor_class": "InternVLProcessor"}
    written = {
        "tokenizer_config.json": tokenizer, "preprocessor_config.json": PROCESSOR, "processor_config.json": processor,
        "generation_config.json": {"eos_token_id": END, "pad_token_id": 0, "bos_token_id": 0},
    }  # fmt: skip
    for name, data in written.items():
        (folder / name).write_text(json.dumps(data, indent=1))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def make_processor(folder: Path, tiles: int = 1) -> Any:
    """transformers' InternVLProcessor of such a folder on the Pillow backend, splitting into at most `tiles`."""
    from transformers import AutoImageProcessor, AutoTokenizer, InternVLProcessor

    class PicturesOnly(InternVLProcessor):  # type: ignore[misc]
        """Without its video part, whose class needs torchvision."""

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return (
                type(argument) if name == "video_processor" else super().check_argument_for_proper_class(name, argument)
            )

    images = AutoImageProcessor.from_pretrained(folder, backend="pil", max_patches=tiles)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return PicturesOnly(
        image_processor=images, tokenizer=tokenizer, image_seq_length=TOKENS,
        chat_template=(folder / "chat_template.jinja").read_text(),
    )  # fmt: skip
