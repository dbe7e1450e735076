"""The linter: every graph of ours passes, and every rule has a graph that breaks just it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from every_graph import FAMILIES, PRECISIONS, family_parts, part_graph
from onnx import TensorProto, helper, numpy_helper

from edgegeo.errors import BundleError, InputError, VerificationError
from edgegeo.export import lint
from edgegeo.export.graph import FLOAT, Graph
from edgegeo.export.linear import Storage, linear
from edgegeo.export.lint import SUBSETS, lint_file, lint_model
from edgegeo.export.lint_rules import RULES
from edgegeo.recipe import DIALECTS

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_graph_of_every_family_passes(family: str, tmp_path: Path) -> None:
    for part in family_parts(family, tmp_path / family).values():
        for precision in PRECISIONS:
            model = part_graph(part, precision, ranges=precision == "int8").model()
            assert lint_model(model) == (), (part.kind, precision)
            modern = part_graph(part, precision, ranges=precision == "int8", dialect="trt-modern").model()
            for one in (model, modern):
                assert lint_model(one, "tensorrt-modern") == (), (part.kind, precision)


def clean(precision: str = "int8", opset: int = 0) -> Any:
    """x (B, S, 128) through one matrix as `linear` writes it, with the activation quantised in int8."""
    graph = Graph("one", "trt", precision)
    x = graph.input("x", FLOAT, ["batch", "rows", 128])
    storage = Storage(precision, block_size=64, ranges={"y": (-3.0, 3.0)})
    linear(graph, x, RNG.normal(size=(128, 6)).astype(np.float32), np.ones(6, np.float32), "y", storage)
    graph.output("y", FLOAT, ["batch", "rows", 6])
    model = graph.model()
    if opset:
        model.opset_import[0].version = opset
    return model


def node(model: Any, name: str) -> Any:
    return next(one for one in model.graph.node if one.name == name)


def set_weight(model: Any, name: str, value: Any, kind: int | None = None) -> None:
    old = next(one for one in model.graph.initializer if one.name == name)
    if kind is None:
        old.CopyFrom(numpy_helper.from_array(np.asarray(value), name))
    else:
        old.CopyFrom(helper.make_tensor(name, kind, np.shape(value), np.ravel(value)))


def set_attribute(model: Any, name: str, key: str, value: Any) -> None:
    one = node(model, name)
    kept = [attribute for attribute in one.attribute if attribute.name != key]
    del one.attribute[:]
    one.attribute.extend([*kept, helper.make_attribute(key, value)])


def contrib(model: Any) -> None:
    node(model, "y").domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def unknown(model: Any) -> None:
    node(model, "y").op_type = "NonZero"


def newer(model: Any) -> None:
    model.opset_import[0].version = 23


def doubles(model: Any) -> None:
    model.graph.node.append(helper.make_node("Cast", ["x"], ["wide"], name="wide", to=TensorProto.DOUBLE))
    model.graph.output.append(helper.make_tensor_value_info("wide", TensorProto.DOUBLE, None))


def unsigned(model: Any) -> None:
    set_weight(model, "y.input_zero_point", np.array(0, np.uint8))


def off_centre(model: Any) -> None:
    set_weight(model, "y.input_zero_point", np.array(3, np.int8))


def quantised_bias(model: Any) -> None:
    set_weight(model, "y.bias", np.ones(6, np.int32))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.01, np.float16), "bias_scale"))
    made = helper.make_node("DequantizeLinear", ["y.bias", "bias_scale"], ["bias"], name="bias")
    model.graph.node.insert(0, made)
    node(model, "y.sum").input[1] = "bias"


def zero_scale(model: Any) -> None:
    set_weight(model, "y.weight_scale", np.array([1, 1, 0, 1, 1, 1], np.float16))


def negative_scale(model: Any) -> None:
    set_weight(model, "y.weight_scale", np.array([1, 1, -1, 1, 1, 1], np.float16))


def wide_scales(model: Any) -> None:
    set_weight(model, "y.weight_scale", np.ones(6, np.float32))


def old_half_scales(model: Any) -> None:
    model.opset_import[0].version = 18


def channel_activation(model: Any) -> None:
    for name in ("y.input_int8", "y.input"):
        set_attribute(model, name, "axis", 2)
    set_weight(model, "y.input_scale", np.ones(128, np.float16))
    set_weight(model, "y.input_zero_point", np.zeros(128, np.int8))


def one_weight_scale(model: Any) -> None:
    set_weight(model, "y.weight_scale", np.array(0.1, np.float16))


def row_scales(model: Any) -> None:
    set_attribute(model, "y.weight", "axis", 0)
    set_weight(model, "y.weight_scale", np.ones(128, np.float16))


def small_blocks(model: Any) -> None:
    set_attribute(model, "y.weight", "block_size", 32)
    set_weight(model, "y.weight_scale", np.ones((4, 6), np.float16))


def block_zero_points(model: Any) -> None:
    model.graph.initializer.append(helper.make_tensor("zeros", TensorProto.INT4, (2, 6), np.zeros(12, np.int8)))
    node(model, "y.weight").input.append("zeros")


def odd_columns(model: Any) -> None:
    set_weight(model, "y.weight_int4", np.zeros((128, 5), np.int8), TensorProto.INT4)
    set_weight(model, "y.weight_scale", np.ones((2, 5), np.float16))
    set_weight(model, "y.bias", np.ones(5, np.float16))
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 5


def eight_bit_blocks(model: Any) -> None:
    model.opset_import[0].version = 21
    set_attribute(model, "y.weight", "block_size", 64)
    set_attribute(model, "y.weight", "axis", 0)
    set_weight(model, "y.weight_scale", np.ones((2, 6), np.float16))


def transposed_between(model: Any) -> None:
    node(model, "y.product").input[1] = "turned"
    turned = helper.make_node("Transpose", ["y.weight"], ["turned"], name="turned", perm=[0, 1])
    model.graph.node.insert(3, turned)


def reshaped_between(model: Any) -> None:
    node(model, "y.input").input[0] = "shaped"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 128], np.int64), "shape"))
    model.graph.node.insert(2, helper.make_node("Reshape", ["y.input_int8", "shape"], ["shaped"], name="shaped"))


def quantised_attention(model: Any) -> None:
    made = [
        helper.make_node("Transpose", ["x.half"], ["keys"], name="keys", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["y.input", "keys"], ["scores"], name="scores"),
    ]
    model.graph.node.extend(made)


def wide_softmax(model: Any) -> None:
    model.graph.node.append(helper.make_node("Softmax", ["y"], ["soft"], name="soft", axis=-1))


def two_types(model: Any) -> None:
    set_weight(model, "y.bias", np.ones(6, np.float32))


def cached_attention(model: Any) -> None:
    made = helper.make_node("Attention", ["h", "h", "h", "", "h", "h"], ["a", "pk", "pv"], name="a")
    model.graph.node.extend([helper.make_node("Unsqueeze", ["x.half", "axes"], ["h"], name="h"), made])
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    model.opset_import[0].version = 23


def capped_attention(model: Any) -> None:
    cached_attention(model)
    del node(model, "a").input[3:], node(model, "a").output[1:]
    set_attribute(model, "a", "softcap", 30.0)


def fused(model: Any, size: int = 16, kind: int = TensorProto.FLOAT16, heads: int = 4) -> None:
    """Attention as the modern form writes it, over a cache that TensorScatter writes."""
    dims = ["batch", heads, "rows", size]
    for name in ("q", "k", "v"):
        model.graph.input.append(helper.make_tensor_value_info(name, kind, dims))
    model.graph.input.append(helper.make_tensor_value_info("past", kind, ["batch", heads, 64, size]))
    for name, shape in (("a", dims), ("present", ["batch", heads, 64, size])):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    model.graph.node.append(helper.make_node("Attention", ["q", "k", "v"], ["a"], name="a", scale=1.0))
    model.graph.node.append(helper.make_node("TensorScatter", ["past", "k"], ["present"], name="write", axis=2))
    model.opset_import[0].version = 24
    model.ir_version = 13


def wide_attention(model: Any) -> None:
    fused(model, kind=FLOAT)


def odd_heads(model: Any) -> None:
    fused(model, size=20)


def odd_heads_together(model: Any) -> None:
    fused(model, size=80)
    for name in ("q_num_heads", "kv_num_heads"):
        set_attribute(model, "a", name, 4)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in "qkva":
            del value.type.tensor_type.shape.dim[1]


def few_heads(model: Any) -> None:
    fused(model, heads=3)


def precise_softmax(model: Any) -> None:
    fused(model)
    set_attribute(model, "a", "softmax_precision", 1)


def half_values(model: Any) -> None:
    fused(model)
    node(model, "a").input[2] = "x"


def inner_cache(model: Any) -> None:
    fused(model)
    model.graph.node.insert(0, helper.make_node("Neg", ["past"], ["minus"], name="minus"))
    node(model, "write").input[0] = "minus"


def inner_result(model: Any) -> None:
    fused(model)
    model.graph.node.append(helper.make_node("Neg", ["present"], ["minus"], name="minus"))
    model.graph.output[-1].name = "minus"


def free_cache(model: Any) -> None:
    fused(model)
    dim = next(value for value in model.graph.input if value.name == "past").type.tensor_type.shape.dim[2]
    dim.dim_param = "length"


def circular(model: Any) -> None:
    fused(model)
    set_attribute(model, "write", "mode", "circular")


def antialiased(model: Any) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2], np.float32), "factors"))
    made = helper.make_node("Resize", ["x", "", "factors"], ["r"], name="r", mode="linear", antialias=1)
    model.graph.node.append(made)


Break = Callable[[Any], None]
CASES: list[tuple[str, str, Break, str, str]] = [
    ("operator", "int8", contrib, "y", "Cast of com.microsoft"),
    ("operator", "int8", unknown, "y", "NonZero"),
    ("opset", "int8", newer, "the graph", "opset 23, TensorRT 10.3 reads up to 20"),
    ("type", "int8", doubles, "wide", "double"),
    ("signed", "int8", unsigned, "y.input_int8", "quantised to uint8"),
    ("zero-point", "int8", off_centre, "y.input", "not 0"),
    ("bias", "int8", quantised_bias, "bias", "int32"),
    ("scale", "int8", zero_scale, "y.weight", "down to 0"),
    ("scale", "int8", negative_scale, "y.weight", "down to -1"),
    ("scale-type", "int8", wide_scales, "y.weight", "its scale is float"),
    ("scale-type", "int8", old_half_scales, "y.weight", "need opset 19"),
    ("activation-scale", "int8", channel_activation, "y.input_int8", "128 scales"),
    ("weight-scale", "int8", one_weight_scale, "y.weight", "1 scales along axis 1"),
    ("weight-scale", "int8", row_scales, "y.weight", "128 scales along axis 0"),
    ("int4-block", "int4", small_blocks, "y.weight", "blocks of 32"),
    ("int4-block", "int4", block_zero_points, "y.weight", "zero points"),
    ("int4-block", "int4", odd_columns, "y.weight", "(128, 5)"),
    ("int8-block", "int8", eight_bit_blocks, "y.weight", "8-bit blocks of 64"),
    ("adjacent", "int8", transposed_between, "y.weight", "read by Transpose"),
    ("adjacent", "int8", reshaped_between, "y.input", "reads a Reshape"),
    ("attention-int8", "int8", quantised_attention, "scores", "two activations"),
    ("attention-half", "int8", wide_softmax, "soft", "float32"),
    ("one-type", "fp16", two_types, "y.sum", "Add of float16 and float"),
    ("attention-cache", "int8", cached_attention, "a", "past or present"),
    ("attention-cache", "int8", capped_attention, "a", "soft-capping"),
    ("resize", "int8", antialiased, "r", "antialiased"),
]


MODERN_CASES: list[tuple[str, Break, str, str]] = [
    ("attention-half", wide_attention, "a", "float32, which has no kernel"),
    ("attention-heads", odd_heads, "a", "heads of 20"),
    ("attention-heads", odd_heads_together, "a", "heads of 20"),
    ("attention-heads", few_heads, "a", "over 3 heads"),
    ("attention-cache", precise_softmax, "a", "softmax_precision"),
    ("one-type", half_values, "a", "Attention of float16 and float"),
    ("cache-scatter", inner_cache, "write", "its cache minus is no input"),
    ("cache-scatter", inner_result, "write", "its result present is no output"),
    ("cache-scatter", free_cache, "write", "of free length"),
    ("cache-scatter", circular, "write", "mode circular"),
]


@pytest.mark.parametrize(
    ("rule", "precision", "spoil", "name", "found"), CASES, ids=lambda one: getattr(one, "__name__", "")
)
def test_a_graph_that_breaks_a_rule(rule: str, precision: str, spoil: Break, name: str, found: str) -> None:
    model = clean(precision)
    assert lint_model(model) == ()
    spoil(model)
    told = [one for one in lint_model(model) if one.rule == rule]
    assert [one for one in told if one.node == name and found in one.found], told


def test_every_rule_has_such_a_graph() -> None:
    assert {rule.name for rule in RULES} == {case[0] for case in (*CASES, *MODERN_CASES)}
    assert all(rule.remedy and rule.check.__doc__ for rule in RULES)


@pytest.mark.parametrize(("rule", "spoil", "name", "found"), MODERN_CASES, ids=lambda one: getattr(one, "__name__", ""))
def test_a_modern_graph_that_breaks_a_rule(rule: str, spoil: Break, name: str, found: str) -> None:
    model = clean()
    spoil(model)
    told = lint_model(model, "tensorrt-modern")
    assert {one.rule for one in told} == {rule}
    assert [one for one in told if one.node == name and found in one.found], told


def test_the_modern_target_takes_newer_operators() -> None:
    model = clean()
    fused(model)
    assert {one.rule for one in lint_model(model)} == {"operator", "opset"}
    assert lint_model(model, "tensorrt-modern") == ()
    for target in ("orin", "cpu"):
        with pytest.raises(InputError, match=f"knows no target '{target}'; use tensorrt or tensorrt-modern"):
            lint_model(model, target)
    assert set(SUBSETS) == {target for target, dialect in DIALECTS.items() if dialect != "ort"}


def test_files_with_their_weights_beside_them(tmp_path: Path) -> None:
    """Scales that lie in the data file are read, the matrices are not."""
    graph = Graph("one", "trt", "int8")
    x = graph.input("x", FLOAT, ["batch", 1024])
    linear(graph, x, RNG.normal(size=(1024, 1100)).astype(np.float32), None, "y", Storage("int8"))
    graph.output("y", FLOAT, ["batch", 1100])
    graph.save(tmp_path / "one.onnx")
    assert (tmp_path / "one.onnx_data").stat().st_size > 1024 * 1100
    assert lint_file(tmp_path / "one.onnx") == ()
    model = onnx.load(tmp_path / "one.onnx", load_external_data=False)
    data = bytearray((tmp_path / "one.onnx_data").read_bytes())
    scale = next(one for one in model.graph.initializer if one.name == "y.weight_scale")
    start = int(next(entry.value for entry in scale.external_data if entry.key == "offset"))
    data[start : start + 2] = b"\0\0"
    (tmp_path / "one.onnx_data").write_bytes(data)
    assert [one.rule for one in lint_file(tmp_path / "one.onnx")] == ["scale"]
    with pytest.raises(VerificationError, match=r"one\.onnx breaks rules.*: \[scale\] y\.weight.*Nothing was"):
        lint.require(tmp_path / "one.onnx")
    (tmp_path / "one.onnx_data").unlink()
    with pytest.raises(BundleError, match="no valid ONNX graph"):
        lint_file(tmp_path / "one.onnx")


def test_graphs_for_onnxruntime_break_rules_instead_of_the_linter(tmp_path: Path) -> None:
    from tiny_decoders import make_decoder

    from edgegeo.export.trunk import build_trunk

    build_trunk(make_decoder("llama"), Storage("int8")).save(tmp_path / "ort.onnx")
    told = lint_file(tmp_path / "ort.onnx")
    assert {"operator", "opset"} <= {one.rule for one in told}
    assert any("GroupQueryAttention of com.microsoft" in one.found for one in told)


def test_what_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"x\.onnx is no valid ONNX graph"):
        lint_file(tmp_path / "x.onnx")
    with pytest.raises(BundleError, match=r"y\.onnx can't be read"):
        lint_file(tmp_path / "y.onnx")
