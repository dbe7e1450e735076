"""How the KV cache of the ort dialect is stored: what GroupQueryAttention's CPU kernel has for it.

fp32   as it computes
fp16   the kernel then computes in float16 too: queries, keys, values and rotary tables are cast around it
int8   one fixed scale a channel, from recorded keys and values; attention reads the codes (onnxruntime >= 1.31: before,
       the operator has no such inputs and the session does not open)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.calibration import LayerStatistics
from edgegeo.errors import CheckpointError, InputError
from edgegeo.export.decoder_shape import TrunkShape
from edgegeo.export.graph import FLOAT, HALF, Graph

Array = NDArray[np.float32]
INT8 = 3
KINDS = {"fp32": FLOAT, "fp16": HALF, "int8": INT8}
LAST_INPUTS = 12
"""GroupQueryAttention's inputs before the scales of keys and values."""


@dataclass(frozen=True)
class CacheStorage:
    """The storage of one decoder's cache."""

    name: str = "fp32"
    seen: Mapping[str, LayerStatistics] = field(default_factory=dict)
    """Recorded layers.I.key and layers.I.value, for int8."""

    def check(self, shape: TrunkShape) -> None:
        """CheckpointError where other operators read the cache too, InputError for int8 without recordings."""
        if self.name != "fp32" and shape.blocks:
            raise CheckpointError(
                "pictures of this model see themselves both ways, for which its cache is read again in fp32; "
                "leave kv at fp32"
            )
        if self.name == "int8" and "layers.0.key" not in self.seen:
            raise InputError("a KV cache in int8 needs recorded keys and values; export with samples, or --calibration")

    @property
    def kind(self) -> int:
        """ONNX type of past and present."""
        return KINDS[self.name]

    def attend(self, graph: Graph, index: int, inputs: list[str], out: str, options: Mapping[str, Any]) -> None:
        """Emit GroupQueryAttention of a layer over inputs in float32; its result `out` is float32."""
        present = [f"present.{index}.key", f"present.{index}.value"]
        given, result, scales = list(inputs), out, {}
        if self.name == "fp16":
            # Past, counts and positions are no float32 tensors.
            floats = [place for place in (0, 1, 2, 7, 8, 10) if place < len(given) and given[place]]
            for place in floats:
                given[place] = graph.in_half(given[place])
            result = f"{out}.half"
        if self.name == "int8":
            given += [""] * (LAST_INPUTS - len(given))
            given += [
                graph.weight(f"layers.{index}.{part}_scale", self._scale(f"layers.{index}.{part}"))
                for part in ("key", "value")
            ]
            scales = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
        graph.node("GroupQueryAttention", given, [result, *present], "com.microsoft", **{**options, **scales})
        if result != out:
            graph.node("Cast", [result], out, to=FLOAT)

    def _scale(self, half: str) -> Array:
        """(kv * hd,): what one step of a channel's codes is worth."""
        reach = self.seen[half].absmax
        return np.asarray(np.maximum(reach, max(float(reach.max(initial=0.0)) * 1e-3, 1e-6)) / 127.0, np.float32)
