"""Runs: killed and resumed they are the run that wasn't, and other settings don't pass for the same run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from invented import quick, tiny_settings

from edgegeo.errors import TrainingError
from edgegeo.train.diary import Diary, read_diary
from edgegeo.train.gps import train_gps
from edgegeo.train.masters import Masters
from edgegeo.train.parallel import World
from edgegeo.train.pretrain import train_base
from edgegeo.train.reranker import train_reranker
from edgegeo.train.retriever import train_retriever
from edgegeo.train.running import Run, finite, passed, run_folder, steps_of, writing
from edgegeo.train.settings import GpsSettings, Lora, RerankerSettings, RetrieverSettings, Schedule

pytest.importorskip("peft")
SMALL = Lora(rank=2, alpha=16, dropout=0.1)
TRAIN: dict[Any, Any] = {
    RetrieverSettings: train_retriever, RerankerSettings: train_reranker, GpsSettings: train_gps,
}  # fmt: skip


def curve(out: Path) -> list[dict[str, float]]:
    lines = (out.with_name(f"{out.name}.run") / "diary.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds_per_step"} for line in lines]


def stopped_at(settings: Any, step: int) -> None:
    """Run until the step is done, then fail as a full disk or a kill would."""

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "adapting" and done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TRAIN[type(settings)](settings, progress)


@pytest.mark.parametrize("kind", list(TRAIN))
@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_resumed_run_has_the_same_curve_and_weights(
    kind: Any, step: int, base_folder: Path, data: Any, tmp_path: Path
) -> None:
    plan = quick(steps=5, validate_every=2, save_every=2)
    train = TRAIN[kind]
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


def test_a_diary_that_a_full_disk_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    file = tmp_path / "diary.jsonl"
    file.write_text('{"loss": 2.0, "step": 1}\n{"loss": 1.5, "step": 2}\n{"loss": 1.2, "st')
    Diary(file, until=1).write(2, loss=1.4)
    assert [(entry["step"], entry["loss"]) for entry in read_diary(file)] == [(1, 2.0), (2, 1.4)]


@pytest.mark.parametrize("content", ["", "[]", '{"step": 4}', '{"step": 4, "facts": {}, "best": {}, "before": {}}'])
def test_a_damaged_state_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(content)
    job: Any = SimpleNamespace(facts={}, masters=None)
    with pytest.raises(TrainingError, match=r"is damaged .*; move the folder away and start anew"):
        Run(tmp_path, job, World()).open(resume=True)
    (tmp_path / "state.json").write_text('{"step": 4, "facts": {}, "best": {}, "before": {}, "best_step": 2}')
    (tmp_path / "state-000004.safetensors").write_bytes(b"cut off")
    job.masters = Masters([("a", torch.nn.Parameter(torch.zeros(2)))], 0.1, 0.0)
    with pytest.raises(TrainingError, match=r"is damaged"):
        Run(tmp_path, job, World()).open(resume=True)


def test_other_settings_are_another_run(base_folder: Path, data: Any, tmp_path: Path) -> None:
    settings = GpsSettings(out=tmp_path / "x", checkpoint=base_folder, data=data, lora=SMALL, schedule=quick())
    train_gps(settings)
    with pytest.raises(TrainingError, match="lr"):
        train_gps(replace(settings, lr=1.0, schedule=quick(resume=True)))
    with pytest.raises(TrainingError, match="schedule"):
        train_gps(replace(settings, schedule=quick(resume=True, batch=2)))


def test_epochs_count_passes() -> None:
    assert steps_of(Schedule(epochs=2.0, batch=10), 95) == 19
    assert steps_of(Schedule(epochs=1.0, batch=10), 91) == 10
    assert steps_of(Schedule(epochs=3.0, batch=100), 40) == 3
    assert steps_of(Schedule(steps=7), 95) == 7


@pytest.mark.parametrize(("batch", "total"), [(4, 12), (5, 12), (12, 12), (50, 12), (1, 3)])
def test_every_pass_takes_everything_once(batch: int, total: int) -> None:
    taken = np.concatenate([passed(number, batch, total, seed=3) for number in range(3 * total)])
    passes = taken.reshape(-1, total)
    assert (np.sort(passes, axis=1) == np.arange(total)).all()
    assert total < 4 or not (passes[0] == passes[1]).all()
    assert not total < batch or len(passed(0, batch, total, 3)) == total
    assert np.array_equal(passed(5, batch, total, 3), passed(5, batch, total, 3))
    assert total < 4 or not np.array_equal(passes[0], np.concatenate([passed(n, 1, total, 4) for n in range(total)]))


def test_an_account_names_what_a_run_follows_from(base_folder: Path, data: Any, tmp_path: Path) -> None:
    """And what was kept is the best on validation places, weights and scores alike."""
    plan = quick(steps=6, seed=9)
    settings = RetrieverSettings(
        out=tmp_path / "x",
        checkpoint=base_folder,
        data=data,
        lora=SMALL,
        schedule=plan,
        lr=0.05,
        method="slq",
        queries=2,
    )
    report = train_retriever(settings)
    account = json.loads((tmp_path / "x.run" / "run.json").read_text())
    assert account["schedule"]["seed"] == account["facts"]["schedule"]["seed"] == 9
    assert {"edgegeo", "torch", "transformers", "peft", "numpy"} <= set(account["versions"])
    assert account["machine"]["python"]
    hashes = {account["facts"][name] for name in ("train", "validation", "base")}
    assert {len(one) for one in hashes} == {64}
    assert len(hashes) == 3
    assert (tmp_path / "x.run" / "run.png").stat().st_size > 5000
    scores = {e["step"]: (e["text_recall_at_1"] + e["photo_recall_at_1"]) / 2 for e in curve(settings.out) if e["step"]}
    assert report.best_step == max(scores, key=lambda step: (scores[step], step))
    shorter = replace(settings, out=tmp_path / "y", schedule=replace(plan, validate_every=report.best_step))
    train_retriever(shorter)
    best = [out.with_name(f"{out.name}.run") / "best.safetensors" for out in (settings.out, shorter.out)]
    from safetensors.numpy import load_file

    kept, again = load_file(best[0]), load_file(best[1])
    assert float(kept["step/retriever.queries"]) == report.best_step
    if float(again["step/retriever.queries"]) == report.best_step:
        assert np.array_equal(kept["weight/retriever.queries"], again["weight/retriever.queries"])
    assert np.array_equal(load_file(settings.out / "slq.safetensors")["queries"], kept["weight/retriever.queries"])


def test_another_base_of_the_same_name_is_another_run(base_folder: Path, data: Any, tmp_path: Path) -> None:
    copied = tmp_path / base_folder.name
    shutil.copytree(base_folder, copied)
    settings = GpsSettings(out=tmp_path / "x", checkpoint=copied, data=data, lora=SMALL, schedule=quick())
    train_gps(settings)
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copied / "model.safetensors").write_bytes(weights)
    with pytest.raises(TrainingError, match="base"):
        train_gps(replace(settings, schedule=quick(resume=True)))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_folder(out, resume=False) == tmp_path / "out.run"
    with pytest.raises(TrainingError, match="nothing to resume"):
        run_folder(out, resume=True)
    out.mkdir()
    assert run_folder(out, resume=False) == tmp_path / "out.run"
    (out / "slq.safetensors").touch()
    with pytest.raises(TrainingError, match="not empty"):
        run_folder(out, resume=False)
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "state.json").touch()
    with pytest.raises(TrainingError, match="--resume goes on"):
        run_folder(out, resume=False)
    assert run_folder(out, resume=True) == tmp_path / "out.run"
    with pytest.raises(TrainingError, match="is a file"):
        run_folder(out / "slq.safetensors", resume=True)


def test_a_base_is_not_written_over(base_folder: Path, data: Any) -> None:
    with pytest.raises(TrainingError, match="holds a checkpoint"):
        train_base(tiny_settings(base_folder, data))


def test_a_full_disk_and_a_lost_loss_are_told(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(TrainingError, match="can't write"), writing(tmp_path):
        save_file({"x": np.zeros(3)}, str(tmp_path / "none" / "x.safetensors"))
    with pytest.raises(TrainingError, match="No space left"), writing(tmp_path):
        raise OSError(28, "No space left on device")
    for lost in (float("nan"), float("inf")):
        with pytest.raises(TrainingError, match="no longer a number"):
            finite(lost)


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
