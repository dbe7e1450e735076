"""The SigLIP family (arXiv 2303.15343; SigLIP 2, arXiv 2502.14786, of fixed resolution): pooled by attention."""

from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.models.dual import DualEncoder, around, budget_size, plain_spec, square
from edgegeo.models.family import Parts, TextSpec
from edgegeo.recipe import TokenBudget


class SigLIP(DualEncoder):
    """SiglipModel: both towers give embeddings of one width, with no projection of the picture."""

    name = "siglip"
    model_types = ("siglip",)
    vision = "siglip_pooled"
    text = "siglip"

    def parts(self, model: Any) -> Parts:
        """Vision tower with its pooling head, text tower with its head."""
        return Parts(model.vision_model, None, model.text_model, None)

    def image_spec(
        self, config: Any, preprocessor: dict[str, Any], tokenizer: Any, budget: TokenBudget | None = None
    ) -> ImageSpec:
        """One square; the aspect is not kept."""
        own = config.vision_config.image_size
        made, crops = square(preprocessor.get("size", 224), "size"), bool(preprocessor.get("do_center_crop"))
        if made != own or crops:
            raise CheckpointError(
                f"preprocessor_config.json makes {made}-pixel pictures{' and crops them' if crops else ''}, "
                f"config.json expects {own}, not cropped; make size and vision_config.image_size agree"
            )
        size = budget_size(budget, own, config.vision_config.patch_size)
        return plain_spec("siglip", size, preprocessor, (0.5,) * 3, (0.5,) * 3)

    def text_spec(self, config: Any, tokenizer: Any, pad_token: str | None) -> TextSpec:
        """Always padded to the full length, and the padding is read: the pad token is part of the model."""
        text, dim = config.text_config, config.vision_config.hidden_size
        if text.projection_size != dim:
            raise CheckpointError(f"texts get {text.projection_size} numbers and pictures {dim}: not one space")
        pad = None if pad_token is None else tokenizer.token_to_id(pad_token)
        if pad is None:
            raise CheckpointError(
                "tokenizer_config.json names no pad_token of the tokenizer, and SigLIP reads its padding; "
                "add the file of the checkpoint"
            )
        before, after = around(tokenizer)
        longest = text.max_position_embeddings - len(before) - len(after)
        # SigLIP was trained on lower-cased texts; SigLIP 2's tokenizer.json leaves that to its Python class.
        differs = (
            tokenizer.encode("A", add_special_tokens=False).ids != tokenizer.encode("a", add_special_tokens=False).ids
        )
        return TextSpec(dim, before, after, pad, text.max_position_embeddings, longest, lower_case=differs)

    def processor_inputs(self, processor: Any, image: Any, spec: ImageSpec) -> dict[str, Any]:
        """The processor's own resize, at the size of `spec`."""
        made = processor(image, size={"height": spec.size, "width": spec.size}, return_tensors="np")
        return {"pixel_values": made["pixel_values"]}


FAMILY = SigLIP()
