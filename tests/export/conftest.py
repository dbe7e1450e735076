"""A tiny SmolVLM with random weights of visible size: as a torch model, and as a checkpoint folder with adapters."""

import json
from pathlib import Path
from typing import Any

import pytest

WORDS = ["a green field beside a river, houses with red roofs", "Yes No yes no <answer>-12.34, 56.78</answer>"]
SPECIALS = ["<pad>", "<bos>", "<eos>", "<image>", "<fake_token_around_image>", "<global-img>"]
VOCABULARY = 280


@pytest.fixture(scope="session")
def tiny() -> Any:
    """SmolVLMForConditionalGeneration: 32 px, patch 8, 2 + 2 layers, grouped keys, untrained but not degenerate."""
    import torch
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    torch.manual_seed(7)
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    text = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCABULARY,
            "max_position_embeddings": 384, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    config = SmolVLMConfig(
        vision_config=vision, text_config=text, scale_factor=2, image_token_id=3, tie_word_embeddings=True
    )
    model = SmolVLMForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Zero biases and unit norms would hide a forgotten one.
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * noise if "norm" in name and "weight" in name else 0.15 * noise)
    return model


@pytest.fixture(scope="session")
def checkpoint(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of `tiny` with LoRA retriever, latent queries and DoRA GPS adapter; don't write to it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny.save_pretrained(folder)
    _tokenizer().save(str(folder / "tokenizer.json"))
    processor = {
        "image_processor_type": "SmolVLMImageProcessor", "do_convert_rgb": True, "do_image_splitting": False,
        "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3, "max_image_size": {"longest_edge": 32}, "resample": 1, "rescale_factor": 1 / 255,
        "size": {"longest_edge": 64},
    }  # fmt: skip
    settings = {
        "prompts": {
            "embed_text": "{text}<eos>", "embed_image": "{image}<eos>", "generate": "<bos>{image}<answer>",
            "rerank": "<bos>{image|text} beside {image} yes no",
        },
        "adapters": {"embed": "retriever-lora", "rerank": None, "generate": "gps-lora"}, "max_new_tokens": 24,
        "yes": ["Yes", "yes"],
        "no": ["No", "no"],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "edgegeo_model.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "pad_token_id": 0}))
    _save_lora(tiny, folder / "adapters" / "retriever-lora", ["q_proj", "v_proj", "fc1"], dora=False)
    _save_lora(tiny, folder / "adapters" / "gps-lora", r".*text_model.*(q_proj|down_proj)", dora=True)
    _save_queries(folder / "adapters" / "retriever-slq", 3, 64)
    return folder


@pytest.fixture(scope="session")
def source(checkpoint: Path) -> Any:
    """The checkpoint opened with its own adapters."""
    from edgegeo.export.source import open_source

    return open_source(checkpoint)


def _save_lora(model: Any, folder: Path, targets: Any, dora: bool) -> None:
    import copy
    import warnings

    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=32, target_modules=targets, use_dora=dora, init_lora_weights="gaussian")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        adapted = get_peft_model(copy.deepcopy(model), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)


def _save_queries(folder: Path, count: int, hidden: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    queries = np.random.default_rng(0).normal(0, 1, (count, hidden)).astype(np.float32)
    save_file({"queries": queries, "log_scale": np.zeros((), np.float32)}, folder / "slq.safetensors")


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([w for text in WORDS * 8 for w in [text, *text.split()]], trainer)
    return tokenizer
