"""How far each stage is from what this machine's processor allows, and which operators take the rest.

    python benchmarks/roofline.py                                   the packaged model, int8
    python benchmarks/roofline.py --bundle .peers/smolvlm-256m/int8 --bundle .peers/smolvlm-256m/fp32
    python benchmarks/roofline.py --bundle NEW --before OLD         and what a change of the export or runtime brought

Ceilings are measured on the spot: bytes read a second, and products by onnxruntime's own kernels, by number of threads.
A stage's limit is the longer of its multiplications at those peaks (attention in float32) and of its weights, keys and
values at that bandwidth (`edgegeo plan` counts both); preprocessing's is Pillow's decoding alone. Each stage is timed
as its fastest run, as the ceilings are. Operators: onnxruntime's own profile, the fastest run of each node, added up.
Writes benchmarks/results/roofline_<bundle>.json and .md.
"""

import argparse
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.field.ceilings import SIDE, bandwidth, gemm, measure_here
from edgegeo.field.device import Device
from edgegeo.field.plan import bound
from edgegeo.field.subject import Subject, subject_of
from edgegeo.field.work import Work, head_work, text_work, vision_work
from edgegeo.measure import machine, time_in_turn, time_job
from edgegeo.runtime import Model, open_image, prepare_picture
from edgegeo.runtime.sessions import default_threads
from edgegeo.runtime.trunk import Head, Trunk, TrunkInput

RESULTS = Path(__file__).parent / "results"
PROMPT = 124
PHOTO = (1600, 1200)
TOLD = 4
"""Kinds of operators named on the page for each stage."""


class Stage(NamedTuple):
    """One stage: what it computes, and how to run it once."""

    name: str
    component: str
    work: Work
    run: Callable[[Any], Callable[[], object]]
    """Session -> job."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, action="append", help="exported bundles; none: the packaged model, int8")
    parser.add_argument("--before", type=Path, help="the same model as it was exported earlier, timed in turn")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--seconds", type=float, default=2.0, help="for each ceiling")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    ceilings, device = measure(options.threads, options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        for path in options.bundle or [packaged(Path(folder) / "pocket-int8")]:
            bundle = open_bundle(path)
            before = open_bundle(options.before) if options.before else None
            rows = measured(bundle, before, device, options.threads, options.repeats, Path(folder))
            name = f"{path.parent.name}-{path.name}" if options.bundle else path.name
            document = {
                "bundle": name, "machine": machine(), "threads": options.threads, "repeats": options.repeats,
                "load average": load, "ceilings": ceilings, "rows": rows,
            }  # fmt: skip
            options.output.mkdir(parents=True, exist_ok=True)
            file = options.output / f"roofline_{name}.json"
            file.write_text(json.dumps(document, indent=1) + "\n")
            file.with_suffix(".md").write_text(page(document))
            print(page(document))


def packaged(folder: Path) -> Path:
    """The packaged model, exported to int8."""
    from edgegeo.export import export
    from edgegeo.recipe import preset

    export(None, preset("int8"), folder, places=0)
    return folder


def measure(most: int, seconds: float) -> tuple[list[dict[str, float]], Device]:
    """Ceilings by number of threads, and the processor as a device with those of `most` threads."""
    found = []
    for threads in range(1, most + 1):
        ones = [np.ones((SIDE, SIDE), kind) for kind in (np.float32, np.uint8, np.int8)]
        fp32 = gemm("MatMul", ones[0], ones[0], threads, seconds)
        int8 = gemm("MatMulInteger", ones[1], ones[2], threads, seconds)
        gbs = bandwidth(threads, seconds)
        found.append({"threads": threads, "read_gbs": gbs, "fp32_gflops": fp32 * 1e3, "int8_gops": int8 * 1e3})
    device = replace(
        measure_here(0.1), bandwidth_gbs=gbs, fp32_tflops=fp32, fp16_tflops=fp32, int8_tops=max(int8, fp32)
    )
    return found, device


def stages(bundle: Bundle, subject: Subject) -> list[Stage]:
    """Every stage of a bundle with a decoder."""
    shape, how, manifest = subject.shape, subject.precisions, bundle.manifest
    spec, roles = bundle.decoder, manifest.roles
    assert roles.generate is not None
    vision, trunk, head = roles.generate.vision, roles.generate.trunk, roles.generate.head
    rng = np.random.default_rng(0)

    def tower(session: Any) -> Callable[[], object]:
        side = manifest.image.size
        pixels = rng.normal(size=(1, 3, side, side)).astype(np.float32)
        return lambda: session.run(None, {"pixel_values": pixels})

    def prefill(batch: int, length: int) -> Callable[[Any], Callable[[], object]]:
        fed = TrunkInput(_states(rng, batch, length, spec.hidden), np.full(batch, length, np.int64))
        asked = np.full((batch, 1), length - 1, np.int64)

        def begun(session: Any) -> Callable[[], object]:
            trunk = Trunk(session, spec)
            return lambda: trunk.hidden(fed, asked)

        return begun

    def step(session: Any) -> Callable[[], object]:
        cache = Trunk(session, spec).cache(1, PROMPT + 2)
        cache.append(_states(rng, 1, PROMPT, spec.hidden))
        mark = cache.mark()
        return lambda: (cache.rewind(mark), cache.step())

    def logits(session: Any) -> Callable[[], object]:
        made, states = Head(session, 1, spec.hidden, spec.vocab), _states(rng, 1, 1, spec.hidden)
        return lambda: made.run(states)

    lengths = ((1, 32), (32, 32), (1, PROMPT))
    return [
        Stage("vision, one picture", vision, vision_work(shape, how), tower),
        *(
            Stage(f"prefill, {b} x {n} tokens", trunk, text_work(shape, how, n, 0, b), prefill(b, n))
            for b, n in lengths
        ),
        Stage(f"one token behind {PROMPT}", trunk, text_work(shape, how, 1, PROMPT), step),
        Stage("head, one token", head, head_work(shape, how), logits),
    ]


def measured(
    bundle: Bundle, before: Bundle | None, device: Device, threads: int, repeats: int, scratch: Path
) -> list[dict[str, Any]]:
    """One row a stage: milliseconds, the limit, the operators, and what it took before."""
    model, rows = Model(bundle, threads), []
    earlier = Model(before, threads) if before else None
    for stage in stages(bundle, subject_of(bundle)):
        jobs = {"now": stage.run(model.session(stage.component))}
        if earlier is not None:
            jobs["before"] = stage.run(earlier.session(stage.component))
        seconds = time_in_turn(jobs, repeats)
        limit, kind = bound(stage.work, device)
        operators = profile(stage, bundle.component(stage.component), threads, max(3, repeats // 4), scratch)
        row = _row(stage.name, seconds["now"], limit * 1e3, kind) | {"operators_ms": operators}
        if earlier is not None:
            ratios = np.array(seconds["before"]) / np.array(seconds["now"])
            row |= {"before_ms": min(seconds["before"]) * 1e3, "times_faster": float(np.median(ratios))}
        rows.append(row)
    return [*rows, _preprocessing(model, repeats)]


def _row(name: str, seconds: list[float], limit_ms: float, kind: str) -> dict[str, Any]:
    least = min(seconds) * 1e3
    return {"stage": name, "least_ms": least, "median_ms": float(np.median(seconds)) * 1e3, "limit_ms": limit_ms,
            "bound": kind, "share": limit_ms / least}  # fmt: skip


def _preprocessing(model: Model, repeats: int) -> dict[str, Any]:
    """A JPEG to the tower's pixels, against its decoding alone."""
    # Smooth noise: a picture of pure noise takes a decoder three times as long as a photo.
    coarse = np.random.default_rng(0).integers(0, 256, (PHOTO[1] // 16, PHOTO[0] // 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    data, spec = stream.getvalue(), model.bundle.manifest.image
    alone = time_job(lambda: Image.open(io.BytesIO(data)).load(), repeats)
    whole = time_job(lambda: prepare_picture(open_image(data), spec), repeats)
    return _row(f"preprocessing, JPEG of {PHOTO[0]} x {PHOTO[1]}", whole, min(alone) * 1e3, "Pillow's decoder")


def profile(stage: Stage, file: Path, threads: int, repeats: int, scratch: Path) -> dict[str, float]:
    """Milliseconds of each kind of operator, the most first."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_mem_pattern = threads, 3, False
    options.enable_profiling, options.profile_file_prefix = True, str(scratch / "profile")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    job = stage.run(session)
    for _ in range(repeats):
        job()
    trace = Path(session.end_profiling())
    least: dict[str, tuple[str, float]] = {}
    # A prefill before a step ran the same nodes once, slower: the least of each is the step's.
    for event in json.loads(trace.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            took = min(event["dur"], least.get(event["name"], ("", np.inf))[1])
            least[event["name"]] = event["args"]["op_name"], took
    trace.unlink()
    totals: Counter[str] = Counter()
    for operator, microseconds in least.values():
        totals[operator] += microseconds / 1e3
    return dict(totals.most_common())


def page(document: dict[str, Any]) -> str:
    """The tables as Markdown."""
    facts = {**document["machine"], **{k: document[k] for k in ("threads", "repeats", "load average")}}
    lines = [
        f"# Roofline: {document['bundle']}", "",
        ", ".join(f"{name} {value}" for name, value in facts.items()), "",
        "| threads | reads GB/s | float32 GFLOP/s | int8 GOP/s |", "|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in document["ceilings"]:
        lines.append(
            f"| {row['threads']} | {row['read_gbs']:.1f} | {row['fp32_gflops']:.0f} | {row['int8_gops']:.0f} |"
        )
    compared = any("before_ms" in row for row in document["rows"])
    lines += ["", "| stage | ms | limit ms | bound by | share of the limit | most of its time |"]
    lines += ["|---|---:|---:|---|---:|---|"]
    if compared:
        lines[-2:] = [f"{lines[-2]} before ms | times faster |", f"{lines[-1]}---:|---:|"]
    for row in document["rows"]:
        found = row.get("operators_ms", {})
        total = sum(found.values())
        told = ", ".join(f"{name} {ms / total:.0%}" for name, ms in list(found.items())[:TOLD])
        line = (
            f"| {row['stage']} | {row['least_ms']:.2f} | {row['limit_ms']:.2f} | {row['bound']} | {row['share']:.0%} "
        )
        line += f"| {told or '-'} |"
        if compared:
            known = "before_ms" in row
            line += f" {row['before_ms']:.2f} | {row['times_faster']:.2f} |" if known else " - | - |"
        lines.append(line)
    if any(row["share"] > 1 for row in document["rows"]):
        lines += ["", "Shares above 100 % mean that others worked while the ceilings were measured: measure again."]
    far = [row for row in document["rows"] if row["share"] < 0.5]
    names = "; ".join(f"{row['stage']} ({1 / row['share']:.1f} x its limit)" for row in far)
    lines += ["", f"Time is left where a stage takes more than twice its limit: {names}." if far
              else "No stage takes more than twice its limit."]  # fmt: skip
    return "\n".join([*lines, ""])


def _states(rng: np.random.Generator, batch: int, length: int, hidden: int) -> Any:
    return rng.normal(size=(batch, length, hidden)).astype(np.float32)


if __name__ == "__main__":
    main()
