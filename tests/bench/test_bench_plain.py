"""benchmarks/plain_export.py in small: the exporter's graphs are transformers' own model before anybody is timed."""

import re
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_plain_graphs_take_part_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch 1 and 32, a prefill, and steps behind a past: `Contest.run` lets no float32 graph differ by over 1e-3."""
    pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import true_size
    from contest import Contest

    vision: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
                              "num_attention_heads": 2, "image_size": 64, "patch_size": 16}  # fmt: skip
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "max_position_embeddings": 256,
            "eos_token_id": 2}  # fmt: skip
    monkeypatch.setattr(true_size, "VISION", vision)
    monkeypatch.setattr(true_size, "TEXT", {**true_size.TEXT, **text})
    contest = Contest("small", {})
    true_size.compare(contest, ["fp32"], tmp_path, threads=1, repeats=1, plain=True)
    assert len(contest.rows) == 7 * 4
    assert {row["contestant"] for row in contest.rows} > {"plain export fp32", "plain export int8"}
    agreement = {row["contestant"]: row["agreement"] for row in contest.rows}
    assert agreement["plain export fp32"] > 0.999999 > agreement["plain export int8"]
    assert [name for name in contest.settings if re.fullmatch(r"plain export .* exported and loaded in s", name)]
    for kind, matrices in {"vision": 7, "decoder": 7, "head": 1}.items():
        nodes = onnx.load(tmp_path / "plain" / f"{kind}_int8.onnx", load_external_data=False).graph.node
        assert sum(node.op_type == "MatMulInteger" for node in nodes) == matrices
