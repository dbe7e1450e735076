"""A tiny Gemma 3 with random weights, and its checkpoint folder with the files of the repositories on the hub.

32-pixel pictures in 4-pixel patches, so 8 x 8 patches pooled to 16 image tokens; one sliding and one full layer.
"""

import json
from pathlib import Path
from typing import Any

SIZE, TOKENS, WINDOW = 32, 16, 24
FIRST = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
LAST = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
LINES = ["\n" * count for count in range(1, 32)]
CORPUS = [
    "Do these show the same place? Answer Yes or No. yes no YES NO user model",
    "Where was this photo taken? Answer as <answer>-12.34, 56.78</answer>",
    "Here is the original image and here are some crops to help you see better",
    "a green field beside a river, houses with red roofs",
]
CHAT_TEMPLATE = (
    "{{ bos_token }}{%- for message in messages -%}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' "
    "else message['role']) + '\n' }}{%- if message['content'] is string -%}{{ message['content'] | trim }}"
    "{%- else -%}{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}"
    "{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
PROCESSOR = {
    "do_convert_rgb": None, "do_normalize": True, "do_pan_and_scan": None, "do_rescale": True, "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": TOKENS,
    "image_std": [0.5, 0.5, 0.5], "pan_and_scan_max_num_crops": None, "pan_and_scan_min_crop_size": None,
    "pan_and_scan_min_ratio_to_activate": None, "processor_class": "Gemma3Processor", "resample": 2,
    "rescale_factor": 0.00392156862745098, "size": {"height": SIZE, "width": SIZE},
}  # fmt: skip


def make_tokenizer() -> Any:
    """tokenizers.Tokenizer of Gemma's kind: no pre-tokens, blanks as letters, runs of line breaks as single tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    # Trained word by word, as SentencePiece is; then used on whole lines, as Gemma's is.
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained.train_from_iterator(CORPUS * 8, trainers.BpeTrainer(vocab_size=180, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    pieces = [*FIRST, *LINES, *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"], *LAST]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in [*FIRST, *LAST]])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in LINES])
    bos = ("<bos>", vocab["<bos>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[bos]
    )
    return tokenizer


def make_model(seed: int = 7, vocab: int | None = None, **text: Any) -> Any:
    """Gemma3ForConditionalGeneration, untrained but not degenerate; `text` changes the text configuration."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    tokenizer = make_tokenizer()
    size = vocab or tokenizer.get_vocab_size()
    torch.manual_seed(seed)
    words = {
        "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 24, "vocab_size": size,
        "max_position_embeddings": 640, "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        "eos_token_id": [1, 6],
    }  # fmt: skip
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
              "num_attention_heads": 4, "image_size": SIZE, "patch_size": 4, "vision_use_head": False}  # fmt: skip
    boi, eoi, soft = (tokenizer.token_to_id(mark) for mark in LAST)
    config = Gemma3Config(
        text_config=words | text, vision_config=vision, mm_tokens_per_image=TOKENS, boi_token_index=boi,
        eoi_token_index=eoi, image_token_index=soft, eos_token_id=[1, 6],
    )  # fmt: skip
    model = Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Gemma stores norm weights as differences from one, and a new projection is all zero: both would hide a
            # forgotten step. The vision tower's norms are plain.
            noise = torch.randn_like(parameter)
            plain = "vision_tower" in name and "norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if plain else 0.15 * noise)
    return model


def save_checkpoint(model: Any, folder: Path) -> Path:
    """Write the folder as it lies on the hub: config, weights, tokenizer, processors, chat template."""
    model.save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    marks = dict(zip(("boi_token", "eoi_token", "image_token"), LAST, strict=True))
    tokenizer = {
        "tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>", "mask_token": "<mask>", "add_bos_token": True, "add_eos_token": False,
        "processor_class": "Gemma3Processor", "extra_special_tokens": marks, **marks,
    }  # fmt: skip
    written = {
        "tokenizer_config.json": tokenizer, "preprocessor_config.json": PROCESSOR,
        "processor_config.json": {"image_seq_length": TOKENS, "processor_class": "Gemma3Processor"},
        "generation_config.json": {"bos_token_id": 2, "eos_token_id": [1, 6], "pad_token_id": 0, "do_sample": True},
    }  # fmt: skip
    for name, data in written.items():
        (folder / name).write_text(json.dumps(data, indent=1))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def make_processor(folder: Path) -> Any:
    """transformers' Gemma3Processor of such a folder on the Pillow backend."""
    from transformers import AutoImageProcessor, AutoTokenizer, Gemma3Processor

    return Gemma3Processor(
        image_processor=AutoImageProcessor.from_pretrained(folder, backend="pil"),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        chat_template=(folder / "chat_template.jinja").read_text(),
        image_seq_length=TOKENS,
    )
