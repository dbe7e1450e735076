"""The picture of a run."""

import json
from pathlib import Path

import pytest
from PIL import Image

from edgegeo.train.plot import plot_run

pytest.importorskip("matplotlib")


def test_a_diary_becomes_a_png(tmp_path: Path) -> None:
    entries = [
        {"step": 0, "text_recall_at_1": 0.2},
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.0, "text_recall_at_1": 0.5},
    ]
    (tmp_path / "diary.jsonl").write_text("".join(f"{json.dumps(e)}\n" for e in entries))
    plot_run(tmp_path / "diary.jsonl", tmp_path / "run.png", "a run")
    with Image.open(tmp_path / "run.png") as picture:
        assert picture.format == "PNG"
        assert len(set(picture.convert("RGB").resize((60, 40)).get_flattened_data())) > 10
