"""What a text decoder's configuration means for its graph; whatever the graph does not reproduce is refused here."""

from dataclasses import dataclass
from typing import Any

from edgegeo.errors import CheckpointError
from edgegeo.export.blocks import ACTIVATIONS

KINDS = ("llama", "qwen2", "qwen3", "qwen2_5_vl_text", "gemma3_text")
"""Values of `model_type` of the text configurations that can be exported."""
WINDOWED = ("qwen2", "qwen3", "qwen2_5_vl_text", "gemma3_text")
"""Of these, the kinds whose layers follow `layer_types`; a window means nothing to the others."""
STATIC_ROPES = ("default", "dynamic", "linear", "llama3", "yarn")
"""Rotary types whose angles depend on the position alone, so that a table holds them: "dynamic" (InternVL3) changes
them only beyond max_position_embeddings, where the tables end."""
MOST_POSITIONS = 32768
"""Rotary tables are cut here: the 131,072 positions of Gemma 3 would be 268 MB of cosines and sines, and their
keys and values more memory than an edge device has."""
UNSUPPORTED = (
    "attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention", "num_local_experts",
    "num_experts", "n_routed_experts", "attention_chunk_size",
)  # fmt: skip
"""Settings that change the arithmetic when they are set."""


@dataclass(frozen=True)
class TrunkShape:
    """The numbers of a decoder that the graph needs."""

    kind: str
    """One of `KINDS`."""
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    epsilon: float
    activation: str
    """Kind of the gate's activation, as `blocks.activation` takes it."""
    rope: str
    """"plain": a token's angle follows its index. "mrope": three rows of positions are an input."""
    sections: tuple[int, ...]
    """mrope: how many of the angles follow the temporal, height and width row, in that order."""
    blocks: bool
    """Positions of one picture see each other both ways (Gemma 3); the graph has an input `image_blocks`."""
    windows: tuple[int, ...]
    """For each layer how many positions it looks back, itself included; 0: all of them."""
    layer_types: tuple[str, ...]
    """For each layer the name of its rotary base in the model's rotary module; "" where there is one for all."""


def trunk_shape(config: Any, dialect: str = "ort") -> TrunkShape:
    """Read a transformers text configuration; CheckpointError names every setting the graph does not reproduce."""
    faults = _faults(config, dialect)
    if faults:
        raise CheckpointError(
            f"the text decoder uses {', '.join(faults)}, which this version can't export; it exports "
            "Llama (SmolVLM, SmolLM2), Qwen2 and Qwen3 (InternVL), Qwen2.5-VL and Gemma 3 decoders"
        )
    kind, layers = config.model_type, config.num_hidden_layers
    types = tuple(getattr(config, "layer_types", None) or ()) or ("full_attention",) * layers
    window = getattr(config, "sliding_window", None) if kind in WINDOWED else None
    sections = _rope(config).get("mrope_section", ()) if kind == "qwen2_5_vl_text" else ()
    return TrunkShape(
        kind=kind, layers=layers, hidden=config.hidden_size, heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads, head_dim=_head_dim(config),
        max_positions=min(config.max_position_embeddings, MOST_POSITIONS), epsilon=config.rms_norm_eps,
        activation=ACTIVATIONS[_activation(config)], rope="mrope" if sections else "plain", sections=tuple(sections),
        blocks=kind == "gemma3_text",
        windows=tuple((window or 0) if t == "sliding_attention" else 0 for t in types),
        layer_types=types if kind == "gemma3_text" else ("",) * layers,
    )  # fmt: skip


def _faults(config: Any, dialect: str) -> list[str]:
    if config.model_type not in KINDS:
        return [f"text model type '{config.model_type}'"]
    faults = []
    if _activation(config) not in ACTIVATIONS:
        faults.append(f"activation '{_activation(config)}'")
    faults += [f"{name}={getattr(config, name)}" for name in UNSUPPORTED if getattr(config, name, None)]
    faults += _rope_faults(config)
    types = getattr(config, "layer_types", None) or []
    for odd in sorted(set(types) - {"full_attention", "sliding_attention"}):
        faults.append(f"layers of type '{odd}'")
    if types and len(types) != config.num_hidden_layers:
        faults.append(f"{len(types)} layer_types for {config.num_hidden_layers} layers")
    window = getattr(config, "sliding_window", None)
    if config.model_type not in WINDOWED and window:
        faults.append(f"sliding_window={window}")
    if config.model_type in WINDOWED and "sliding_attention" in types and not window:
        faults.append(f"sliding layers with sliding_window={window}")
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
    if heads % kv_heads:
        faults.append(f"{heads} heads over {kv_heads} key-value heads")
    if dialect == "ort" and _head_dim(config) % 16:
        # GroupQueryAttention's rotary kernels work on multiples of 16.
        faults.append(f"head size {_head_dim(config)} (not a multiple of 16)")
    return faults


def _rope_faults(config: Any) -> list[str]:
    rope = _rope(config)
    if config.model_type == "gemma3_text":
        ropes = [rope.get(t) or {} for t in dict.fromkeys(config.layer_types)]
    else:
        ropes = [rope]
    faults = []
    for one in ropes:
        kind = one.get("rope_type") or one.get("type") or "default"
        if kind not in STATIC_ROPES:
            faults.append(f"rope type '{kind}'")
        if one.get("partial_rotary_factor", 1.0) != 1.0:
            faults.append(f"partial_rotary_factor={one['partial_rotary_factor']}")
    if getattr(config, "partial_rotary_factor", None) not in (None, 1.0):
        faults.append(f"partial_rotary_factor={config.partial_rotary_factor}")
    if config.model_type == "qwen2_5_vl_text":
        sections = rope.get("mrope_section") or []
        if len(sections) != 3 or 2 * sum(sections) != _head_dim(config):
            faults.append(f"mrope_section={sections} for a head size of {_head_dim(config)}")
    elif rope.get("mrope_section"):
        faults.append(f"mrope_section={rope['mrope_section']}")
    return list(dict.fromkeys(faults))


def _rope(config: Any) -> dict[str, Any]:
    return getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}


def _activation(config: Any) -> str:
    return str(config.hidden_activation if config.model_type == "gemma3_text" else config.hidden_act)


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
