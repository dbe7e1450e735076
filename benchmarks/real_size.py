"""Families at real size: stage parity, sizes, export time and peak memory, with random weights in true configurations.

    python benchmarks/real_size.py                                   every family that fits, int8 and int4
    python benchmarks/real_size.py --family qwen2.5-vl-3b --precision int4 --scratch /data/tmp

Each family x precision is exported in a process of its own, so that its peak memory is its own; rows of earlier runs
are kept. Weights are random: parity says that the graphs compute what transformers computes, not that answers are good.
Writes benchmarks/results/real_size.json and .md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgegeo.measure import available_mb, machine

RESULTS = Path(__file__).parent / "results"
FAMILIES = ("smolvlm-256m", "internvl3.5-1b", "qwen2.5-vl-3b", "gemma-3-4b")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default=",".join(FAMILIES))
    parser.add_argument("--precision", default="int8,int4")
    parser.add_argument("--scratch", type=Path, help="where weights stay for the next run; about 4 bytes a parameter")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=3, metavar=("FAMILY", "PRECISION", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_export(*options.one)))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "real_size.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"rows": []}
    for family in options.family.split(","):
        with _scratch(options.scratch) as scratch:
            checkpoint = scratch / family
            if not any(checkpoint.glob("*.safetensors")):
                _run(["-c", f"import true_families as t, pathlib as p; t.write_checkpoint({family!r}, "
                            f"p.Path({str(checkpoint)!r}))"])  # fmt: skip
            for precision in options.precision.split(","):
                row = _measured(family, precision, checkpoint)
                if file.is_file():  # another run may have added a row meanwhile
                    found = json.loads(file.read_text())
                kept = [r for r in found["rows"] if (r["family"], r["precision"]) != (family, precision)]
                found = {"machine": machine(), "versions": _versions(), "rows": sorted([*kept, row], key=_order)}
                file.write_text(json.dumps(found, indent=1) + "\n")
                (options.output / "real_size.md").write_text(_page(found))
                print(f"{family} {precision}: {row['seconds']:.0f} s, peak {row['peak_mb']:,.0f} MB", flush=True)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A named folder keeps its checkpoints for the next run; without a name nothing stays."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="real-size-") as made:
        yield Path(made)


def _export(family: str, precision: str, folder: str) -> dict[str, Any]:
    """Export a checkpoint with the family's preset; runs in a process of its own."""
    import true_families

    from edgegeo.export import export
    from edgegeo.recipe import TokenBudget, preset

    from dataclasses import replace  # isort: skip

    recipe = replace(preset(precision), calibration_samples=1)
    if family.startswith("qwen"):
        # The checkpoints' own bound is 16,384 image tokens, which no edge device could bear.
        recipe = replace(recipe, image=TokenBudget(max_pixels=100 * 28 * 28))
    report = export(Path(folder), recipe, Path(f"{folder}-{precision}"), places=0)
    plain = report.to_dict()
    rows = {section: {r["name"]: r for r in plain["rows"] if r["section"] == section} for section in (
        "size", "parity", "time", "memory", "latency")}  # fmt: skip
    whole = {name: row["before"] for name, row in rows["parity"].items() if row["before"] is not None}
    parts = {name: row["value"] for name, row in rows["parity"].items() if name.endswith("fp32 graph")}
    return {
        "family": family, "title": true_families.FAMILIES[family].title, "precision": precision,
        "bytes": plain["bytes"], "export_s": plain["seconds"], "stage_peak_mb": plain["peak_mb"],
        "fp32_parity": parts or whole,
        "parity": {n: r["value"] for n, r in rows["parity"].items() if n not in parts},
        "sizes_mb": {n: r["value"] for n, r in rows["size"].items()},
        "stage_s": {n: r["value"] for n, r in rows["time"].items()},
        "stage_mb": {n: r["value"] for n, r in rows["memory"].items()},
        "latency_ms": {n: r["value"] for n, r in rows["latency"].items()},
        "preview": plain.get("preview"), "notes": plain.get("notes", []),
    }  # fmt: skip


def _measured(family: str, precision: str, checkpoint: Path) -> dict[str, Any]:
    before = available_mb()
    command = [sys.executable, __file__, "--one", family, precision, str(checkpoint)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent)
    assert child.stdout is not None
    private: list[float] = []
    watcher = threading.Thread(target=_watch, args=(child.pid, private), daemon=True)
    watcher.start()
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{family} {precision}: the export ended with code {child.returncode}")
    row: dict[str, Any] = json.loads(out.splitlines()[-1])
    row["parameters"] = _parameters(checkpoint)
    row["checkpoint_mb"] = sum(f.stat().st_size for f in checkpoint.glob("*.safetensors")) / 2**20
    row |= {"seconds": row["export_s"], "peak_mb": row["stage_peak_mb"], "available_before_mb": before}
    row["private_mb"] = max(private, default=0.0)
    row["cpu_s"] = usage.ru_utime + usage.ru_stime
    shutil.rmtree(f"{checkpoint}-{precision}", ignore_errors=True)
    return row


def _watch(process: int, found: list[float]) -> None:
    """Private memory of a process in MB, five times a second: what it needs without the pages of mapped files."""
    while True:
        try:
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    found.append(int(line.split()[1]) / 1024)
        except OSError:
            return
        time.sleep(0.2)


def _parameters(checkpoint: Path) -> int:
    from edgegeo.models.weights import stored_weights

    return stored_weights(checkpoint).parameters


def _run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, cwd=Path(__file__).parent)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "onnx", "onnxruntime")}


def _order(row: dict[str, Any]) -> tuple[int, str]:
    return (FAMILIES.index(row["family"]) if row["family"] in FAMILIES else len(FAMILIES), row["precision"])


def _page(found: dict[str, Any]) -> str:
    lines = [
        "# Families at real size", "",
        "Random bfloat16 weights in the published configurations (`python benchmarks/real_size.py`). Stage parity:",
        "the least cosine of the fp32 graphs with transformers in float32 arithmetic. End to end: cosine of the",
        "quantised bundle's image embedding with transformers; random weights are pessimistic there. Peak: resident",
        "memory of the whole exporting process; most of it are mapped weights of checkpoint and bundle, which the",
        "system takes back when it needs the room: private memory is what must be free. Export: everything from",
        "loading to reading the finished bundle back.",
        "", f"{found['machine']['cpu']}, {found['machine']['cores']} cores, shared with other work; "
        + ", ".join(f"{k} {v}" for k, v in found["versions"].items()) + ".", "",
        "| family | parameters | precision | fp32 stage parity | image embedding | checkpoint MB | bundle MB "
        "| export s | CPU s | peak MB | private MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in found["rows"]:
        stage = min(value for name, value in row["fp32_parity"].items() if _is_cosine(name))
        end = row["parity"].get("image embedding", float("nan"))
        private = f"{row['private_mb']:,.0f}" if "private_mb" in row else "-"
        lines.append(
            f"| {row['title']} | {row['parameters'] / 1e6:,.0f} M | {row['precision']} "
            f"| {_shown('logits', stage)} | {end:.4f} "
            f"| {row['checkpoint_mb']:,.0f} | {row['bytes'] / 2**20:,.0f} | {row['export_s']:,.0f} "
            f"| {row['cpu_s']:,.0f} | {row['stage_peak_mb']:,.0f} | {private} |"
        )
    lines += ["", "## Stages", "", "| family | precision | stage | s | peak MB |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        for name, took in row["stage_s"].items():
            lines.append(
                f"| {row['title']} | {row['precision']} | {name} | {took:,.0f} | {row['stage_mb'][name]:,.0f} |"
            )
    lines += ["", "## Parity by stage", "", "| family | precision | stage | value |", "|---|---|---|---|"]
    for row in found["rows"]:
        for name, value in row["fp32_parity"].items():
            lines.append(f"| {row['title']} | fp32 | {name} | {_shown(name, value)} |")
        for name, value in row["parity"].items():
            lines.append(f"| {row['title']} | {row['precision']} | {name} | {value:.4f} |")
    return "\n".join(lines) + "\n"


def _shown(name: str, value: float) -> str:
    return f"1 - {max(1 - value, 0):.0e}" if _is_cosine(name) else f"{value:.2g}"


def _is_cosine(name: str) -> bool:
    return name.endswith("fp32 graph") or name in (
        "image tokens", "text embedding", "image embedding", "trunk, padded batch", "trunk, continued", "logits"
    )  # fmt: skip


if __name__ == "__main__":
    main()
