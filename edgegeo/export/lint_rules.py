"""What TensorRT's parsers refuse, or take and then run slowly: one function a rule.

Sources: the operators that TensorRT's ONNX parser documents (onnx-tensorrt, docs/operators.md), the developer guide
("Working with quantized types"), and what TensorRT-RTX 1.7 made of graphs of this project.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from edgegeo.export.blocks import FEWEST_HEADS, FUSED_HEADS
from edgegeo.export.explicit import TRT_BLOCKS
from edgegeo.export.lint_graph import GEMMS, LintGraph, attribute, optional_input, type_name

Fault = tuple[str, str]
"""Node or tensor, and what is wrong with it."""
Check = Callable[[LintGraph, "Subset"], Iterator[Fault]]

PORTABLE = frozenset(
    """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization
    HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    MatMul Max MaxPool Mean Min Mod Mul Neg Not Or Pad Pow PRelu QuantizeLinear Range Reciprocal ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round ScatterElements ScatterND Shape Sigmoid Sign Sin Size
    Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905
)
"""Operators of TensorRT 10.3, without control flow."""
MODERN = PORTABLE | {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"}
"""Operators of TensorRT 10.15 and newer."""
TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64, TensorProto.INT32,
     TensorProto.INT8, TensorProto.INT4, TensorProto.BOOL, TensorProto.UINT8}
)  # fmt: skip
"""Types of tensors that all versions have; `unsigned` says where uint8 may not stand."""
EIGHT_BIT_FLOAT = frozenset({TensorProto.FLOAT8E4M3FN})


@dataclass(frozen=True)
class Subset:
    """What a range of TensorRT versions takes."""

    covers: str
    """The oldest version."""
    opset: int
    """Newest opset of a graph without 4-bit weights; those need 21 everywhere."""
    operators: frozenset[str]
    types: frozenset[int]


@dataclass(frozen=True)
class Rule:
    """A check and what to do about what it finds."""

    name: str
    remedy: str
    check: Check


def operators(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Only operators that the parser has."""
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            yield node.name, f"{node.op_type} of {node.domain}"
        elif node.op_type not in subset.operators:
            yield node.name, node.op_type


def opset(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Not newer than the parser knows."""
    four_bits = any(tensor.data_type == TensorProto.INT4 for tensor in graph.constants.values())
    most = max(subset.opset, 21) if four_bits else subset.opset
    if (found := graph.opsets.get("ai.onnx", 0)) > most:
        yield "the graph", f"opset {found}, {subset.covers} reads up to {most}"


def types(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """No tensor of a type that TensorRT does not have."""
    for name, kind in graph.types.items():
        if kind and kind not in subset.types:
            yield name, type_name(kind)


def unsigned(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Quantised tensors are int8, INT4 or, where it is known, FP8."""
    signed = {TensorProto.INT8, TensorProto.INT4, *(EIGHT_BIT_FLOAT & subset.types)}
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        name = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        kind = graph.types.get(name, 0)
        if kind not in signed and kind != TensorProto.INT32:
            yield node.name, f"quantised to {type_name(kind)}"


def zero_points(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Quantisation is symmetric."""
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        if name := optional_input(node, 2):
            value = graph.value(name)
            if value is None or np.asarray(value, np.float32).any():
                yield node.name, "its zero point is computed" if value is None else "its zero point is not 0"


def integer_bias(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Biases are not quantised."""
    for node in graph.of("DequantizeLinear"):
        if graph.types.get(node.input[0]) == TensorProto.INT32:
            yield node.name, "an int32 bias"


def scales(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Scales are constants, finite and above 0."""
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        value = graph.value(node.input[1])
        if value is None:
            yield node.name, "its scale is computed or can't be read"
        elif not (np.isfinite(value).all() and (value > 0).all()):
            yield node.name, f"its scale goes down to {float(value.min()):g}"


def scale_types(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Scales are float16: their type is what the product is computed in."""
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        kind = graph.types.get(node.input[1], 0)
        if kind != TensorProto.FLOAT16:
            yield node.name, f"its scale is {type_name(kind)}"
        elif graph.opsets.get("ai.onnx", 0) < 19:
            yield node.name, f"float16 scales need opset 19, the graph has {graph.opsets.get('ai.onnx', 0)}"


def activation_scales(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Activations have one scale a tensor."""
    for node in graph.of("QuantizeLinear"):
        value = graph.value(node.input[1])
        if value is not None and value.size != 1:
            yield node.name, f"{value.size} scales for an activation"


def column_scales(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """int8 weights have one scale an output channel: along the last axis of a MatMul, the first of a Conv."""
    for node in graph.of("DequantizeLinear"):
        if not graph.is_weight(node) or graph.types.get(node.input[0]) != TensorProto.INT8:
            continue
        dims, scale = graph.shape(node.input[0]), graph.value(node.input[1])
        for reader in graph.readers.get(node.output[0], []):
            axis = _channel_axis(reader, len(dims))
            given = attribute(node, "axis", 1) % max(len(dims), 1)
            if scale is not None and axis is not None and (scale.size != dims[axis] or given != axis):
                yield node.name, f"{scale.size} scales along axis {given} of {dims}, read by a {reader.op_type}"


def four_bit_blocks(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """INT4 weights (K, N): blocks of 64 or 128 along axis 0, N even."""
    for node in graph.of("DequantizeLinear"):
        if graph.types.get(node.input[0]) not in (TensorProto.INT4, TensorProto.UINT4) or not graph.is_weight(node):
            continue
        dims, block = graph.shape(node.input[0]), attribute(node, "block_size", 0)
        if len(dims) != 2 or attribute(node, "axis", 1) != 0:
            yield node.name, f"4-bit weights {dims} along axis {attribute(node, 'axis', 1)}"
        elif block not in TRT_BLOCKS:
            yield node.name, f"4-bit blocks of {block or 'a whole column'}"
        elif dims[0] % block or dims[1] % 2:
            yield node.name, f"4-bit weights {dims} in blocks of {block}"
        if optional_input(node, 2):
            yield node.name, "4-bit weights with zero points"


def eight_bit_blocks(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """int8 has no blocks."""
    for node in graph.of("DequantizeLinear", "QuantizeLinear"):
        if attribute(node, "block_size", 0) and graph.types.get(node.input[0]) not in (
            TensorProto.INT4, TensorProto.UINT4,
        ):  # fmt: skip
            yield node.name, f"8-bit blocks of {attribute(node, 'block_size', 0)}"


def beside_the_product(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Nothing stands between Q, DQ and the product: TensorRT fuses them only side by side (TensorRT issue 4832)."""
    for node in graph.of("QuantizeLinear"):
        others = [r.op_type for r in graph.readers.get(node.output[0], []) if r.op_type != "DequantizeLinear"]
        if others or not graph.readers.get(node.output[0]):
            yield node.name, f"read by {', '.join(others) or 'nothing'} instead of a DequantizeLinear"
    for node in graph.of("DequantizeLinear"):
        readers = graph.readers.get(node.output[0], [])
        wrong = [reader.op_type for reader in readers if reader.op_type not in GEMMS]
        if wrong or not readers:
            yield node.name, f"read by {', '.join(wrong) or 'nothing'} instead of a product"
        if not graph.is_weight(node) and _writer_of(graph, node.input[0]) != "QuantizeLinear":
            yield node.name, f"reads a {_writer_of(graph, node.input[0]) or 'graph input'} instead of a QuantizeLinear"


def float_attention(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Products of two activations are not quantised: in int8 a ViT's attention is slower and loses most."""
    for node in graph.of("MatMul"):
        sides = [graph.writer.get(name) for name in node.input]
        if any(name in graph.constants for name in node.input):
            continue
        dequantised = [side for side in sides if side is not None and side.op_type == "DequantizeLinear"]
        if dequantised and not any(graph.is_weight(side) for side in dequantised):
            yield node.name, "a product of two activations is quantised"


def half_attention(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """Attention, and softmax where most matrices are not fp32, are float16: fused kernels exist for that only."""
    for node in graph.of("Attention"):
        if graph.types.get(node.input[0]) == TensorProto.FLOAT:
            yield node.name, "Attention in float32, which has no kernel"
    multiplied = [
        graph.types.get(name) for node in graph.of("MatMul") for name in node.input if name in graph.constants
    ]
    packed = sum(graph.is_weight(node) for node in graph.of("DequantizeLinear"))
    if packed + multiplied.count(TensorProto.FLOAT16) <= multiplied.count(TensorProto.FLOAT):
        return
    for node in graph.of("Softmax"):
        if graph.types.get(node.input[0]) == TensorProto.FLOAT:
            yield node.name, "softmax in float32"


def head_sizes(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """The Attention operator has kernels for 4 heads or more, of multiples of 8 from 16 to 256."""
    for node in graph.of("Attention"):
        # Keys are (B, heads, T, size), or (B, T, heads x size) where the operator is told how many heads there are.
        size = graph.size(node.input[1]) // attribute(node, "kv_num_heads", 1)
        if size and size not in FUSED_HEADS:
            yield node.name, f"Attention over heads of {size}"
        count = attribute(node, "q_num_heads", 0) or graph.size(node.input[0], 1)
        if 0 < count < FEWEST_HEADS:
            yield node.name, f"Attention over {count} heads"


def one_type(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """In a strongly typed network both sides of a product or a sum have one type; nothing is cast in silence."""
    for node in graph.of("MatMul", "Gemm", "Add", "Sub", "Mul", "Div", "Concat", "Attention", "RotaryEmbedding"):
        # The fourth inputs of Attention and RotaryEmbedding, a mask and positions, may be of other types.
        names = list(node.input)[:3] if node.op_type in ("Attention", "RotaryEmbedding") else node.input
        kinds = dict.fromkeys(kind for name in names if (kind := graph.types.get(name, 0)))
        if len(kinds) > 1:
            yield node.name, f"{node.op_type} of {' and '.join(map(type_name, kinds))}"


def attention_caches(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """The Attention operator without past, present, soft-capping or a precision of its own."""
    for node in graph.of("Attention"):
        past = [name for place in (4, 5) if (name := optional_input(node, place))]
        present = [name for name in list(node.output)[1:] if name]
        if past or present:
            yield node.name, "Attention with past or present"
        if attribute(node, "softcap", 0.0):
            yield node.name, "Attention with soft-capping"
        if attribute(node, "softmax_precision"):
            yield node.name, "Attention with softmax_precision"


def scattered_caches(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """TensorScatter writes in place: from an input of fixed length to an output of the graph, never around the end."""
    inputs, outputs = ({value.name for value in values} for values in (graph.inputs, graph.outputs))
    for node in graph.of("TensorScatter"):
        if node.input[0] not in inputs:
            yield node.name, f"its cache {node.input[0]} is no input of the graph"
        elif not graph.size(node.input[0], attribute(node, "axis", -2)):
            yield node.name, f"its cache {node.input[0]} is of free length"
        if node.output[0] not in outputs:
            yield node.name, f"its result {node.output[0]} is no output of the graph"
        if (mode := attribute(node, "mode", b"linear").decode()) != "linear":
            yield node.name, f"TensorScatter in mode {mode}"


def resizing(graph: LintGraph, subset: Subset) -> Iterator[Fault]:
    """No antialiased Resize."""
    for node in graph.of("Resize"):
        if attribute(node, "antialias", 0):
            yield node.name, "an antialiased Resize"


def _channel_axis(reader: NodeProto, rank: int) -> int | None:
    if reader.op_type == "MatMul":
        return rank - 1
    if reader.op_type == "Gemm":
        return 0 if attribute(reader, "transB", 0) else 1
    return 0 if reader.op_type == "Conv" else None


def _writer_of(graph: LintGraph, name: str) -> str:
    writer = graph.writer.get(name)
    return str(writer.op_type) if writer is not None else ""


RULES = (
    Rule("operator", "write it in standard operators, as edgegeo.export.blocks does", operators),
    Rule("opset", "export with --target tensorrt, or lint for --target tensorrt-modern", opset),
    Rule("type", "cast it, or export at another precision", types),
    Rule("signed", "quantise to int8 or INT4", unsigned),
    Rule("zero-point", "quantise symmetrically, around 0", zero_points),
    Rule("bias", "keep biases in float16 or float32", integer_bias),
    Rule("scale", "raise it above 0; calibrate on samples that reach the layer", scales),
    Rule("scale-type", "store scales in float16, at opset 19 or newer", scale_types),
    Rule("activation-scale", "one scale for the whole activation", activation_scales),
    Rule("weight-scale", "one scale an output channel", column_scales),
    Rule("int4-block", "blocks of 64 or 128 along K, N even, no zero point; other matrices in int8", four_bit_blocks),
    Rule("int8-block", "one scale an output channel", eight_bit_blocks),
    Rule("adjacent", "put Q and DQ directly before the product they belong to", beside_the_product),
    Rule("attention-int8", "leave attention unquantised", float_attention),
    Rule("attention-half", "compute attention in float16", half_attention),
    Rule("attention-heads", "write attention over such heads in standard operators", head_sizes),
    Rule("one-type", "cast one side", one_type),
    Rule("attention-cache", "write attention with a cache in standard operators", attention_caches),
    Rule(
        "cache-scatter",
        "make the cache an input of fixed length and an output, or join it by Concat",
        scattered_caches,
    ),
    Rule("resize", "resize before the graph", resizing),
)
