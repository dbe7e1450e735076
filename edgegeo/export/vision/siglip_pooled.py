"""The vision side of the SigLIP dual encoder as an ONNX graph: the tower, then its attention-pooling head.

pixel_values (B, 3, size, size) float32 -> image_embeds (B, dim) float32, not normalised
"""

from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.export.blocks import full_attention
from edgegeo.export.encoder import add_norm, dense, feed_forward
from edgegeo.export.graph import FLOAT, Graph, array
from edgegeo.export.linear import Storage, linear
from edgegeo.export.vision.clip import expand_rows
from edgegeo.export.vision.siglip import encoder
from edgegeo.models.family import Parts


def build(parts: Parts, config: Any, spec: ImageSpec, storage: Storage, dialect: str = "ort") -> Graph:
    """Graph of `parts.vision` (SiglipVisionModel, with its head) for pictures of `spec.size`.

    config: SiglipConfig. CheckpointError for a tower it does not reproduce, or one without the head.
    """
    vision, tower = parts.vision, config.vision_config
    if not vision.use_head:
        raise CheckpointError(
            "the vision tower has no pooling head (vision_use_head is false), so it gives no embedding; "
            "use a SigLIP checkpoint that was saved whole"
        )
    graph = Graph("vision_encoder", dialect, storage.precision)
    states = encoder(graph, vision, tower, spec.size, storage)
    pooled = _attention_pool(graph, vision.head, states, tower, storage)
    normed, _ = add_norm(graph, "", pooled, vision.head.layernorm, "head.norm")
    out = feed_forward(graph, normed, vision.head.mlp, tower, "head", storage)
    graph.node("Add", [pooled, out], "image_embeds")
    graph.output("image_embeds", FLOAT, ["batch", tower.hidden_size])
    return graph


def _attention_pool(graph: Graph, head: Any, states: str, config: Any, storage: Storage) -> str:
    """One learned query over all patches (`torch.nn.MultiheadAttention`); (B, H)."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    weight, bias = array(head.attention.in_proj_weight), array(head.attention.in_proj_bias)
    # The query is the same for every picture, so it is projected here.
    query = graph.weight("head.probe", (array(head.probe)[0] @ weight[:hidden].T + bias[:hidden])[None])
    probes = expand_rows(graph, states, query, hidden, "head.query")
    packed = linear(graph, states, weight[hidden:].T, bias[hidden:], "head.key_value", storage)
    graph.node("Split", [packed], ["head.key", "head.value"], axis=-1, num_outputs=2)
    scale = float((hidden // heads) ** -0.5)
    size = hidden // heads
    attended = full_attention(graph, probes, "head.key", "head.value", "head.attended", heads, size, scale)
    flat = graph.node("Reshape", [attended, graph.integers("shape_row", [0, hidden])], "head.row")
    return dense(graph, flat, head.attention.out_proj, "head.out", storage)
