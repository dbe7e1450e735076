"""Everything that has to be seen on a GPU, in one run: parity, latency, memory, share of the roofline, engines.

    python benchmarks/on_gpu.py                 on a machine with an NVIDIA GPU, with edgegeo[gpu,export]
    python benchmarks/on_gpu.py --dry-run       the same code on this processor, tiny: shows that it is not broken

The model has SmolVLM-256M's published size and random weights, which decide nothing about speed. Its graphs are those
of the trt dialect, standard operators, which onnxruntime's CUDA provider and TensorRT both run. Contestants get and
give host arrays, so every copy to and from the device is in their time; they run in turn. Parity is measured against
the fp32 graph on the CPU. Writes benchmarks/results/on_gpu.json and .md, a dry run nothing.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgegeo.bundle import ImageSpec, TrunkSpec
from edgegeo.errors import DeviceError, EdgegeoError
from edgegeo.export.components import Part, build
from edgegeo.export.graph import weights_to
from edgegeo.export.linear import Storage
from edgegeo.field.device import Device
from edgegeo.field.plan import bound
from edgegeo.field.shape import read_shape
from edgegeo.field.work import Precisions, text_work, vision_work
from edgegeo.measure import machine, summarize, time_in_turn
from edgegeo.models.families.smolvlm import image_features
from edgegeo.models.family import find_family
from edgegeo.runtime import open_session
from edgegeo.runtime.engines.building import Settings, build_plan
from edgegeo.runtime.engines.driver import Driver, find_driver
from edgegeo.runtime.engines.library import find_library
from edgegeo.runtime.engines.session import EngineSession
from edgegeo.runtime.engines.shapes import Span, head_profiles, trunk_profiles
from edgegeo.runtime.trunk import Trunk, TrunkInput

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("fp32", "fp16", "int8", "int4")
FLOOR = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.95, "int4": 0.5}
"""Smallest cosine with the fp32 graph on the CPU. Random weights quantise worse than trained ones."""
SAME = 0.999
"""Smallest cosine between a device and the CPU on one and the same graph."""
SIZES: dict[str, dict[str, Any]] = {
    "smolvlm-256m": {
        "vision": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                   "image_size": 512, "patch_size": 16},
        "text": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                 "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49280, "max_position_embeddings": 8192},
    },
    "tiny": {
        "vision": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
                   "image_size": 64, "patch_size": 8},
        "text": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
                 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 256, "max_position_embeddings": 512},
    },
}  # fmt: skip
PROMPT, ANSWER, ROWS = 124, 24, 8
"""Tokens of an answer's prompt with one picture, of the answer, and prompts of a batch."""


@dataclass
class Report:
    """What was found, as it goes into the files."""

    facts: dict[str, Any]
    parity: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    speed: list[dict[str, Any]] = field(default_factory=list)
    engines: list[dict[str, Any]] = field(default_factory=list)


class Rival:
    """Anything that computes the three stages from host arrays to host arrays."""

    def __init__(self, vision: Any, trunk: Trunk) -> None:
        self.vision_session, self.trunk = vision, trunk

    def vision(self, pixels: Any) -> Any:
        return self.vision_session.run(None, {"pixel_values": pixels})[0]

    def prompts(self, embeds: Any) -> Any:
        rows, length, _ = embeds.shape
        last = np.full((rows, 1), length - 1, np.int64)
        return self.trunk.hidden(TrunkInput(embeds, np.full(rows, length, np.int64)), last)

    def answer(self, prompt: Any, rest: Any) -> Any:
        cache = self.trunk.cache(1, prompt.shape[1] + rest.shape[1])
        length = np.array([prompt.shape[1]], np.int64)
        cache.extend(TrunkInput(prompt, length), length[None] - 1)
        for at in range(rest.shape[1]):
            cache.step_embeds[:] = rest[:, at : at + 1]
            hidden = cache.step()
        return hidden


class Torch:
    """transformers on a device, as a person would call it; in eager mode or through torch.compile."""

    def __init__(self, model: Any, device: str, kind: Any, backend: str | None) -> None:
        self.model = copy.deepcopy(model).to(device=device, dtype=kind)
        self.device, self.kind = device, kind
        wrap: Callable[[Any], Any] = (lambda f: torch.compile(f, backend=backend)) if backend else (lambda f: f)
        self._vision = wrap(lambda pixels: image_features(self.model, pixels))
        self._text = wrap(lambda **given: self.model.model.text_model(**given))

    @torch.inference_mode()
    def vision(self, pixels: Any) -> Any:
        return self._host(self._vision(self._device(pixels)))

    @torch.inference_mode()
    def prompts(self, embeds: Any) -> Any:
        states = self._text(inputs_embeds=self._device(embeds), use_cache=False).last_hidden_state
        return self._host(states[:, -1:])

    @torch.inference_mode()
    def answer(self, prompt: Any, rest: Any) -> Any:
        out = self._text(inputs_embeds=self._device(prompt), use_cache=True)
        for at in range(rest.shape[1]):
            step = self._device(rest[:, at : at + 1])
            out = self._text(inputs_embeds=step, past_key_values=out.past_key_values, use_cache=True)
        return self._host(out.last_hidden_state)

    def _device(self, value: Any) -> Any:
        return torch.from_numpy(value).to(device=self.device, dtype=self.kind)

    def _host(self, value: Any) -> Any:
        return value.float().cpu().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the processor, nothing written")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--precision", default=",".join(PRECISIONS))
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    gpu = gpu_here()
    if gpu is None and not options.dry_run:
        raise SystemExit("no GPU here: nothing was measured (--dry-run shows that the script works)")
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options.precision.split(","), Path(folder), None if options.dry_run else gpu, options.repeats)
    text = page(report)
    print(text)
    if not options.dry_run:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "on_gpu.json").write_text(json.dumps(vars(report), indent=1) + "\n")
        (options.output / "on_gpu.md").write_text(text)


def gpu_here() -> Driver | None:
    """The GPU, if there is one."""
    try:
        return find_driver()
    except DeviceError as error:
        print(f"no GPU here: {error}")
        return None


def measure(precisions: list[str], folder: Path, gpu: Driver | None, repeats: int) -> Report:
    """All of it; gpu None: a dry run on the processor."""
    size = "smolvlm-256m" if gpu is not None else "tiny"
    model, spec = random_model(size)
    import onnxruntime

    report = Report({
        "model": f"{size}, random weights", **machine(), "torch": torch.__version__,
        "gpu": str(gpu.chip()) if gpu is not None else "no GPU here: a dry run on the processor",
        "onnxruntime": onnxruntime.__version__, "providers": onnxruntime.get_available_providers(), "repeats": repeats,
    })  # fmt: skip
    provider = "cuda" if gpu is not None else "cpu"
    files = {precision: write_graphs(model, size, precision, folder / precision) for precision in precisions}
    inputs = make_inputs(size)
    exact = open_rival(write_graphs(model, size, "fp32", folder / "exact"), spec, "cpu")
    rivals: dict[str, Any] = {}
    for precision in precisions:
        name, same = f"onnxruntime {provider} {precision}", open_rival(files[precision], spec, "cpu")
        rivals[name] = weighed(report, gpu, name, lambda f=files[precision]: open_rival(f, spec, provider), inputs)
        compare(report, name, rivals[name], exact, same, inputs)
        name = f"engine {precision}"
        sessions = open_engines(report, precision, files[precision], gpu)
        if sessions:
            made = Rival(sessions["vision"], Trunk(sessions["trunk"], spec, "trt"))
            rivals[name] = weighed(report, gpu, name, lambda r=made: r, inputs)
            compare(report, name, rivals[name], exact, same, inputs)
    race(report, rivals, model, gpu, repeats, inputs)
    return report


def weighed(report: Report, gpu: Driver | None, name: str, make: Callable[[], Any], inputs: dict[str, Any]) -> Any:
    """A contestant that has run every stage once, and the device memory that this took."""
    before = gpu.memory()[0] if gpu is not None else 0
    rival = make()
    for work in stages(inputs).values():
        work(rival)
    after = gpu.memory()[0] if gpu is not None else 0
    report.memory.append({"who": name, "device MB": round((before - after) / 2**20, 1)})
    return rival


def random_model(size: str) -> tuple[Any, TrunkSpec]:
    """SmolVLMForConditionalGeneration in float32, and its decoder's shape."""
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    torch.manual_seed(0)
    text = {"model_type": "llama", "rope_theta": 100000, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    text |= SIZES[size]["text"]
    image_token = text["vocab_size"] - 90
    config = SmolVLMConfig(vision_config=SIZES[size]["vision"], text_config=text, scale_factor=4,
                           image_token_id=image_token, tie_word_embeddings=True)  # fmt: skip
    names = ("num_hidden_layers", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size")
    spec = TrunkSpec(*(text[name] for name in names), text["max_position_embeddings"])
    return SmolVLMForConditionalGeneration(config).eval(), spec


def make_inputs(size: str) -> dict[str, Any]:
    """Random arrays for the three stages."""
    rng, side, hidden = np.random.default_rng(0), *(SIZES[size][k][n] for k, n in (
        ("vision", "image_size"), ("text", "hidden_size")))  # fmt: skip
    return {
        "pixels": rng.normal(size=(1, 3, side, side)).astype(np.float32),
        "one": rng.normal(size=(1, 32, hidden)).astype(np.float32),
        "rows": rng.normal(size=(ROWS, 32, hidden)).astype(np.float32),
        "prompt": rng.normal(size=(1, PROMPT, hidden)).astype(np.float32),
        "rest": rng.normal(size=(1, ANSWER, hidden)).astype(np.float32),
    }


def write_graphs(model: Any, size: str, precision: str, folder: Path) -> dict[str, Path]:
    """Tower, decoder and head in the trt dialect."""
    image = ImageSpec("smolvlm", SIZES[size]["vision"]["image_size"], 1, 1 / 255, (0.5,) * 3, (0.5,) * 3, 64)
    files = {}
    for kind in ("vision", "trunk", "head"):
        files[kind] = folder / f"{kind}.onnx"
        with weights_to(files[kind]):
            graph = build(Part(kind, kind, model, find_family("smolvlm"), image), Storage(precision, block_size=64),
                          dialect="trt")  # fmt: skip
        graph.save(files[kind])
    return files


def open_rival(files: dict[str, Path], spec: TrunkSpec, provider: str) -> Rival:
    """onnxruntime on exactly this device."""
    trunk = Trunk(open_session(files["trunk"], provider=provider), spec, "trt")
    return Rival(open_session(files["vision"], provider=provider), trunk)


def open_engines(report: Report, precision: str, files: dict[str, Path], gpu: Driver | None) -> dict[str, Any]:
    """Engines of tower, decoder and head; empty where they can't be built or run, which the report then says."""
    row: dict[str, Any] = {"precision": precision}
    report.engines.append(row)
    length = PROMPT + ANSWER
    ranges = {"vision": ({"batch": Span(1, 1, 1)},), "trunk": trunk_profiles(ROWS, ROWS, length),
              "head": head_profiles(ROWS, length)}  # fmt: skip
    sessions = {}
    try:
        library = find_library()
        row["library"] = library.name
        for kind in ("vision", "trunk", "head"):
            built = build_plan(library, files[kind], ranges[kind], Settings())
            row[f"{kind} plan MB"] = round(len(built.plan) / 2**20, 2)
            weights = files[kind].parent.glob(f"{kind}*")
            row[f"{kind} graph MB"] = round(sum(file.stat().st_size for file in weights) / 2**20, 2)
            if gpu is not None:
                sessions[kind] = EngineSession(library, gpu, built.plan, built.dims, ranges[kind])
    except EdgegeoError as error:
        row["result"] = str(error)
        return {}
    row["result"] = "deserialised" if gpu is not None else "built; not deserialised: no GPU here"
    return sessions


def stages(inputs: dict[str, Any]) -> dict[str, Callable[[Any], Any]]:
    """What is computed and timed: title -> work of a rival."""
    return {
        "vision tower, one picture": lambda rival: rival.vision(inputs["pixels"]),
        "decoder, 32 tokens": lambda rival: rival.prompts(inputs["one"]),
        f"decoder, {ROWS} x 32 tokens": lambda rival: rival.prompts(inputs["rows"]),
        f"answer, {PROMPT} tokens in, {ANSWER} out": lambda rival: rival.answer(inputs["prompt"], inputs["rest"]),
    }


def compare(report: Report, name: str, device: Any, exact: Any, same: Any, inputs: dict[str, Any]) -> None:
    """Parity of every stage: with the same graph on the CPU, and with the fp32 graph there. SystemExit if it fails."""
    precision = name.rpartition(" ")[2]
    for title, work in stages(inputs).items():
        got = work(device)
        own, far = cosine(got, work(same)), cosine(got, work(exact))
        passed = own >= SAME and far >= FLOOR[precision]
        report.parity.append({"who": name, "stage": title, "cosine with the CPU": own, "cosine with fp32": far,
                              "passed": passed})  # fmt: skip
        if not passed:
            raise SystemExit(f"{name}, {title}: cosine {own:.6f} with the CPU, {far:.6f} with fp32")


def race(
    report: Report, rivals: dict[str, Any], model: Any, gpu: Driver | None, repeats: int, inputs: dict[str, Any]
) -> None:
    """Latency of everything in turn, torch too, and the share of what the device could do."""
    device = "cuda" if gpu is not None else "cpu"
    # In a dry run, torch.compile runs whole but compiles nothing.
    backend = "inductor" if gpu is not None else "eager"
    kinds = {"fp32": torch.float32, "fp16": torch.float16} if gpu is not None else {"fp32": torch.float32}
    rivals = dict(rivals)
    for precision, kind in kinds.items():
        for name, how in ((f"torch eager {precision}", None), (f"torch.compile {precision}", backend)):
            rivals[name] = weighed(report, gpu, name, lambda k=kind, h=how: Torch(model, device, k, h), inputs)
    ceilings = peaks() if gpu is not None else None
    for title, work in stages(inputs).items():
        wanted = work(rivals["torch eager fp32"])
        jobs = {}
        for name, rival in rivals.items():
            if cosine(work(rival), wanted) < FLOOR[name.rpartition(" ")[2]]:
                raise SystemExit(f"{name} disagrees with torch at '{title}'")
            jobs[name] = lambda r=rival: work(r)  # noqa: B023
        for name, seconds in time_in_turn(jobs, repeats).items():
            took = summarize(seconds)
            row = {"stage": title, "who": name, "p50 ms": took.p50_ms, "p90 ms": took.p90_ms}
            if ceilings is not None:
                row["share of roofline"] = least_seconds(title, name, model, ceilings) * 1e3 / took.p50_ms
            report.speed.append(row)


def least_seconds(title: str, name: str, model: Any, ceilings: Device) -> float:
    """The least time of a stage on the device, by its measured ceilings."""
    precision = name.rpartition(" ")[2]
    shape, how = read_shape(model.config.to_dict()), Precisions(precision, precision, precision, 64)
    kv = 4 if precision == "fp32" else 2
    if title.startswith("vision"):
        works = [vision_work(shape, how)]
    elif title.startswith("answer"):
        works = [text_work(shape, how, PROMPT, kv_bytes=kv)]
        works += [text_work(shape, how, 1, PROMPT + at, kv_bytes=kv) for at in range(ANSWER)]
    else:
        works = [text_work(shape, how, 32, batch=ROWS if "x" in title else 1, kv_bytes=kv)]
    return sum(bound(work, ceilings)[0] for work in works)


def peaks() -> Device:
    """Ceilings of the GPU as torch reaches them: large products in fp32 (TF32) and fp16, a large copy."""
    side, found = 8192, {}
    torch.backends.cuda.matmul.allow_tf32 = True
    for name, kind in (("fp32", torch.float32), ("fp16", torch.float16)):
        a = torch.randn(side, side, device="cuda", dtype=kind)
        found[name] = 2 * side**3 / best_seconds(lambda a=a: a @ a) / 1e12
    buffer = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    gbs = 2 * buffer.numel() / best_seconds(lambda: buffer.clone()) / 1e9
    torch.backends.cuda.matmul.allow_tf32 = False
    cache = torch.cuda.get_device_properties(0).L2_cache_size / 2**20
    # int8 is taken as twice fp16, as data sheets have it.
    return Device("this GPU", "gpu", gbs, 2 * found["fp16"], found["fp16"], found["fp32"], cache, 1.0, 0.0, {})


def best_seconds(job: Callable[[], Any]) -> float:
    """The fastest of some runs, by the device's own clock."""
    job()
    found = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        job()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return min(found)


def cosine(got: Any, wanted: Any) -> float:
    """Smallest cosine of the rows."""
    a = np.asarray(got, np.float64).reshape(-1, np.shape(got)[-1])
    b = np.asarray(wanted, np.float64).reshape(a.shape)
    return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def page(report: Report) -> str:
    """The report as Markdown."""
    parts = {"Parity": report.parity, "Engines": report.engines, "Memory": report.memory, "Speed": report.speed}
    head = ["# On a GPU", "", *(f"- {name}: {value}" for name, value in report.facts.items()), ""]
    return "\n".join([*head, *(line for title, rows in parts.items() for line in table(title, rows))])


def table(title: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """A Markdown table of rows; columns in the order they turn up."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    yield from ("## " + title, "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns))
    for row in rows:
        cells = (row.get(name, "") for name in columns)
        yield "| " + " | ".join(f"{one:.5g}" if isinstance(one, float) else str(one) for one in cells) + " |"
    yield ""


if __name__ == "__main__":
    main()
