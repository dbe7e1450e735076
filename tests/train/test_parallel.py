"""Two processes train as one does: the same losses, the same adapter."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("peft")


def words(verb: str, base_folder: Path, data: Any, out: Path) -> list[str]:
    given = ["-m", "edgegeo", "train", verb, "-o", out, "--checkpoint", base_folder, "--cache", data.cache, "--places",
             "8", "--steps", "3", "--batch", "5", "--threads", "1", "--lr", "0.01"]  # fmt: skip
    for setting in ("data.validation=4", "schedule.validate_every=3", "lora.rank=2", "memory.dtype=fp32",
                    "lora.dropout=0", "schedule.warmup=1"):  # fmt: skip
        given += ["--set", setting]
    if verb == "retriever":
        for setting in ("learn_temperature=true", "hard=0.5", "mine_every=1"):
            given += ["--set", setting]
    return [str(word) for word in given]


def losses(out: Path) -> list[float]:
    lines = (out.with_name(f"{out.name}.run") / "diary.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]


def launched(given: list[str]) -> None:
    """As `accelerate launch` sets the stage: one process a rank, told by environment variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        told = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
        started.append(
            subprocess.Popen([sys.executable, *given], env=os.environ | told, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said


@pytest.mark.parametrize("verb", ["retriever", pytest.param("gps", marks=pytest.mark.slow)])
def test_two_processes_are_one(verb: str, base_folder: Path, data: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    subprocess.run([sys.executable, *words(verb, base_folder, data, tmp_path / "one")], check=True)
    launched(words(verb, base_folder, data, tmp_path / "two"))
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 3
    assert one[0] != one[-1]
    assert two == pytest.approx(one, abs=2e-5)
    weights = [load_file(str(tmp_path / name / "adapter_model.safetensors")) for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.abs(weights[0][name] - weights[1][name]).max() < 2e-3 for name in weights[0])


@pytest.mark.slow
def test_the_real_launcher(base_folder: Path, data: Any, tmp_path: Path) -> None:
    given = words("retriever", base_folder, data, tmp_path / "two")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
                "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
    subprocess.run([*launcher, *given], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    subprocess.run([sys.executable, *words("retriever", base_folder, data, tmp_path / "one")], check=True)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-5)
