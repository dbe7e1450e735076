"""Runs: killed and resumed they are the run that wasn't, and other settings don't pass for the same run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invented import quick

from edgegeo.errors import TrainingError
from edgegeo.train.gps import train_gps
from edgegeo.train.retriever import train_retriever
from edgegeo.train.running import steps_of
from edgegeo.train.settings import GpsSettings, Lora, RetrieverSettings, Schedule

pytest.importorskip("peft")
SMALL = Lora(rank=2, alpha=16, dropout=0.1)


def curve(out: Path) -> list[dict[str, float]]:
    lines = (out.with_name(f"{out.name}.run") / "diary.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds_per_step"} for line in lines]


def stopped_at(settings: Any, step: int) -> None:
    """Run until the step is done, then fail as a full disk or a kill would."""

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "adapting" and done == step:
            raise KeyboardInterrupt

    train = train_retriever if isinstance(settings, RetrieverSettings) else train_gps
    with pytest.raises(KeyboardInterrupt):
        train(settings, progress)


@pytest.mark.parametrize("kind", [RetrieverSettings, GpsSettings])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_resumed_run_has_the_same_curve_and_weights(
    kind: Any, step: int, base_folder: Path, data: Any, tmp_path: Path
) -> None:
    plan = quick(steps=5, validate_every=2, save_every=2)
    train = train_retriever if kind is RetrieverSettings else train_gps
    settings = kind(out=tmp_path / "whole", checkpoint=base_folder, data=data, lora=SMALL, schedule=plan)
    whole = train(settings)
    broken = replace(settings, out=tmp_path / "broken")
    stopped_at(broken, step)
    if step < 2:
        with pytest.raises(TrainingError, match="nothing to resume"):
            train(replace(broken, schedule=replace(plan, resume=True)))
        return
    again = train(replace(broken, schedule=replace(plan, resume=True)))
    assert curve(broken.out) == curve(settings.out)
    assert (again.best_step, again.validation) == (whole.best_step, whole.validation)
    files = [out / "adapter_model.safetensors" for out in (settings.out, broken.out)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_other_settings_are_another_run(base_folder: Path, data: Any, tmp_path: Path) -> None:
    settings = GpsSettings(out=tmp_path / "x", checkpoint=base_folder, data=data, lora=SMALL, schedule=quick())
    train_gps(settings)
    with pytest.raises(TrainingError, match="lr"):
        train_gps(replace(settings, lr=1.0, schedule=quick(resume=True)))
    with pytest.raises(TrainingError, match="schedule"):
        train_gps(replace(settings, schedule=quick(resume=True, batch=2)))


def test_epochs_count_passes() -> None:
    assert steps_of(Schedule(epochs=2.0, batch=10), 95) == 19
    assert steps_of(Schedule(steps=7), 95) == 7


@pytest.mark.slow
def test_kill_nine_loses_nothing(base_folder: Path, data: Any, tmp_path: Path) -> None:
    """The same through the command line and a real kill, at whatever moment it comes."""
    words = [sys.executable, "-m", "edgegeo", "train", "gps", "--checkpoint", str(base_folder), "--cache",
             str(data.cache), "--places", "8", "--steps", "30", "--batch", "4", "--threads", "1", "--set",
             "data.validation=4", "--set", "schedule.save_every=3", "--set", "schedule.validate_every=10", "--set",
             "lora.rank=2"]  # fmt: skip
    subprocess.run([*words, "-o", str(tmp_path / "whole")], check=True, capture_output=True)
    broken = tmp_path / "broken"
    first = subprocess.Popen([*words, "-o", str(broken)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = tmp_path / "broken.run" / "state.json"
    while not state.is_file() or json.loads(state.read_text())["step"] < 9:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    subprocess.run([*words, "-o", str(broken), "--resume"], check=True, capture_output=True)
    assert curve(broken) == curve(tmp_path / "whole")
    files = [out / "adapter_model.safetensors" for out in (tmp_path / "whole", broken)]
    assert files[0].read_bytes() == files[1].read_bytes()
