"""Checkpoints of true size with random weights: the published configurations, bfloat16 shards, a tokenizer made here.

Sizes as published with HuggingFaceTB/SmolVLM-256M-Instruct, OpenGVLab/InternVL3_5-1B-HF, Qwen/Qwen2.5-VL-3B-Instruct
and google/gemma-3-4b-it (27b for `edgegeo export --plan`). The tokenizer is a small BPE; the table keeps its true size.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SHARD_BYTES = 1 << 30
QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CORPUS = [
    "yes Yes YES no No NO yes Yes YES no No NO", "User: Assistant:\n user\n assistant\n system\n model\n",
    "Do these show the same place? Answer Yes or No. Where was this photo taken?",
    "a green field beside a river, houses with red roofs, forest to the north <answer>-12.3456, 123.4567</answer>",
]  # fmt: skip


@dataclass(frozen=True)
class TrueSize:
    """One family at its true size."""

    title: str
    config: Callable[[dict[str, int]], Any]
    """Token ids by name -> transformers configuration."""
    specials: tuple[str, ...]
    """Control tokens; their ids are their places."""
    stop: str
    preprocessor: dict[str, Any]
    tokenizer_class: str = "PreTrainedTokenizerFast"


def smolvlm(ids: dict[str, int]) -> Any:
    from transformers import SmolVLMConfig

    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
              "image_size": 512, "patch_size": 16}  # fmt: skip
    text = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49280,
            "max_position_embeddings": 8192, "rope_theta": 100000, "pad_token_id": 0, "bos_token_id": 0,
            "eos_token_id": ids["<end_of_utterance>"]}  # fmt: skip
    return SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=4, image_token_id=ids["<image>"],
                         tie_word_embeddings=True)  # fmt: skip


def internvl(ids: dict[str, int]) -> Any:
    from transformers import InternVLConfig

    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
              "attention_bias": True, "image_size": [448, 448], "patch_size": [14, 14]}  # fmt: skip
    text = {"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
            "max_position_embeddings": 40960, "rope_theta": 1e6, "tie_word_embeddings": True, "pad_token_id": 0,
            "bos_token_id": 0, "eos_token_id": ids["<|im_end|>"]}  # fmt: skip
    return InternVLConfig(vision_config=vision, text_config=text, image_token_id=ids["<IMG_CONTEXT>"],
                          image_seq_length=256, downsample_ratio=0.5, tie_word_embeddings=True)  # fmt: skip


def qwen(ids: dict[str, int]) -> Any:
    from transformers import Qwen2_5_VLConfig

    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
              "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}  # fmt: skip
    text = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 128000, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": ids["<|im_end|>"]}  # fmt: skip
    marks = {"vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
             "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"]}  # fmt: skip
    return Qwen2_5_VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=True, **marks)


def gemma(ids: dict[str, int], **text: int) -> Any:
    from transformers import Gemma3Config

    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
              "image_size": 896, "patch_size": 14, "vision_use_head": False}  # fmt: skip
    words = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8,
             "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024, "vocab_size": 262208,
             "query_pre_attn_scalar": 256, "max_position_embeddings": 131072, "rope_theta": 1e6,
             "rope_local_base_freq": 1e4, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
             "pad_token_id": ids["<pad>"], "bos_token_id": ids["<bos>"],
             "eos_token_id": ids["<end_of_turn>"]} | text  # fmt: skip
    return Gemma3Config(vision_config=vision, text_config=words, mm_tokens_per_image=256,
                        boi_token_index=ids["<start_of_image>"], eoi_token_index=ids["<end_of_image>"],
                        image_token_index=ids["<image_soft_token>"], tie_word_embeddings=True)  # fmt: skip


def gemma_27b(ids: dict[str, int]) -> Any:
    return gemma(ids, hidden_size=5376, intermediate_size=21504, num_hidden_layers=62, num_attention_heads=32,
                 num_key_value_heads=16, head_dim=128, query_pre_attn_scalar=168)  # fmt: skip


HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True}  # fmt: skip
GEMMA_SPECIALS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
                  "<image_soft_token>")  # fmt: skip
GEMMA_PREPROCESSOR = HALF | {
    "image_processor_type": "Gemma3ImageProcessor", "processor_class": "Gemma3Processor", "do_pan_and_scan": None,
    "image_seq_length": 256, "resample": 2, "size": {"height": 896, "width": 896}, "do_convert_rgb": None,
    "pan_and_scan_max_num_crops": None, "pan_and_scan_min_crop_size": None,
    "pan_and_scan_min_ratio_to_activate": None,
}  # fmt: skip
FAMILIES = {
    "smolvlm-256m": TrueSize(
        "SmolVLM-256M", smolvlm,
        ("<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>"),
        "<end_of_utterance>",
        HALF | {"image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": True, "do_pad": True,
                "max_image_size": {"longest_edge": 512}, "resample": 1, "size": {"longest_edge": 2048}},
    ),
    "internvl3.5-1b": TrueSize(
        "InternVL3.5-1B", internvl, (*QWEN_TOKENS, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"), "<|im_end|>",
        HALF | {"image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": False, "max_patches": 12,
                "min_patches": 1, "resample": 3, "size": {"height": 448, "width": 448},
                "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    ),
    "qwen2.5-vl-3b": TrueSize(
        "Qwen2.5-VL-3B", qwen,
        (*QWEN_TOKENS, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
        "<|im_end|>",
        {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 3136, "max_pixels": 12845056,
         "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
         "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]},
    ),
    "gemma-3-4b": TrueSize("Gemma-3-4B", gemma, GEMMA_SPECIALS, "<end_of_turn>", GEMMA_PREPROCESSOR),
    "gemma-3-27b": TrueSize("Gemma-3-27B", gemma_27b, GEMMA_SPECIALS, "<end_of_turn>", GEMMA_PREPROCESSOR),
}  # fmt: skip


def write_checkpoint(name: str, folder: Path, weights: bool = True) -> int:
    """Write a family's folder as it would lie on the hub; returns the number of parameters. Memory: one shard."""
    from transformers import AutoModelForImageTextToText

    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: index for index, token in enumerate(family.specials)}
    config = family.config(ids)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    config.architectures, config.dtype = [type(model).__name__], "bfloat16"
    config.save_pretrained(folder)
    _tokenizer(family.specials).save(str(folder / "tokenizer.json"))
    special = {"tokenizer_class": family.tokenizer_class, "eos_token": family.stop, "pad_token": family.specials[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    (folder / "preprocessor_config.json").write_text(json.dumps(family.preprocessor, indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids[family.stop]}))
    _settings(config.model_type, folder)
    if weights:
        _write_weights(dict(model.named_parameters()), folder, config.model_type)
    return sum(p.numel() for p in model.parameters())


def _settings(model_type: str, folder: Path) -> None:
    """The family's own prompts, with answers of a few tokens: random weights never stop by themselves."""
    from edgegeo.models.checkpoint import load_tokenizer
    from edgegeo.models.family import find_family

    settings = find_family(model_type).default_settings(load_tokenizer(folder))
    (folder / "edgegeo_model.json").write_text(json.dumps(settings | {"max_new_tokens": 32}))


def _write_weights(parameters: dict[str, Any], folder: Path, model_type: str) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    where, total, shards = {}, 0, list(_shards(parameters))
    for index, names in enumerate(shards, 1):
        file = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _random(name, parameters[name].shape, model_type) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index_file = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file, indent=1))


def _shards(parameters: dict[str, Any]) -> Iterator[list[str]]:
    names, size = [], 0
    for name, parameter in parameters.items():
        if names and size + 2 * parameter.numel() > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += 2 * parameter.numel()
    yield names


def _random(name: str, shape: Any, model_type: str) -> torch.Tensor:
    """Visible everywhere: no unit norms, zero biases or equal layer scales that would hide a forgotten one."""
    if "lambda" in name:
        return (0.1 + 0.02 * torch.randn(shape)).bfloat16()
    if len(shape) == 1 and name.endswith("weight"):
        # Gemma's own norms multiply by 1 + weight: a gain of 2 in each of 140 would make any rounding chaotic.
        centre = 0.0 if model_type == "gemma3" and "vision" not in name else 1.0
        return (centre + 0.1 * torch.randn(shape)).bfloat16()
    if len(shape) == 1:
        return (0.1 * torch.randn(shape)).bfloat16()
    fan_in = shape[1] if "embed_tokens" not in name else 2500
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, float(fan_in) ** -0.5)


def _tokenizer(specials: tuple[str, ...]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # Digits stand alone, as in all of these families: answers have as many tokens as theirs.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS * 8, trainer)
    return tokenizer
