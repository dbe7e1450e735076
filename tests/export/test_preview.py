"""The preview: near what an export then really needs, from little more than config.json, and refused early."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import CheckpointError, DeviceError
from edgegeo.export import export
from edgegeo.export import preview as room
from edgegeo.export.preview import check_room, preview
from edgegeo.models import weights
from edgegeo.recipe import preset


def test_sizes_are_near_the_real_ones(checkpoint: Path, source: Any, tmp_path: Path) -> None:
    from edgegeo.export.pipeline import export_source

    for precision in ("int8", "int4"):
        seen = preview(checkpoint, preset(precision), tmp_path / "out", {"embed": checkpoint / "adapters" / "gps-lora"})
        assert [part.name for part in seen.parts] == ["vision", "trunk", "trunk_embed", "trunk_generate", "head",
                                                     "embed_tokens"]  # fmt: skip
        assert seen.parameters == sum(p.numel() for p in source.checkpoint.model.parameters())
        assert (seen.in_parts, seen.dtype, seen.fits) == (False, "float32", True)
    export_source(source, preset("int4"), tmp_path / "made", places=0)
    bundle = open_bundle(tmp_path / "made")
    sizes = {part.name: part.megabytes * 2**20 for part in preview(checkpoint, preset("int4"), tmp_path / "x").parts}
    for name in ("trunk", "trunk_generate", "head"):
        assert written(bundle, name) == pytest.approx(sizes[name], rel=0.5, abs=60_000)  # node names weigh much here


def written(bundle: Bundle, name: str) -> int:
    file, files = bundle.manifest.components[name].file, bundle.manifest.files
    return sum(files[n].bytes for n in (file, f"{file}_data") if n in files)


def test_config_json_is_enough(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    shutil.copyfile(checkpoint / "config.json", tmp_path / "only" / "config.json")
    seen = preview(tmp_path / "only", preset("int8"), tmp_path / "out")
    assert seen.dtype == "bfloat16"
    assert [part.name for part in seen.parts] == ["vision", "trunk", "head", "embed_tokens"]
    assert seen.to_dict()["fits"] is True


def test_large_models_are_counted_as_stored(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = preview(checkpoint, preset("int8"), tmp_path / "out")
    monkeypatch.setattr(room, "FULL_BYTES", 0)
    monkeypatch.setattr(weights, "FULL_BYTES", 0)
    lean = preview(checkpoint, preset("int8"), tmp_path / "out")
    assert lean.in_parts
    assert not whole.in_parts
    assert lean.mapped
    assert not whole.mapped
    assert lean.weights_mb < whole.weights_mb
    assert lean.disk_mb < whole.disk_mb


def test_too_little_memory_is_told_before_any_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = preview(checkpoint, preset("int8"), tmp_path / "out").memory_mb
    monkeypatch.setattr(room, "available_mb", lambda: need - 0.001)
    stages: list[str] = []

    def watch(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    with pytest.raises(DeviceError, match=r"needs about .* GiB of memory \(comparing\).*use --int4.*or --force"):
        export(checkpoint, preset("int8"), tmp_path / "out", places=0, progress=watch)
    assert not stages
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(room, "available_mb", lambda: 10.0)
    with pytest.raises(DeviceError, match=r"; use a machine with .*, a smaller model, or --force"):
        check_room(checkpoint, preset("int4"), tmp_path / "out")
    assert not check_room(checkpoint, preset("int4"), tmp_path / "out", force=True).fits


def test_too_little_disk_is_told_before_any_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 9, 1000))  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match=r"of disk and 0\.0 GiB are free beside the output.*choose another place"):
        check_room(checkpoint, preset("int8"), tmp_path / "not" / "there" / "yet")


def test_the_preview_is_part_of_the_report(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    report = export(checkpoint, preset("int8"), tmp_path / "out", places=0, announce=seen.append)
    assert report.preview == seen[0].to_dict()
    assert {row.name for row in report.rows if row.section == "time"} >= {"load and merge", "write fp32", "write int8"}


def test_impossible_configurations_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    config = (checkpoint / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"hidden_size": 64', '"hidden_size": "wide"'))
    with pytest.raises(CheckpointError, match=r"config\.json (is no usable configuration|describes no model)"):
        preview(tmp_path, preset("int8"), tmp_path / "out")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="this edgegeo knows"):
        preview(tmp_path, preset("int8"), tmp_path / "out")
