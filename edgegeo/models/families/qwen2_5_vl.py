"""The Qwen2.5-VL family: pictures of their own resolution, a tower with windowed attention, Qwen2 with M-RoPE."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.models.family import Family, Parts, mark_ids
from edgegeo.models.preprocessor import faults, pixels
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import Picture

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_MIN_PIXELS, _MAX_PIXELS = 56 * 56, 28 * 28 * 1280
"""Qwen2VLImageProcessor's defaults; the checkpoints' own files say up to 12,845,056 pixels, 16,384 image tokens."""
_RELATIVE = "its architecture differs from Qwen2.5-VL's and is not exported by this version; use a Qwen2.5-VL model"


class Qwen25VL(Family):
    """Qwen2_5_VLForConditionalGeneration, for still pictures."""

    name = "qwen2_5_vl"
    model_types = ("qwen2_5_vl",)
    vision = "qwen2_5_vl"
    answer_end = "<|im_end|>"
    refused = tuple(
        (kind, _RELATIVE)
        for kind in ("qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen2_5_omni", "qwen3_omni_moe")
    )

    def parts(self, model: Any) -> Parts:
        """Tower with its own merger, decoder, head."""
        return Parts(model.model.visual, None, model.model.language_model, model.lm_head)

    def image_spec(
        self, config: Any, preprocessor: dict[str, Any], tokenizer: Any, budget: TokenBudget | None = None
    ) -> ImageSpec:
        """Native resolution within the checkpoint's own bounds of area, the upper one replaced by budget.max_pixels.

        An image token stands for 28 x 28 pixels, so max_pixels / 784 is the most a picture takes.
        """
        budget, vision = budget or TokenBudget(), config.vision_config
        if budget.image_size is not None or budget.max_tiles is not None:
            raise CheckpointError(
                "Qwen2.5-VL keeps a picture's own shape: set max_pixels, not image_size or max_tiles"
            )  # fmt: skip
        least, most = _check(preprocessor, vision)
        most = most if budget.max_pixels is None else budget.max_pixels
        step = vision.patch_size * vision.spatial_merge_size
        if most < step**2:
            raise CheckpointError(f"max_pixels {most} is less than one image token of {step} x {step} pixels")
        return ImageSpec(
            kind="qwen2_5_vl",
            size=step,
            **pixels(preprocessor, 3, _CLIP_MEAN, _CLIP_STD),
            tokens=0,
            min_pixels=min(least, most),
            max_pixels=most,
            patch=vision.patch_size,
            merge=vision.spatial_merge_size,
            window=vision.window_size,
            marks=mark_ids(tokenizer, "Qwen2.5-VL", before="<|vision_start|>", after="<|vision_end|>"),
        )

    def default_settings(self, tokenizer: Any) -> dict[str, Any]:
        """How a checkpoint is asked in the words of its chat template, which adds this system message by itself."""

        def chat(user: str) -> str:
            system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            return f"{system}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"

        prompts = {
            "embed_text": "{text}",
            "embed_image": "{image}",
            "rerank": chat("{image|text}{image}Do these show the same place? Answer Yes or No."),
            "rerank_pair": chat(self.pair_question),
            "generate": chat("{image}Where was this photo taken? Answer as <answer>latitude, longitude</answer>."),
        }
        return self.settings_for(prompts)

    def image_features(self, model: Any, picture: Picture) -> Tensor:
        """(tokens, hidden)."""
        return self.features(model, [picture])[0]

    def features(self, model: Any, pictures: Sequence[Picture]) -> list[Tensor]:
        """(tokens, hidden) of each picture, at its own resolution."""
        vision = model.config.vision_config
        patches = np.concatenate([picture.inputs["pixel_values"] for picture in pictures])
        # The tower takes a still picture as one frame repeated.
        frame = torch.from_numpy(patches).reshape(-1, vision.in_channels, 1, vision.patch_size**2)
        frames = frame.expand(-1, -1, vision.temporal_patch_size, -1).flatten(1)
        return list(model.model.get_image_features(frames, _grids(model, pictures)).pooler_output)

    def hidden(
        self, model: Any, ids: Tensor, pictures: Sequence[Picture] = (), tail: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Last hidden states (B, S + Q, hidden), the rotary positions by transformers' own `get_rope_index`."""
        inputs = self.embeddings(model, ids, pictures, tail, lengths)
        positions = None
        if pictures:
            kinds = (ids == self.image_token_id(model.config)).int()
            # A placeholder that the model itself wrote behind the prompt stays a word (see `Family.embeddings`).
            kinds *= kinds.cumsum(-1) <= sum(rows * columns for rows, columns in (p.grid or (0, 0) for p in pictures))
            positions, _ = model.model.get_rope_index(ids, kinds, _grids(model, pictures))
            positions = positions if tail is None else _behind(positions, len(tail), lengths)
        states: Tensor = (
            self.parts(model).text(inputs_embeds=inputs, position_ids=positions, use_cache=False).last_hidden_state
        )
        return states

    def processor_inputs(self, processor: Any, image: Any, spec: ImageSpec) -> dict[str, Any]:
        """The processor's patches, with the repeated frame once."""
        area = {"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels}
        patches = processor(image, size=area, return_tensors="np")["pixel_values"]
        frames = patches.reshape(len(patches), 3, -1, spec.patch**2)
        return {"pixel_values": frames[:, :, 0].reshape(len(patches), -1)}


def _behind(positions: Tensor, count: int, lengths: Tensor | None) -> Tensor:
    """Positions (3, B, S + count): each row's tail goes on from the largest position of its own prompt."""
    longer = torch.nn.functional.pad(positions, (0, count))
    for row in range(positions.shape[1]):
        length = positions.shape[2] if lengths is None else int(lengths[row])
        first = positions[:, row, :length].max() + 1
        longer[:, row, length : length + count] = first + torch.arange(count, device=positions.device)
    return longer


def _grids(model: Any, pictures: Sequence[Picture]) -> Tensor:
    """(pictures, 3): one frame, and rows and columns of patches."""
    merge = model.config.vision_config.spatial_merge_size
    grids = [picture.grid or (0, 0) for picture in pictures]
    return torch.tensor([[1, rows * merge, columns * merge] for rows, columns in grids])


def _check(preprocessor: dict[str, Any], vision: Any) -> tuple[int, int]:
    """Smallest and largest area of a picture; CheckpointError for settings that
    edgegeo/runtime/pictures/qwen2_5_vl.py does not reproduce."""
    found = faults(preprocessor, "Qwen2VLImageProcessor")
    sides = {
        "patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }  # fmt: skip
    for name, wanted in sides.items():
        if not isinstance(wanted, int):
            found.append(f"no single {name}, as config.json has {wanted}")
        elif preprocessor.get(name, wanted) != wanted:
            found.append(f"{name} {preprocessor[name]} where config.json has {wanted}")
    size = preprocessor.get("size") or {}
    # As the processor reads them: the older names win over `size`.
    least = preprocessor.get("min_pixels") or size.get("shortest_edge") or _MIN_PIXELS
    most = preprocessor.get("max_pixels") or size.get("longest_edge") or _MAX_PIXELS
    if not 0 < least <= most:
        found.append(f"min_pixels {least} and max_pixels {most}")
    if found:
        raise CheckpointError(
            f"preprocessor_config.json has {', '.join(found)}, which this version does not reproduce; it knows "
            "Qwen2VLImageProcessor as Qwen2.5-VL checkpoints set it"
        )
    return int(least), int(most)


FAMILY = Qwen25VL()
