"""The language-model head as its own graph: only generation runs it.

hidden_states (B, K, H) float32 -> logits (B, K, V) float32
"""

from typing import Any

from edgegeo.export.graph import FLOAT, Graph, array
from edgegeo.export.linear import Storage, linear


def build_head(head: Any, storage: Storage, dialect: str = "ort") -> Graph:
    """Graph of a torch Linear (vocabulary, hidden), tied to the embeddings or not, with or without a bias.

    Logits come out as the matrix makes them: models that cap them are refused with their trunk.
    """
    graph = Graph("lm_head", dialect, storage.precision)
    vocabulary, hidden = head.weight.shape
    states = graph.input("hidden_states", FLOAT, ["batch", "asked", hidden])
    linear(graph, states, array(head.weight).T, array(head.bias) if head.bias is not None else None, "logits", storage)
    graph.output("logits", FLOAT, ["batch", "asked", vocabulary])
    return graph
