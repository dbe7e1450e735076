"""The matrices of a model, from its config.json alone: what its weights take, and what its stages compute.

Only weights that are multiplied are counted: norms, biases and position tables are some thousandths of them. Defaults
are those of the configuration classes of transformers 5.23, because published files leave out what equals them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgegeo.errors import CheckpointError

_SIGLIP = {"num_channels": 3, "num_hidden_layers": 12, "intermediate_size": 3072}
_VISION: dict[str, dict[str, Any]] = {
    "smolvlm": _SIGLIP | {"hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32, "image_size": 224},
    "internvl": {"num_channels": 3, "num_hidden_layers": 24, "intermediate_size": 4096, "hidden_size": 1024,
                 "num_attention_heads": 16, "patch_size": 14, "image_size": 448},
    "qwen2_5_vl": {"in_channels": 3, "depth": 32, "intermediate_size": 3420, "hidden_size": 3584, "num_heads": 16,
                   "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
                   "spatial_merge_size": 2, "out_hidden_size": 3584},
    "gemma3": _SIGLIP | {"hidden_size": 768, "num_attention_heads": 12, "patch_size": 16, "image_size": 224},
    "clip": _SIGLIP | {"hidden_size": 768, "num_attention_heads": 12, "patch_size": 32, "image_size": 224},
    "siglip": _SIGLIP | {"hidden_size": 768, "num_attention_heads": 12, "patch_size": 16, "image_size": 224},
}  # fmt: skip
_LLAMA = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
          "vocab_size": 32000, "max_position_embeddings": 2048}  # fmt: skip
_QWEN = _LLAMA | {"intermediate_size": 22016, "vocab_size": 151936, "max_position_embeddings": 32768}
_TEXT: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "qwen2": _QWEN | {"num_key_value_heads": 32},
    "qwen3": _QWEN | {"num_key_value_heads": 32, "head_dim": 128},
    "qwen2_5_vl_text": {"hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
                        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 152064,
                        "max_position_embeddings": 32768},
    "gemma3_text": {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
                    "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
                    "max_position_embeddings": 131072},
    "clip_text_model": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
                        "num_attention_heads": 8, "vocab_size": 49408, "max_position_embeddings": 77},
    "siglip_text_model": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                          "num_attention_heads": 12, "vocab_size": 32000, "max_position_embeddings": 64},
}  # fmt: skip
_TEXT_OF = {"smolvlm": "llama", "internvl": "qwen2", "qwen2_5_vl": "qwen2_5_vl_text", "gemma3": "gemma3_text",
            "clip": "clip_text_model", "siglip": "siglip_text_model"}  # fmt: skip
"""Kind of the text part where its configuration does not name one."""
_ALIKE = {"idefics3": "smolvlm"}
DUAL = ("clip", "siglip")


@dataclass(frozen=True)
class Layers:
    """A stack of transformer layers."""

    count: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool
    """Whether the feed-forward part has three matrices (gate, up, down) instead of two."""

    @property
    def weights(self) -> int:
        """Weights of the matrices of all layers."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.count * (attention + (3 if self.gated else 2) * self.hidden * self.intermediate)


@dataclass(frozen=True)
class Tower:
    """The vision side."""

    layers: Layers
    patch_weights: int
    """Of the patch embedding."""
    patch: int
    image_size: int
    """Side of one tile in pixels; 0 for native resolution."""
    extra_positions: int
    """A class token beside the patches."""
    merge: int
    """Patches a side that become one image token."""
    tokens: int
    """Image tokens of one tile where they are fixed whatever its size; 0: patches / merge**2."""
    connector: int
    """Weights that every image token goes through."""
    pooled: int
    """Weights that one vector of a picture goes through (the projection of a dual encoder)."""
    window: int
    """Patches that see each other in a windowed layer; 0: every layer sees all."""
    full_layers: int
    """Layers that see all patches."""

    @property
    def weights(self) -> int:
        """Weights of all matrices."""
        return self.layers.weights + self.patch_weights + self.connector + self.pooled

    def positions(self, pixels: int = 0) -> int:
        """Positions of a tile; pixels: area of a picture of native resolution."""
        area = pixels if self.image_size == 0 else self.image_size**2
        return area // self.patch**2 + self.extra_positions

    def image_tokens(self, pixels: int = 0) -> int:
        """Image tokens of a tile."""
        return self.tokens or (self.positions(pixels) - self.extra_positions) // self.merge**2


@dataclass(frozen=True)
class Shape:
    """A whole model."""

    kind: str
    tower: Tower
    text: Layers
    """The decoder, or the text tower of a dual encoder."""
    windows: tuple[int, ...]
    """Positions each decoder layer looks back; 0: all."""
    vocab: int
    max_positions: int
    text_projection: int
    """Weights behind the text tower of a dual encoder."""

    @property
    def dual(self) -> bool:
        """Whether it is a dual encoder, without decoder and head."""
        return self.kind in DUAL

    @property
    def head_weights(self) -> int:
        """Of the LM head; also of the token-embedding table."""
        return self.vocab * self.text.hidden

    @property
    def kv_values(self) -> int:
        """Numbers in the KV cache for one position."""
        return 2 * self.text.count * self.text.kv_heads * self.text.head_dim


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The shape of a config.json's model; CheckpointError for kinds it does not know or numbers that make no model."""
    kind = _ALIKE.get(str(config.get("model_type")), str(config.get("model_type")))
    if kind not in _VISION:
        known = ", ".join([*_VISION, *_ALIKE])
        raise CheckpointError(f"no plan for a model of type '{config.get('model_type')}'; known are {known}")
    vision = _VISION[kind] | _given(config.get("vision_config"))
    # Published Qwen2.5-VL files have the decoder's settings at the top.
    inner = _given(config["text_config"]) if "text_config" in config else _given(config) | {"model_type": None}
    text_kind = inner.get("model_type") or _TEXT_OF[kind]
    text_kind = "qwen2_5_vl_text" if text_kind == "qwen2_5_vl" else text_kind
    if text_kind not in _TEXT:
        raise CheckpointError(f"no plan for a text decoder of type '{text_kind}'; known are {', '.join(_TEXT)}")
    text = _TEXT[text_kind] | inner
    try:
        layers = _text_layers(text, kind)
        tower = _tower(kind, vision, layers, config)
        projection = int(config.get("projection_dim") or 512) if kind == "clip" else layers.hidden
        return Shape(
            kind=kind, tower=tower, text=layers, windows=_windows(text, layers.count),
            vocab=int(text["vocab_size"]), max_positions=int(text["max_position_embeddings"]),
            text_projection=layers.hidden * projection if kind in DUAL else 0,
        )  # fmt: skip
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise CheckpointError(f"config.json describes no model that can be planned ({error})") from None


def _given(found: Any) -> dict[str, Any]:
    """Settings that are set: files carry null for what is left to the class."""
    return {name: value for name, value in (found or {}).items() if value is not None}


def _text_layers(text: Mapping[str, Any], kind: str) -> Layers:
    heads = int(text["num_attention_heads"])
    kv_heads = heads if kind in DUAL else int(text.get("num_key_value_heads", heads))
    hidden = int(text["hidden_size"])
    return Layers(
        count=int(text["num_hidden_layers"]), hidden=hidden, intermediate=int(text["intermediate_size"]), heads=heads,
        kv_heads=kv_heads, head_dim=int(text.get("head_dim", hidden // heads)), gated=kind not in DUAL,
    )  # fmt: skip


def _tower(kind: str, vision: Mapping[str, Any], text: Layers, config: Mapping[str, Any]) -> Tower:
    hidden, patch = int(vision["hidden_size"]), _side(vision["patch_size"])
    qwen = kind == "qwen2_5_vl"
    heads = int(vision["num_heads" if qwen else "num_attention_heads"])
    count = int(vision["depth" if qwen else "num_hidden_layers"])
    layers = Layers(count, hidden, int(vision["intermediate_size"]), heads, heads, hidden // heads, gated=qwen)
    merge, tokens, connector, pooled = _connector(kind, vision, layers, text, config)
    window = (int(vision["window_size"]) // patch) ** 2 if qwen else 0
    return Tower(
        layers=layers, patch_weights=int(vision["in_channels" if qwen else "num_channels"]) * patch**2 * hidden,
        patch=patch, image_size=0 if qwen else _side(vision["image_size"]),
        extra_positions=1 if kind in ("clip", "internvl") else 0, merge=merge, tokens=tokens, connector=connector,
        pooled=pooled, window=window, full_layers=len(vision["fullatt_block_indexes"]) if qwen else count,
    )  # fmt: skip


def _connector(
    kind: str, vision: Mapping[str, Any], layers: Layers, text: Layers, config: Mapping[str, Any]
) -> tuple[int, int, int, int]:
    """Patches a side of an image token, fixed tokens of a tile, weights a token and weights a picture goes through."""
    hidden = layers.hidden
    if kind == "smolvlm":
        merge = int(config.get("scale_factor") or 2)
        return merge, 0, hidden * merge**2 * text.hidden, 0
    if kind == "internvl":
        merge = round(1 / float(config.get("downsample_ratio") or 0.5))
        return merge, 0, hidden * merge**2 * text.hidden + text.hidden**2, 0
    if kind == "qwen2_5_vl":
        merge = int(vision["spatial_merge_size"])
        wide = hidden * merge**2
        return merge, 0, wide**2 + wide * int(vision["out_hidden_size"]), 0
    if kind == "gemma3":
        return 1, int(config.get("mm_tokens_per_image") or 256), hidden * text.hidden, 0
    if kind == "clip":
        return 1, 1, 0, hidden * int(config.get("projection_dim") or 512)
    # SigLIP pools by attention; keys and values of every patch are counted with the picture's own vector.
    return 1, 1, 0, 4 * hidden**2 + 2 * hidden * layers.intermediate


def _windows(text: Mapping[str, Any], count: int) -> tuple[int, ...]:
    window = int(text.get("sliding_window", 0))
    types = text.get("layer_types") or []
    if not types and text.get("sliding_window_pattern"):
        pattern = int(text["sliding_window_pattern"])
        types = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(count)]
    return tuple(window if i < len(types) and types[i] == "sliding_attention" else 0 for i in range(count))


def _side(value: Any) -> int:
    """A side in pixels, given as one number or as two that are equal."""
    return int(value[0] if isinstance(value, (list, tuple)) else value)
