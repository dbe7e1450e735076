"""A tiny real bundle with all three roles: random weights, 2 layers, 32 px pictures, a tokenizer trained on the spot.

Not a mock: real ONNX graphs with the contrib operators of the ort dialect, run by the real runtime. Build one with
`make_tiny_bundle(path)`, or take the `tiny_bundle` fixture (a path, built once a session).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.bundle import (
    SCHEMA_VERSION,
    Bundle,
    Component,
    EmbedRole,
    FileEntry,
    GenerateRole,
    ImageSpec,
    Manifest,
    PairQuestion,
    RerankRole,
    Roles,
    Segment,
    TrunkSpec,
    publish,
    staging,
)

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, LAYERS, FFN = 32, 2, 1, 16, 2, 64
SIZE, TOKENS, MAX_POSITIONS, QUERIES = 32, 4, 256, 3
SPECIALS = ["<pad>", "<bos>", "<eos>", "<image>"]
CORPUS = ["Yes no yes No a green field beside a river, houses with red roofs", "<answer>12.34, -56.78</answer>"] * 8
MICROSOFT = "com.microsoft"


def make_tiny_bundle(path: Path, pooling: str = "eos", seed: int = 0, name: str = "tiny") -> Bundle:
    """Write a tiny bundle to `path`; another seed is another model, so another embedding space."""
    from edgegeo.runtime.verify import golden_outputs

    rng = np.random.default_rng(seed)
    with staging(path) as folder:
        (folder / "onnx").mkdir()
        tokenizer = _tokenizer()
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "config.json").write_text(json.dumps({"model_type": "smolvlm"}))
        vocab = tokenizer.get_vocab_size()
        table = rng.normal(0, 1, (vocab, HIDDEN)).astype(np.float32)
        np.save(folder / "embed_tokens.npy", table.astype(np.float16))
        _save(_vision(rng), folder / "onnx" / "vision_encoder.onnx")
        _save(_trunk(rng), folder / "onnx" / "decoder_model_merged.onnx")
        head = table.T.copy()
        _save(_head(head), folder / "onnx" / "lm_head.onnx")
        yes = tuple(tokenizer.token_to_id(t) for t in ("Yes", "yes"))
        no = tuple(tokenizer.token_to_id(t) for t in ("No", "no"))
        np.save(folder / "head_rows.npy", np.ascontiguousarray(head.T[[*yes, *no]]))
        np.save(folder / "pair_rows.npy", np.ascontiguousarray(head.T[[yes[0], no[0]]]))
        if pooling == "queries":
            np.save(folder / "queries.npy", rng.normal(0, 1, (QUERIES, HIDDEN)).astype(np.float32))
        manifest = _manifest(name, vocab, tokenizer, yes, no, pooling)
        images = rng.integers(0, 256, (2, 40, 48, 3), dtype=np.uint8)
        draft = Bundle(folder, _with_files(manifest, folder), "")
        golden = golden_outputs(draft, images, ["a green field", "houses with red roofs beside a river"])
        np.savez(folder / "golden.npz", **golden)
        return publish(folder, manifest, path)


def _manifest(name: str, vocab: int, tokenizer: Any, yes: Any, no: Any, pooling: str) -> Manifest:
    def ids(*tokens: str) -> Segment:
        return Segment(ids=tuple(i for t in tokens for i in tokenizer.encode(t, add_special_tokens=False).ids))

    picture, text = Segment(image=0), Segment(text=0)
    embed = EmbedRole(
        vision="vision",
        trunk="trunk",
        text_prompt=(ids("<bos>"), text, ids("<eos>")),
        image_prompt=(ids("<bos>"), picture, ids("<eos>")),
        pooling=pooling,
        dim=HIDDEN,
        max_text_tokens=64,
        queries="queries.npy" if pooling == "queries" else None,
    )
    rerank = RerankRole(
        vision="vision",
        trunk="trunk",
        image_prompt=(ids("<bos>"), picture, ids(" beside "), Segment(image=1), ids(" yes no")),
        text_prompt=(ids("<bos>"), text, ids(" beside "), picture, ids(" yes no")),
        yes_ids=yes,
        no_ids=no,
        rows="head_rows.npy",
        image_prompt_turned=(ids("<bos>"), Segment(image=1), ids(" beside "), picture, ids(" yes no")),
        text_prompt_turned=(ids("<bos>"), picture, ids(" beside "), text, ids(" yes no")),
        pair=_pair_question(ids, yes, no),
    )
    generate = GenerateRole(
        vision="vision",
        trunk="trunk",
        head="head",
        prompt=(ids("<bos>"), picture, ids(" a")),
        stop_ids=(tokenizer.token_to_id("<eos>"),),
        max_new_tokens=12,
    )
    return Manifest(
        schema=SCHEMA_VERSION,
        name=name,
        family="smolvlm",
        dialect="ort",
        target="cpu",
        components={
            "vision": Component("vision", "onnx/vision_encoder.onnx", "fp32"),
            "trunk": Component("trunk", "onnx/decoder_model_merged.onnx", "fp32"),
            "head": Component("head", "onnx/lm_head.onnx", "fp32"),
        },
        image=_image_spec(),
        trunk=TrunkSpec(LAYERS, KV_HEADS, HEAD_DIM, HIDDEN, vocab, MAX_POSITIONS),
        roles=Roles(embed, rerank, generate),
        tokenizer="tokenizer.json",
        embed_tokens="embed_tokens.npy",
        golden="golden.npz",
        accuracy={},
        calibration={},
        source={"checkpoint": "random"},
        tools={},
    )


def _pair_question(ids: Any, yes: Any, no: Any) -> PairQuestion:
    picture, second, third = (Segment(image=i) for i in range(3))
    return PairQuestion(
        image_prompt=(ids("<bos>"), picture, ids(" beside "), second, third, ids(" a")),
        text_prompt=(ids("<bos>"), Segment(text=0), ids(" beside "), picture, second, ids(" a")),
        first_ids=yes[:1],
        second_ids=no[:1],
        rows="pair_rows.npy",
    )


def _image_spec() -> ImageSpec:
    half = (0.5,) * 3
    return ImageSpec("smolvlm", SIZE, 1, 1 / 255, half, half, tokens=TOKENS, longest_edge=SIZE)


def _with_files(manifest: Manifest, folder: Path) -> Manifest:
    from dataclasses import replace

    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return replace(manifest, files={n: FileEntry((folder / n).stat().st_size, "") for n in names})


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([w for text in CORPUS for w in [text, *text.split()]], trainer)
    return tokenizer


class _Graph:
    """Collects nodes and weights of one ONNX graph."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, array: Any) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def random(self, name: str, *shape: int) -> str:
        return self.weight(name, self.rng.normal(0, 1 / np.sqrt(shape[0]), shape).astype(np.float32))

    def node(self, op: str, inputs: list[str], outputs: list[str] | str, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def model(self, inputs: dict[str, tuple[Any, list[Any]]], outputs: dict[str, tuple[Any, list[Any]]]) -> Any:
        from onnx import helper

        ends = [[helper.make_tensor_value_info(n, *kind) for n, kind in side.items()] for side in (inputs, outputs)]
        graph = helper.make_graph(self.nodes, "tiny", ends[0], ends[1], self.weights)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _save(model: Any, path: Path) -> None:
    import onnx

    onnx.save(model, str(path), save_as_external_data=True, location=path.name + "_data", size_threshold=256)


def _vision(rng: np.random.Generator) -> Any:
    from onnx import TensorProto

    g = _Graph(rng)
    patches = g.node("Conv", ["pixel_values", g.random("w", HIDDEN, 3, 16, 16)], "patches", strides=[16, 16])
    flat = g.node("Reshape", [patches, g.weight("shape", np.array([0, HIDDEN, TOKENS], np.int64))], "flat")
    turned = g.node("Transpose", [flat], "turned", perm=[0, 2, 1])
    g.node("Tanh", [turned], "image_features")
    return g.model(
        {"pixel_values": (TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])},
        {"image_features": (TensorProto.FLOAT, ["batch", TOKENS, HIDDEN])},
    )


def _head(weights: Any) -> Any:
    from onnx import TensorProto

    g = _Graph(np.random.default_rng(0))
    g.node("MatMul", ["hidden_states", g.weight("lm_head", weights)], "logits")
    return g.model(
        {"hidden_states": (TensorProto.FLOAT, ["batch", "asked", HIDDEN])},
        {"logits": (TensorProto.FLOAT, ["batch", "asked", weights.shape[1]])},
    )


def _trunk(rng: np.random.Generator) -> Any:
    from onnx import TensorProto

    g = _Graph(rng)
    one = g.weight("one", np.array([1], np.int64))
    total = g.node("ReduceSum", ["attention_mask", one], "mask_sum", keepdims=0)
    g.node("Cast", [g.node("Sub", [total, one], "mask_less")], "seqlens_k", to=TensorProto.INT32)
    shape = g.node("Shape", ["attention_mask"], "mask_shape")
    length = g.node("Gather", [shape, g.weight("index", np.array(1, np.int64))], "mask_length")
    g.node("Cast", [length], "total", to=TensorProto.INT32)
    angle = np.arange(MAX_POSITIONS)[:, None] / 10_000 ** (np.arange(HEAD_DIM // 2)[None] / (HEAD_DIM // 2))
    g.weight("cos", np.cos(angle).astype(np.float32))
    g.weight("sin", np.sin(angle).astype(np.float32))
    x = "inputs_embeds"
    for i in range(LAYERS):
        x = _layer(g, i, x)
    final = g.node("SimplifiedLayerNormalization", [x, _ones(g, "norm")], "final", axis=-1, epsilon=1e-5)
    where = g.node("Unsqueeze", ["positions", g.weight("last", np.array([-1], np.int64))], "where")
    g.node("GatherND", [final, where], "hidden_states", batch_dims=1)
    inputs: dict[str, tuple[Any, list[Any]]] = {
        "inputs_embeds": (TensorProto.FLOAT, ["batch", "sequence", HIDDEN]),
        "attention_mask": (TensorProto.INT64, ["batch", "total"]),
        "positions": (TensorProto.INT64, ["batch", "asked"]),
    }
    outputs: dict[str, tuple[Any, list[Any]]] = {"hidden_states": (TensorProto.FLOAT, ["batch", "asked", HIDDEN])}
    for i in range(LAYERS):
        for part in ("key", "value"):
            inputs[f"past_key_values.{i}.{part}"] = (TensorProto.FLOAT, ["batch", KV_HEADS, "past", HEAD_DIM])
            outputs[f"present.{i}.{part}"] = (TensorProto.FLOAT, ["batch", KV_HEADS, "present", HEAD_DIM])
    return g.model(inputs, outputs)


def _ones(g: _Graph, name: str) -> str:
    return g.weight(name, np.ones(HIDDEN, np.float32))


def _layer(g: _Graph, i: int, x: str) -> str:
    p = f"l{i}."
    width = (HEADS + 2 * KV_HEADS) * HEAD_DIM
    normed = g.node("SimplifiedLayerNormalization", [x, _ones(g, p + "n1w")], p + "n1", axis=-1, epsilon=1e-5)
    qkv = g.node("MatMul", [normed, g.random(p + "qkvw", HIDDEN, width)], p + "qkv")
    past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
    g.node(
        "GroupQueryAttention",
        [qkv, "", "", *past, "seqlens_k", "total", "cos", "sin"],
        [p + "att", f"present.{i}.key", f"present.{i}.value"],
        domain=MICROSOFT,
        num_heads=HEADS,
        kv_num_heads=KV_HEADS,
        do_rotary=1,
    )
    out = g.node("MatMul", [p + "att", g.random(p + "ow", HEADS * HEAD_DIM, HIDDEN)], p + "o")
    x = g.node("Add", [x, out], p + "r1")
    normed = g.node("SimplifiedLayerNormalization", [x, _ones(g, p + "n2w")], p + "n2", axis=-1, epsilon=1e-5)
    up = g.node("MatMul", [normed, g.random(p + "uw", HIDDEN, FFN)], p + "u")
    down = g.node("MatMul", [g.node("Tanh", [up], p + "act"), g.random(p + "dw", FFN, HIDDEN)], p + "d")
    return g.node("Add", [x, down], p + "r2")
