"""Tiny dual encoders with random weights: CLIP and SigLIP as transformers builds them, and whole checkpoint folders.

No parameter keeps an initial value that would hide a mistake: biases, norms and the pooling query are all random.
"""

import json
from pathlib import Path
from typing import Any

WORDS = ["A green field beside a river, houses with red roofs", "dry hills, a straight road, no houses", "0123456789"]
SIZE, PATCH, LENGTH, DIM = 32, 8, 16, 24
"""Pixels of a picture and of a patch, positions of a text, length of a CLIP embedding."""
ROOM = 128
"""Positions of a text in the checkpoint folders: descriptions of planet places fit."""


def clip_model(
    eos: int = 3, activation: str = "quick_gelu", vocabulary: int = 320, seed: int = 0, length: int = LENGTH
) -> Any:
    """A CLIPModel of 2 layers; the towers differ in width, so that nothing fits by chance."""
    from transformers import CLIPConfig, CLIPModel

    shared = {"num_hidden_layers": 2, "intermediate_size": 80, "num_attention_heads": 2, "hidden_act": activation}
    text = {"vocab_size": vocabulary, "hidden_size": 32, "max_position_embeddings": length, "eos_token_id": eos,
            "bos_token_id": 1, "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 48, "image_size": SIZE, "patch_size": PATCH}
    config = CLIPConfig(text_config=shared | text, vision_config=shared | vision, projection_dim=DIM)
    return _randomised(CLIPModel(config), seed)


def siglip_model(vocabulary: int = 320, seed: int = 0, length: int = LENGTH) -> Any:
    """A SiglipModel of 2 layers."""
    from transformers import SiglipConfig, SiglipModel

    shared = {"num_hidden_layers": 2, "intermediate_size": 80, "num_attention_heads": 2, "hidden_size": 48}
    text = {"vocab_size": vocabulary, "max_position_embeddings": length, "eos_token_id": 3, "bos_token_id": 1,
            "pad_token_id": 0}  # fmt: skip
    config = SiglipConfig(text_config=shared | text, vision_config=shared | {"image_size": SIZE, "patch_size": PATCH})
    return _randomised(SiglipModel(config), seed)


def write_clip(folder: Path, seed: int = 0) -> Path:
    """A whole CLIP checkpoint folder with its own tokenizer."""
    from transformers import CLIPImageProcessorPil

    tokenizer = clip_tokenizer()
    model = clip_model(
        tokenizer.token_to_id("<|endoftext|>"), vocabulary=tokenizer.get_vocab_size(), seed=seed, length=ROOM
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return _write(folder, model, tokenizer, processor, "CLIPTokenizer", "<|endoftext|>")


def write_siglip(folder: Path, seed: int = 0) -> Path:
    """A whole SigLIP checkpoint folder with its own tokenizer."""
    from transformers import SiglipImageProcessorPil

    tokenizer = siglip_tokenizer()
    model = siglip_model(tokenizer.get_vocab_size(), seed, ROOM)
    processor = SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    return _write(folder, model, tokenizer, processor, "PreTrainedTokenizerFast", "</s>")


def clip_tokenizer() -> Any:
    """A tokenizers.Tokenizer built as CLIP's is: lower case, words end in `</w>`, start and end of text around."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False,
    )  # fmt: skip
    # CLIP's control tokens have the highest ids, which is what its older pooling relies on.
    tokenizer.train_from_iterator([*_descriptions(), *letters], trainer)
    tokenizer.add_special_tokens([start, end])
    ends = [(token, tokenizer.token_to_id(token)) for token in (end, start)]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    return tokenizer


def siglip_tokenizer() -> Any:
    """A tokenizers.Tokenizer that ends a text with `</s>`, which pads as well, as SigLIP's does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(_descriptions(), trainer)
    end = ("</s>", tokenizer.token_to_id("</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[end])
    return tokenizer


def _descriptions() -> list[str]:
    from edgegeo.planet import Planet

    planet = Planet()
    return WORDS * 4 + [planet.describe(float(lat), float(lon)) for lat, lon in planet.coordinates("train", 60)]


def _randomised(model: Any, seed: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = value.shape[-1] ** -0.5 if value.ndim > 1 else 0.2
            value.copy_(torch.randn(value.shape, generator=generator) * spread)
            if "norm" in name.rpartition(".")[0].rpartition(".")[2] and name.endswith("weight"):
                value.add_(1.0)
    return model.float().eval()


def _write(folder: Path, model: Any, tokenizer: Any, processor: Any, kind: str, pad: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": kind, "pad_token": pad, "eos_token": pad, "model_max_length": ROOM}
    if kind == "CLIPTokenizer":
        facts |= {"bos_token": "<|startoftext|>", "unk_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return folder
