"""Every peer in one run: the same weights, the same inputs, checked against our fp32 before it is timed.

    benchmarks/peers/install.sh                               once: openvino, genai, llama, sentence
    python benchmarks/peers/run.py --prepare                  once: checkpoint, bundles, conversions (minutes)
    python benchmarks/peers/run.py                            SmolVLM-256M's size, random weights
    python benchmarks/peers/run.py --size pocket              the packaged model's retriever
    python benchmarks/peers/run.py --jobs text-1,answer-24 --peers openvino,llama --repeats 5

Each contestant is a process of its own (worker.py); they take turns A B C A B C, so that a drift of the machine meets
all alike. What a peer can't do, or does too far from our fp32, is a row with the reason instead of a time. Rows of
earlier runs stay until the same job is run again. Search, with FAISS and USearch, is benchmarks/index_search.py.
Writes benchmarks/results/peers_<size>_<threads>_threads.json and .md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
REFERENCE, OURS = "transformers eager fp32", "edgegeo fp32"
REST_S = 0.05
"""Between two turns: threads that still spin for more work must not meet the next contestant."""


class Contestant(NamedTuple):
    """One peer at one precision."""

    label: str
    module: str
    precision: str
    venv: str = ""
    """Virtual environment under .peers; "" is this one."""
    floor: float = 0.97
    """Least cosine to our fp32 at which it is timed; 1.0 also means no difference above 1e-3."""


CONTESTANTS = (
    Contestant(REFERENCE, "peer_torch", "fp32", floor=1.0),
    Contestant("transformers eager bf16", "peer_torch", "bf16", floor=0.99),
    Contestant("torch.compile fp32", "peer_torch", "compile", floor=1.0),
    Contestant(OURS, "peer_edgegeo", "fp32", floor=1.0),
    Contestant("edgegeo int8", "peer_edgegeo", "int8"),
    Contestant("edgegeo int4", "peer_edgegeo", "int4", floor=0.8),
    Contestant("edgegeo int8, grammar", "peer_edgegeo", "int8-grammar"),
    Contestant("edgegeo int8, grammar and drafts", "peer_edgegeo", "int8-drafts"),
    Contestant("plain ONNX fp32", "peer_plain", "fp32", floor=1.0),
    Contestant("plain ONNX int8", "peer_plain", "int8"),
    Contestant("OpenVINO fp32", "peer_openvino", "fp32", "openvino", 1.0),
    Contestant("OpenVINO int8", "peer_openvino", "int8", "openvino"),
    Contestant("OpenVINO int4", "peer_openvino", "int4", "openvino", 0.8),
    Contestant("onnxruntime-genai int4", "peer_genai", "int4", "genai", 0.8),
    Contestant("llama.cpp Q8_0", "peer_llama", "q8", "llama"),
    Contestant("llama.cpp Q4_0", "peer_llama", "q4", "llama", 0.8),
    Contestant("sentence-transformers ONNX fp32", "peer_sentence", "fp32", "sentence", 1.0),
    Contestant("sentence-transformers ONNX int8", "peer_sentence", "int8", "sentence"),
)
JOBS = {
    "text-1": "text embedding, 32 tokens", "text-32": "text embedding, 32 x 32 tokens",
    "vision": "vision tower, one picture", "image": "image embedding, tower and decoder",
    "answer-24": "GPS answer: 124 tokens in, a position out", "answer-96": "GPS answer: 124 tokens in, 96 out",
    "pairs": "re-rank 20, every pair in full", "pairs-shared": "re-rank 20, prefix shared",
}  # fmt: skip
WORDS, IMAGE_WORDS, PROMPT_WORDS, PAIR_WORDS, PAIRS = 32, 10, 60, 12, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("smolvlm-256m", "pocket"), default="smolvlm-256m")
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument(
        "--peers", help="part of a label or module each, e.g. openvino,llama; always with the reference"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prepare", action="store_true", help="convert what is missing, and time nothing")
    parser.add_argument("--scratch", type=Path, default=Path(".peers"), help="where environments and conversions lie")
    parser.add_argument("-o", "--output", type=Path, default=HERE.parent / "results")
    options = parser.parse_args()
    jobs = options.jobs.split(",")
    if unknown := [job for job in jobs if job not in JOBS]:
        parser.error(f"unknown job {unknown[0]!r}; use some of {', '.join(JOBS)}")
    scratch = options.scratch.resolve()
    folder = scratch / options.size
    asked = (options.peers or "").lower().split(",")
    chosen = [
        c
        for c in CONTESTANTS
        if c.label in (REFERENCE, OURS) or any(a in f"{c.label} {c.module}".lower() for a in asked)
    ]
    prepare_inputs(options.size, folder)
    problems = prepare(chosen, folder, scratch, options.threads)
    if options.prepare:
        for label, reason in problems.items():
            print(f"{label}: {reason}")
        return
    write_answers(folder, options.size)
    found = contest(chosen, problems, jobs, folder, scratch, options)
    write(options.output, options.size, found, options)


def prepare_inputs(size: str, folder: Path) -> None:
    """Checkpoint folders and the inputs of every job but the answers."""
    import checkpoints

    if not (folder / "table.npy").is_file():
        checkpoints.write(size, folder)
    config = json.loads((folder / "vlm" / "config.json").read_text())
    vision, vocab = config["vision_config"], config["text_config"]["vocab_size"]
    side = vision["image_size"]
    tokens = (side // vision["patch_size"] // config["scale_factor"]) ** 2
    rng = np.random.default_rng(0)

    def ids(*shape: int) -> Any:
        return rng.integers(10, vocab - 100, shape)

    pixels = rng.normal(size=(1, 3, side, side)).astype(np.float32)
    prefix, suffixes = ids(1, tokens + PAIR_WORDS), ids(PAIRS, tokens + PAIR_WORDS)
    before, after = ids(1, IMAGE_WORDS // 2), ids(1, IMAGE_WORDS - IMAGE_WORDS // 2)
    texts = ids(32, WORDS)
    _save(folder, "text-1", "text", ids=texts[:1])
    _save(folder, "text-32", "text", ids=texts)
    _save(folder, "vision", "vision", pixels=pixels)
    _save(folder, "image", "picture", pixels=pixels, before=before, after=after)
    _save(folder, "pairs", "pairs", prefix=prefix, suffixes=suffixes)
    _save(folder, "pairs-shared", "pairs_shared", prefix=prefix, suffixes=suffixes)
    _save(folder, "answer-96", "answer", prompt=ids(1, tokens + PROMPT_WORDS), tokens=ids(96))


def write_answers(folder: Path, size: str) -> None:
    """The job whose tokens are a position, as the exported bundle's grammar writes it."""
    from given_answers import ANSWERS, Bench

    from edgegeo.runtime import Generator, Model

    bench = Bench(Generator(Model.open(folder / "fp32", 1)), None, ANSWERS[size])
    with np.load(folder / "jobs" / "answer-96.npz") as stored:
        prompt = stored["prompt"]
    _save(folder, "answer-24", "answer", prompt=prompt, tokens=np.array(bench.path.tokens))


def _save(folder: Path, job: str, method: str, **arrays: Any) -> None:
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    np.savez(folder / "jobs" / f"{job}.npz", method=method, **arrays)


def prepare(chosen: list[Contestant], folder: Path, scratch: Path, threads: int) -> dict[str, str]:
    """Let every contestant convert the checkpoint; label -> why one can't take part."""
    problems = {}
    for one in chosen:
        python = _python(one, scratch)
        if not python.is_file():
            problems[one.label] = f"not installed; run benchmarks/peers/install.sh {one.venv}"
            continue
        log = folder / f"{one.module}-{one.precision}.log"
        command = [str(python), "worker.py", one.module, one.precision, str(folder), str(threads), "prepare"]
        with log.open("w") as stream:
            done = subprocess.run(command, cwd=HERE, stdout=stream, stderr=stream, env=_environment(threads))
        if done.returncode:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            problems[one.label] = f"its conversion failed: {lines[-1][:160] if lines else done.returncode}"
    return problems


class Worker:
    """A contestant's process."""

    def __init__(self, one: Contestant, folder: Path, scratch: Path, threads: int) -> None:
        self.one = one
        command = [str(_python(one, scratch)), "worker.py", one.module, one.precision, str(folder), str(threads)]
        with (folder / f"{one.module}-{one.precision}.log").open("a") as errors:
            self._process = subprocess.Popen(
                command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=_environment(threads),
            )  # fmt: skip
        self.started = self._read()

    def ask(self, **words: Any) -> dict[str, Any]:
        """One line there, one line back; {"refused": ...} where the process has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"refused": "its process ended"}
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()  # closes the pipes

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        told: dict[str, Any] = json.loads(line) if line else {"refused": "its process ended; see its log"}
        return told


def contest(
    chosen: list[Contestant], problems: dict[str, str], jobs: list[str], folder: Path, scratch: Path, options: Any
) -> dict[str, Any]:
    """Rows of every job and contestant, and what loading took."""
    workers, rows, loads = [], [], {}
    try:
        for one in chosen:
            if one.label not in problems:
                worker = Worker(one, folder, scratch, options.threads)
                if "refused" in worker.started:
                    problems[one.label] = worker.started["refused"]
                    continue
                workers.append(worker)
                loads[one.label] = {"load_s": worker.started["load_s"]}
        for job in jobs:
            rows += [{"job": job, "contestant": label, "reason": reason} for label, reason in problems.items()]
            rows += play(job, workers, folder, options.repeats)
        for worker in workers:
            loads[worker.one.label] |= worker.ask(memory=True)
    finally:
        for worker in workers:
            worker.close()
    return {"rows": rows, "loads": loads}


def play(job: str, workers: list[Worker], folder: Path, repeats: int) -> list[dict[str, Any]]:
    """One job: everyone is checked, then those that agree are timed in turn."""
    with np.load(folder / "jobs" / f"{job}.npz") as stored:
        tokens = stored["tokens"] if "tokens" in stored.files else None
    file, outputs, rows = folder / "output.npy", {}, []
    for worker in workers:
        told = worker.ask(run=job, into=str(file))
        if "refused" in told:
            rows.append({"job": job, "contestant": worker.one.label, "reason": told["refused"]})
        else:
            outputs[worker.one.label] = np.load(file).astype(np.float64)
    if REFERENCE not in outputs or OURS not in outputs:
        raise SystemExit(f"{job}: {REFERENCE} or {OURS} did not run: {rows}")
    ready, agreements = [], {}
    for worker in (w for w in workers if w.one.label in outputs):
        cosine, reason = agreement(worker.one, outputs[worker.one.label], outputs[OURS], tokens)
        agreements[worker.one.label] = cosine
        if reason:
            rows.append({"job": job, "contestant": worker.one.label, "agreement": cosine, "reason": reason})
        else:
            ready.append(worker)
    seconds: dict[str, list[float]] = {worker.one.label: [] for worker in ready}
    for _ in range(repeats):
        for worker in list(ready):
            time.sleep(REST_S)
            told = worker.ask(time=job)
            if "refused" in told:  # it ran out of memory, say
                rows.append({"job": job, "contestant": worker.one.label, "reason": told["refused"]})
                ready.remove(worker)
            else:
                seconds[worker.one.label].append(told["seconds"])
    theirs = np.array(seconds[REFERENCE])
    for worker in ready:
        took = np.array(seconds[worker.one.label])
        row = {
            "job": job, "contestant": worker.one.label, "agreement": agreements[worker.one.label],
            "median_ms": float(np.median(took)) * 1e3, "least_ms": float(took.min()) * 1e3, "repeats": repeats,
            "times_faster": float(np.exp(np.mean(np.log(theirs / took)))), "date": date.today().isoformat(),
        }  # fmt: skip
        rows.append(row)
        print(f"{job:12} {worker.one.label:34} {row['median_ms']:10.2f} ms {row['times_faster']:7.2f} x", flush=True)
    return rows


def agreement(one: Contestant, found: Any, ours: Any, tokens: Any) -> tuple[float, str]:
    """Least cosine of matching vectors to our fp32, and why that is not enough, or "". Written tokens must be equal."""
    if tokens is not None and found.shape == tokens.shape and found.shape != ours.shape:
        same = float(np.array_equal(found, tokens))
        return same, "" if same else "it wrote other tokens"
    if found.shape != ours.shape or not np.isfinite(found).all():
        return 0.0, f"its output {found.shape} is not what ours is {ours.shape}"
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(ours, axis=-1)
    cosine = float(np.min((found * ours).sum(-1) / np.maximum(norms, 1e-12)))
    if one.floor == 1.0:
        far = float(np.max(np.abs(found - ours)) / max(1.0, float(np.abs(ours).max())))
        return cosine, "" if cosine >= 0.9999 and far <= 1e-3 else f"differs from our fp32 by {far:.1e} of its largest"
    return cosine, "" if cosine >= one.floor else f"cosine {cosine:.3f} to our fp32, below {one.floor}"


def write(output: Path, size: str, found: dict[str, Any], options: Any) -> None:
    """peers_<size>_<threads>_threads.json with everything so far, and the page."""
    from page import page

    from edgegeo.field.ceilings import measure_here
    from edgegeo.measure import machine

    output.mkdir(parents=True, exist_ok=True)
    file = output / f"peers_{size}_{options.threads}_threads.json"
    earlier = json.loads(file.read_text()) if file.is_file() else {"rows": [], "loads": {}}
    again = {(row["job"], row["contestant"]) for row in found["rows"]}
    for row in found["rows"]:
        if "reason" in row:  # where this machine keeps its files is nobody else's business
            row["reason"] = re.sub(r"(?<![\w.])/[^\s:'\"]+/", "", row["reason"])
    kept = [row for row in earlier["rows"] if (row["job"], row["contestant"]) not in again]
    load = round(os.getloadavg()[0], 1)  # before the ceilings are measured, which are a load themselves
    here = measure_here()
    settings = {
        "threads": options.threads, "load average": load, "float32 TFLOP/s": round(here.fp32_tflops, 2),
        "int8 TOP/s": round(here.int8_tops, 2), "read GB/s": round(here.bandwidth_gbs, 1),
    }  # fmt: skip
    document = {
        "size": size, "machine": machine(), "settings": settings, "jobs": JOBS,
        "versions": _versions(options.scratch), "rows": [*kept, *found["rows"]],
        "loads": earlier["loads"] | found["loads"],
    }  # fmt: skip
    file.write_text(json.dumps(document, indent=1) + "\n")
    file.with_suffix(".md").write_text(page(document, [one.label for one in CONTESTANTS], REFERENCE))
    print(f"wrote {file} and .md")


def _versions(scratch: Path) -> dict[str, str]:
    from importlib.metadata import distributions

    wanted = ("torch", "transformers", "onnxruntime", "openvino", "nncf", "onnxruntime-genai", "llama_cpp_python",
              "sentence-transformers")  # fmt: skip
    places = [*sys.path, *(str(p) for p in scratch.glob("*/lib/python3*/site-packages"))]
    found = {d.metadata["Name"]: d.version for d in reversed(list(distributions(path=places)))}
    return {name: found[name] for name in wanted if name in found}


def _python(one: Contestant, scratch: Path) -> Path:
    return scratch / one.venv / "bin" / "python" if one.venv else Path(sys.executable)


def _environment(threads: int) -> dict[str, str]:
    root = str(HERE.parents[1])
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    main()
