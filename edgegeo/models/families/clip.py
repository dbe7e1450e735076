"""The CLIP family (arXiv 2103.00020): a ViT and a causal text encoder, each projected into one space."""

from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.models.dual import DualEncoder, around, budget_size, plain_spec, square
from edgegeo.models.family import Parts, TextSpec
from edgegeo.recipe import TokenBudget

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIPImageProcessor's defaults."""


class CLIP(DualEncoder):
    """CLIPModel, as OpenAI, LAION and many fine-tunes have it."""

    name = "clip"
    model_types = ("clip",)
    vision = "clip"
    text = "clip"

    def parts(self, model: Any) -> Parts:
        """Vision tower and its projection, text tower and its projection."""
        return Parts(model.vision_model, model.visual_projection, model.text_model, model.text_projection)

    def image_spec(
        self, config: Any, preprocessor: dict[str, Any], tokenizer: Any, budget: TokenBudget | None = None
    ) -> ImageSpec:
        """Shortest edge, then the centre. Under a budget both shrink alike."""
        own, patch = config.vision_config.image_size, config.vision_config.patch_size
        if not preprocessor.get("do_center_crop", True):
            raise CheckpointError("preprocessor_config.json says do_center_crop false, which CLIP's rule needs")
        crop = square(preprocessor.get("crop_size", 224), "crop_size")
        if crop != own:
            raise CheckpointError(
                f"preprocessor_config.json makes {crop}-pixel pictures, config.json expects {own}; "
                "make crop_size and vision_config.image_size agree"
            )
        resize = preprocessor.get("size", 224)
        edge = resize.get("shortest_edge") if isinstance(resize, dict) else resize
        if not isinstance(edge, int) or (isinstance(resize, dict) and resize.get("longest_edge")):
            raise CheckpointError(f"preprocessor_config.json resizes to {resize}; CLIP's rule needs a shortest_edge")
        size = budget_size(budget, own, patch)
        return plain_spec("clip", size, preprocessor, _MEAN, _STD, edge if size == own else round(edge * size / own))

    def text_spec(self, config: Any, tokenizer: Any, pad_token: str | None) -> TextSpec:
        """Start and end of text around the words; what pads behind the end is never seen."""
        before, after = around(tokenizer)
        if not after:
            raise CheckpointError(
                "the tokenizer writes no end of text, where CLIP pools; save tokenizer.json again with its "
                "post-processor"
            )
        longest = config.text_config.max_position_embeddings - len(before) - len(after)
        return TextSpec(config.projection_dim, before, after, pad_id=after[-1], pad_to=0, longest=longest)

    def processor_inputs(self, processor: Any, image: Any, spec: ImageSpec) -> dict[str, Any]:
        """The processor's own resize and crop, at the sizes of `spec`."""
        crop = {"height": spec.size, "width": spec.size}
        made = processor(image, size={"shortest_edge": spec.shortest_edge}, crop_size=crop, return_tensors="np")
        return {"pixel_values": made["pixel_values"]}


FAMILY = CLIP()
