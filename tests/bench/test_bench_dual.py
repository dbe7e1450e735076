"""benchmarks/dual_encoders.py in small: every kind of model is checked against transformers and timed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL: dict[str, Any] = {"num_hidden_layers": 1, "intermediate_size": 64, "hidden_size": 32, "num_attention_heads": 2}


def test_dual_encoders_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import dual_encoders
    import torch

    text = {**SMALL, "vocab_size": 30_000, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    sizes = {name: (name, {"text_config": text, "vision_config": vision}) for name in ("clip", "siglip")}
    sizes["clip"][1]["text_config"] = {**text, "eos_token_id": 29_999}
    monkeypatch.setattr(dual_encoders, "SIZES", sizes)
    words = ["x", "--models", "clip,siglip", "--threads", "1", "--repeats", "2", "-o", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    threads = torch.get_num_threads()
    dual_encoders.main()
    torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "dual_encoders_1_threads.json").read_text())["rows"]
    assert [row["job"] for row in rows[::3]] == [f"{n}: {w}" for n in sizes for w in ("a text", "a picture, 32 px")]
    assert {row["contestant"] for row in rows} == {"transformers eager fp32", "edgegeo fp32", "edgegeo int8"}
