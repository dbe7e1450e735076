"""Large models keep their stored type and still compute in float32; damaged files are told before they are loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edgegeo.errors import CheckpointError
from edgegeo.models import weights
from edgegeo.models.adapters import probe
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.weights import shared_view, stored_weights, widen_as_it_runs


@pytest.fixture
def halved(folder: Path) -> Any:
    """The tiny checkpoint with bfloat16 weights, and the same weights in float32."""
    checkpoint = load_checkpoint(folder)
    model = checkpoint.model.to(torch.bfloat16)
    exact = shared_view(model)
    for owner in exact.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                owner._parameters[name] = torch.nn.Parameter(parameter.float(), requires_grad=False)
    return checkpoint, model, exact


@pytest.mark.parametrize("block", [1, 4000, 1 << 30])
def test_widened_modules_compute_what_float32_weights_compute(
    halved: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is widened at a time: single matrices, some layers, or the whole model."""
    checkpoint, model, exact = halved
    monkeypatch.setattr(weights, "BLOCK_BYTES", block)
    widen_as_it_runs(model)
    widen_as_it_runs(model)  # once more changes nothing
    got = probe(model, checkpoint.family, checkpoint.image)
    assert got.dtype == torch.float32
    assert torch.allclose(got, probe(exact, checkpoint.family, checkpoint.image), atol=1e-5)
    with torch.no_grad():
        states = torch.randn(2, got.shape[-1])
        assert torch.allclose(
            checkpoint.family.parts(model).head(states), checkpoint.family.parts(exact).head(states), atol=1e-5
        )


def test_widening_leaves_the_stored_matrices_as_they_are(halved: Any) -> None:
    checkpoint, model, _ = halved
    widen_as_it_runs(model)
    probe(model, checkpoint.family, checkpoint.image)
    kinds = {p.dtype for p in model.parameters() if p.ndim == 2}
    assert kinds == {torch.bfloat16}
    assert model.get_input_embeddings().padding_idx == checkpoint.config.text_config.pad_token_id


def test_a_module_that_fails_puts_its_weights_back(halved: Any) -> None:
    checkpoint, model, _ = halved
    widen_as_it_runs(model)
    layer = checkpoint.family.parts(model).text.layers[0].mlp
    with pytest.raises(RuntimeError):
        layer(torch.zeros(1, 3))  # another width
    assert layer.up_proj.weight.dtype == torch.bfloat16


def test_a_view_shares_every_tensor_but_not_its_modules(folder: Path) -> None:
    model = load_checkpoint(folder).model
    view = shared_view(model)
    assert {id(p) for p in view.parameters()} == {id(p) for p in model.parameters()}
    assert not {id(m) for m in view.modules()} & {id(m) for m in model.modules()}
    assert view.lm_head.weight is view.get_input_embeddings().weight


def sharded(folder: Path, tmp_path: Path) -> Path:
    from shutil import copytree

    copy = Path(copytree(folder, tmp_path / "sharded"))
    (copy / "model.safetensors").unlink()
    load_checkpoint(folder).model.save_pretrained(copy, max_shard_size="40KB")
    assert len(list(copy.glob("model-*.safetensors"))) > 2
    return copy


def test_headers_tell_what_is_stored(folder: Path, tmp_path: Path) -> None:
    model = load_checkpoint(folder).model
    one, many = stored_weights(folder), stored_weights(sharded(folder, tmp_path))
    assert one.parameters == many.parameters == sum(p.numel() for p in model.parameters())
    assert (one.bytes, one.dtype, one.lean) == (2 * one.parameters, torch.float16, False)
    assert (many.bytes, many.dtype) == (4 * one.parameters, torch.float32)


def test_large_models_stay_as_stored_and_compute_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = load_checkpoint(folder)
    monkeypatch.setattr(weights, "FULL_BYTES", 0)
    lean = load_checkpoint(folder)
    assert weights.is_lean(lean.model)
    assert lean.model.lm_head.weight.dtype == torch.float16
    assert torch.allclose(
        probe(lean.model, lean.family, lean.image), probe(full.model, full.family, full.image), atol=1e-5
    )


def test_a_missing_shard_is_named(folder: Path, tmp_path: Path) -> None:
    copy = sharded(folder, tmp_path)
    gone = sorted(copy.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(CheckpointError, match=rf"lacks {gone.name}, which .*index\.json names"):
        stored_weights(copy)
    with pytest.raises(CheckpointError, match=f"lacks {gone.name}"):
        load_checkpoint(copy)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_cut_off_shard_is_named(folder: Path, tmp_path: Path, keep: int) -> None:
    copy = sharded(folder, tmp_path)
    cut = sorted(copy.glob("model-*.safetensors"))[0]
    cut.write_bytes(cut.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=rf"{cut.name} .*(cut off|no safetensors file)"):
        load_checkpoint(copy)


def test_an_index_that_is_no_index(folder: Path, tmp_path: Path) -> None:
    copy = sharded(folder, tmp_path)
    (copy / weights.INDEX).write_text(json.dumps({"weight_map": 3}))
    with pytest.raises(CheckpointError, match=r"index\.json can't be read"):
        stored_weights(copy)


def test_packed_types_are_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(CheckpointError, match="F8_E4M3 weights; save the model as bfloat16"):
        stored_weights(tmp_path)
