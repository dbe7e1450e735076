"""Pre-training end to end on a tiny world."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from invented import tiny_settings

from edgegeo.errors import TrainingError
from edgegeo.train.pretrain import partners, train_base


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(folder / "model.safetensors"))


def test_the_folder_is_a_whole_checkpoint(base_folder: Path) -> None:
    from edgegeo.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(base_folder)
    assert checkpoint.settings.planet_seed == 2026
    assert type(checkpoint.model).__name__ == "SmolVLMForConditionalGeneration"
    assert all(value.dtype is torch.float16 for value in _weights(base_folder).values())
    assert "scale" not in "".join(_weights(base_folder))


def test_a_resumed_run_gives_the_same_weights(base_folder: Path, data: Any, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def after_one(stage: str, done: int, total: int) -> None:
        if stage == "pre-training" and done == 1:
            raise Stop

    with pytest.raises(Stop):
        train_base(tiny_settings(tmp_path, data), after_one)
    train_base(tiny_settings(tmp_path, data, resume=True))
    whole, resumed = _weights(base_folder), _weights(tmp_path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_resuming_with_other_settings_is_refused(base_folder: Path, data: Any) -> None:
    with pytest.raises(TrainingError, match=r"other settings \(lr\)"):
        train_base(tiny_settings(base_folder, data, resume=True, lr=1.0))


def test_nothing_to_resume_is_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        train_base(tiny_settings(tmp_path, data, resume=True))


def test_the_diary_holds_losses_and_scores(base_folder: Path) -> None:
    lines = [json.loads(line) for line in (base_folder / "state" / "diary.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2
    assert {"text_tile", "gps", "pair", "photo_recall_at_1", "gps_answered"} <= set(lines[-1])


def test_partners_are_own_or_other_as_said() -> None:
    likeness = torch.eye(6)[:4]
    for seed in range(5):
        other, same = partners(likeness, np.random.default_rng(seed))
        assert np.array_equal(other.numpy() == np.arange(4), same)
