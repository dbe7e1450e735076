"""benchmarks/decoding.py in small: both ways write the given answer, and every ratio comes out."""

import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_decoding_comparison_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import decoding
    import true_size

    from edgegeo.models.checkpoint import packaged_checkpoint

    vision: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
                              "num_attention_heads": 2, "image_size": 64, "patch_size": 16}  # fmt: skip
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1100, "max_position_embeddings": 2048,
            "eos_token_id": 2}  # fmt: skip
    monkeypatch.setattr(true_size, "VISION", vision)
    monkeypatch.setattr(true_size, "TEXT", {**true_size.TEXT, **text})
    (tmp_path / "bundle").mkdir()
    model, picture = decoding._true_size(tmp_path / "bundle", packaged_checkpoint() / "tokenizer.json", 1)
    bench = decoding.Bench(decoding.Generator(model), picture, decoding.ANSWERS["smolvlm-256m"])
    rows = [*decoding.measure(bench, 2), *decoding.captions(bench, 1)]
    assert len(rows) == 9
    assert all(one > 0 and other > 0 and ratio > 0 for _, one, other, ratio in rows)
    assert "geo-caption of" in rows[-1][0]
    decoding.write(tmp_path, "small", {"threads": 1}, rows, {})
    assert len(json.loads((tmp_path / "decoding_small.json").read_text())["rows"]) == 9
    assert "| plain greedy by grammar and forced tokens |" in (tmp_path / "decoding_small.md").read_text()
