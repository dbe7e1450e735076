"""The price of an embedding: dual encoders, and the multimodal LLMs that must justify theirs against them.

    python benchmarks/dual_encoders.py                     CLIP B/32 and L/14, SigLIP B/16, SmolVLM-256M size, pocket
    python benchmarks/dual_encoders.py --models clip-vit-b-32,siglip-b-16 --precision int8

True sizes with random weights (speed does not depend on what weights say), but for pocket, the packaged model. One
description and one picture whose pixels are ready made. Writes dual_encoders_{threads}_threads.json and .md under
benchmarks/results/.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import true_size
from contest import REFERENCE, Contest, Job
from eager import Eager

from edgegeo.bundle import ImageSpec, TrunkSpec
from edgegeo.evaluate import planet_scenes
from edgegeo.export.components import Part, write
from edgegeo.models.family import find_family
from edgegeo.recipe import preset
from edgegeo.runtime import Embedder, Model
from edgegeo.runtime.sessions import open_session
from edgegeo.runtime.trunk import Trunk, TrunkInput

RESULTS = Path(__file__).parent / "results"
DESCRIPTION = 45
"""Token ids of a description of a place, control tokens included (CLIP's tokenizer; planet places have 31 to 52)."""
LARGE: dict[str, dict[str, Any]] = {
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                      "num_attention_heads": 16, "patch_size": 14},
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}  # fmt: skip
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip-vit-b-32": ("clip", {}),
    "clip-vit-l-14": ("clip", {**LARGE, "projection_dim": 768}),
    "siglip-b-16": ("siglip", {}),
}
"""transformers' defaults are CLIP ViT-B/32 and SigLIP-B/16 at 224 px, as published."""


def main() -> None:
    known = [*SIZES, "smolvlm-256m", "pocket"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(known))
    parser.add_argument("--precision", default="fp32,int8")
    parser.add_argument("--threads", type=int, default=2, help="of both sides")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {"threads": options.threads, "repeats": options.repeats, "text tokens": DESCRIPTION}
    settings["load average before"] = round(os.getloadavg()[0], 1)  # above 1 a core, neighbours are in the numbers
    contest = Contest("One embedding: dual encoders and multimodal LLMs", settings)
    precisions = options.precision.split(",")
    for name in options.models.split(","):
        if name not in known:
            parser.error(f"unknown model {name!r}; use some of {', '.join(known)}")
        with tempfile.TemporaryDirectory() as folder:
            compare = {"smolvlm-256m": smolvlm, "pocket": pocket}.get(name, dual)
            compare(contest, name, precisions, Path(folder), options.threads, options.repeats)
    contest.write(options.output, f"dual_encoders_{options.threads}_threads")


def dual(contest: Contest, name: str, precisions: list[str], folder: Path, threads: int, repeats: int) -> None:
    """Both towers of a dual encoder of true size, through the exporter's own graphs."""
    family, model = find_family(SIZES[name][0]), random_model(name)
    side, longest = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings
    image = ImageSpec(family.name, side, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3, 1, shortest_edge=side)
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(1, 3, side, side)).astype(np.float32)
    # SigLIP reads every text at its full length; CLIP stops at the end of text, its last token here.
    ids = rng.integers(10, 30_000, (1, longest if family.name == "siglip" else DESCRIPTION))
    ids[:, DESCRIPTION - 1 :] = model.config.text_config.eos_token_id if family.name == "clip" else 1
    texts: dict[str, Callable[[], Any]] = {REFERENCE: lambda: _features(model.get_text_features, ids)}
    pictures: dict[str, Callable[[], Any]] = {REFERENCE: lambda: _features(model.get_image_features, pixels)}
    for precision in precisions:
        place = folder / precision
        made = [write(Part(kind, kind, model, family, image), preset(precision), place) for kind in ("text", "vision")]
        text, vision = (open_session(place / part.file, threads) for part, _ in made)
        texts[f"edgegeo {precision}"] = lambda s=text: s.run(None, {"input_ids": ids})[0]
        pictures[f"edgegeo {precision}"] = lambda s=vision: s.run(None, {"pixel_values": pixels})[0]
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        contest.settings[f"{name} {precision} MB"] = round(size / 2**20)
    contest.run(Job(f"{name}: a text", texts, repeats))
    contest.run(Job(f"{name}: a picture, {side} px", pictures, repeats))


def random_model(name: str) -> Any:
    """CLIPModel or SiglipModel of a true size, float32, in evaluation mode."""
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    torch.manual_seed(0)
    family, settings = SIZES[name]
    if family == "clip":
        return CLIPModel(CLIPConfig(**settings)).eval()
    return SiglipModel(SiglipConfig(**settings)).eval()


@torch.inference_mode()
def _features(read: Any, value: Any) -> Any:
    return read(torch.from_numpy(value)).pooler_output.numpy()


def smolvlm(contest: Contest, name: str, precisions: list[str], folder: Path, threads: int, repeats: int) -> None:
    """The last hidden state of a description, and of a picture's image tokens, at SmolVLM-256M's size."""
    model, rng = true_size.random_model(), np.random.default_rng(0)
    keys = ("num_hidden_layers", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size")
    spec = TrunkSpec(*(true_size.TEXT[key] for key in keys), true_size.TEXT["max_position_embeddings"])
    side = true_size.VISION["image_size"]
    pixels = rng.normal(size=(1, 3, side, side)).astype(np.float32)
    with torch.inference_mode():
        words = model.get_input_embeddings()(torch.from_numpy(rng.integers(10, 49_000, (1, DESCRIPTION)))).numpy()

    def eager(embeds: Any) -> Any:
        with torch.inference_mode():
            states = model.model.text_model(inputs_embeds=torch.from_numpy(embeds), use_cache=False).last_hidden_state
        return states[:, -1].numpy()

    def fast(trunk: Trunk, embeds: Any) -> Any:
        length = embeds.shape[1]
        return trunk.hidden(TrunkInput(embeds, np.array([length])), np.array([[length - 1]]))[:, 0]

    texts = {REFERENCE: lambda: eager(words)}
    pictures = {REFERENCE: lambda: eager(true_size.torch_vision(model, pixels))}
    for precision in precisions:
        found = true_size.open_sessions(model, precision, folder, threads)
        trunk, vision = Trunk(found["trunk"], spec), found["vision"]
        texts[f"edgegeo {precision}"] = lambda t=trunk: fast(t, words)
        pictures[f"edgegeo {precision}"] = lambda t=trunk, v=vision: fast(t, v.run(None, {"pixel_values": pixels})[0])
    contest.run(Job(f"{name}: a text", texts, repeats))
    contest.run(Job(f"{name}: a picture, {side} px", pictures, repeats))


def pocket(contest: Contest, name: str, precisions: list[str], folder: Path, threads: int, repeats: int) -> None:
    """The packaged model, by its own bundles."""
    from edgegeo.export import export
    from edgegeo.export.source import open_source

    models = {}
    for precision in precisions:
        export(None, preset(precision), folder / precision, places=0)
        models[precision] = Model.open(folder / precision, threads)
    eager, scene = Eager(open_source()), planet_scenes(1, "test")[0]
    picture = models[precisions[0]].prepare([scene.photo])
    pixels = picture[0].inputs["pixel_values"]
    texts: dict[str, Callable[[], Any]] = {REFERENCE: lambda: eager.text(scene.text)}
    pictures: dict[str, Callable[[], Any]] = {REFERENCE: lambda: eager.images(pixels)}
    for precision, model in models.items():
        embedder = Embedder(model)
        texts[f"edgegeo {precision}"] = lambda e=embedder: e.texts([scene.text])
        pictures[f"edgegeo {precision}"] = lambda e=embedder: e.features(e.model.features(e.role.vision, picture))
    contest.run(Job(f"{name}: a text", texts, repeats))
    contest.run(Job(f"{name}: a picture, {pixels.shape[-1]} px", pictures, repeats))


if __name__ == "__main__":
    main()
