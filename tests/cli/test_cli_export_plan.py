"""`edgegeo export --plan`: what an export would need, without doing it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_internvl import make_model as make_internvl
from tiny_internvl import save_checkpoint as save_internvl
from tiny_qwen import make_model, save_checkpoint

pytest.importorskip("transformers")


def test_plan_of_the_packaged_model(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = cli("export", "--plan", "--int8", "-o", out, "--json")
    assert done.code == 0
    assert done.json["fits"]
    assert {part["name"] for part in done.json["parts"]} >= {"vision", "trunk", "head", "embed_tokens"}
    assert 0 < done.json["weights_mb"] < done.json["memory_mb"]
    shown = cli("export", "--plan", "--int4", "-o", out).out
    assert "most memory" in shown
    assert "it fits" in shown
    assert not out.exists()


def test_plan_needs_no_weights_and_no_machine_that_holds_them(cli: Any, tmp_path: Path) -> None:
    """Gemma-3-27B from its configuration alone."""
    from transformers import Gemma3Config

    text = {"hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62, "num_attention_heads": 32,
            "num_key_value_heads": 16, "head_dim": 128, "vocab_size": 262208}  # fmt: skip
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
              "image_size": 896, "patch_size": 14}  # fmt: skip
    Gemma3Config(text_config=text, vision_config=vision).save_pretrained(tmp_path / "gemma")
    plan = cli("export", tmp_path / "gemma", "--plan", "--int4", "--json").json
    assert plan["parameters"] == pytest.approx(27.4e9, rel=0.01)
    assert plan["in_parts"]
    assert plan["weights_mb"] == pytest.approx(2 * plan["parameters"] / 2**20)
    assert plan["mapped"]
    assert not plan["roomy"]
    assert plan["layer_mb"] == pytest.approx(1500, rel=0.2)  # 0.4 G parameters a layer
    refused = cli("export", tmp_path / "gemma", "--int4", "-o", tmp_path / "out").refused()
    assert "GiB" in refused
    assert not (tmp_path / "out").exists()


def test_a_folder_without_configuration_is_refused(cli: Any, tmp_path: Path) -> None:
    shutil.copyfile(__file__, tmp_path / "notes.txt")
    assert "config.json" in cli("export", tmp_path, "--plan").refused()


def test_plan_says_how_long_pictures_are(cli: Any, tmp_path: Path) -> None:
    folder = save_checkpoint(make_model(), tmp_path / "qwen")
    plan = cli("export", folder, "--plan", "--json").json
    assert (plan["picture_positions"], plan["positions"]) == (16_384 + 2, 32_768)
    said = cli("export", folder, "--plan").out
    assert "long pictures: one may take 16,386 of 32,768 prompt positions, so two do not fit for re-ranking" in said
    assert "--max-pixels 1003520 bounds them" in said
    bounded = cli("export", folder, "--plan", "--max-pixels", 1_003_520).out
    assert "up to 1,282 of 32,768 prompt positions" in bounded
    assert "long pictures" not in bounded


def test_a_decoder_of_another_kind_is_refused_before_its_weights_are_read(cli: Any, tmp_path: Path) -> None:
    folder = save_internvl(make_internvl(), tmp_path / "internvl")
    config = json.loads((folder / "config.json").read_text())
    for kind in ("qwen3_moe", "gpt2"):
        text = config["text_config"] | {"model_type": kind}
        (folder / "config.json").write_text(json.dumps(config | {"text_config": text}))
        assert f"text model type '{kind}'" in cli("export", folder, "--plan").refused()
    config["text_config"]["rope_parameters"] = {"rope_type": "zigzag", "rope_theta": 1e4}
    (folder / "config.json").write_text(json.dumps(config))
    assert "rope type 'zigzag'" in cli("export", folder, "--plan").refused()
