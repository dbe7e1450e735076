"""A model on a device: the memory it needs, and the least time that each stage takes.

Times follow from the roofline (Williams et al., 2009): no stage is faster than its multiplications at the device's
peak, nor than its weights, keys and values at the bandwidth of the memory. They are lower bounds, not forecasts:
start-up of kernels, norms, softmax, preprocessing and the grammar are not in them.
"""

from dataclasses import dataclass

from edgegeo.errors import InputError
from edgegeo.field.device import Device
from edgegeo.field.subject import Subject
from edgegeo.field.work import Precisions, Work, head_work, text_work, vision_work
from edgegeo.recipe import BYTES, SESSION

MB = 2**20
ENGINE = 1.07
"""Memory of a TensorRT engine by bytes of its weights (2048 x 2048: 1.00 at fp16, 1.07 at int8, 1.05 at int4)."""
BUILD = 4.0
"""Memory while an engine is built by bytes of the largest component; seen were 3 to 4."""


@dataclass(frozen=True)
class Load:
    """What is asked of the model."""

    batch: int = 1
    """Inputs, or answers, at once."""
    length: int = 512
    """Positions that the KV cache has room for."""
    text_tokens: int = 32
    """Of a text to embed."""
    answer_tokens: int = 10
    """Of a GPS answer, those that the grammar leaves to the model; the forced ones are read together."""


@dataclass(frozen=True)
class Need:
    """Memory in MB of 2**20 bytes."""

    weights: float
    """Open sessions, or engines."""
    mapped: float
    """Token embeddings, mapped from their file: only used rows are read, and the system takes them back."""
    kv: float
    activations: float
    overhead: float
    build: float
    """While a TensorRT engine is built, if the device has a GPU; 0 otherwise."""
    available: float

    @property
    def total(self) -> float:
        """What running takes."""
        return self.weights + self.kv + self.activations + self.overhead

    @property
    def fits(self) -> bool:
        """Whether it runs there."""
        return self.total <= self.available

    @property
    def builds(self) -> bool:
        """Whether its engine can be built there."""
        return self.build + self.overhead <= self.available


@dataclass(frozen=True)
class Stage:
    """One stage, or a whole job of several."""

    name: str
    positions: int
    gflop: float
    read_mb: float
    """Weights, keys and values, in 2**20 bytes."""
    ms: float
    """At least."""
    bound: str
    """What bounds it: "compute" or "memory"."""


@dataclass(frozen=True)
class Plan:
    """The answer."""

    name: str
    device: str
    load: Load
    need: Need
    stages: tuple[Stage, ...]


def make_plan(subject: Subject, device: Device, load: Load) -> Plan:
    """Memory and stages; InputError for a length that the model has no positions for."""
    most = subject.shape.max_positions
    longest = longest_job(subject, load.text_tokens, load.answer_tokens)
    if not subject.shape.dual and not longest <= load.length <= most:
        raise InputError(
            f"--length {load.length}: the longest job here has {longest:,} positions, the model reads up to {most:,}"
        )
    stages = [_stage(name, device, positions, works) for name, (works, positions) in _all(subject, device, load)]
    return Plan(subject.name, device.name, load, _need(subject, device, load), tuple(stages))


def longest_job(subject: Subject, text_tokens: int, answer_tokens: int) -> int:
    """Positions that the longest job of a model takes."""
    words, picture = subject.prompts, subject.picture
    lengths = {
        "embed": max(words["text"] + text_tokens, words["image"] + picture),
        "generate": words["generate"] + picture + answer_tokens,
    }
    return max(lengths[role] for role in subject.roles if role in lengths)


def bound(work: Work, device: Device) -> tuple[float, str]:
    """Least seconds of one stage, and which ceiling they come from."""
    # Attention is computed on activations: in fp16 on a GPU, in fp32 on a CPU.
    attention = work.attention_flops / device.peak("fp16" if device.kind == "gpu" else "fp32")
    compute = sum(flops / device.peak(name) for name, flops in work.matrix_flops.items()) + attention
    cached = work.weight_bytes + work.kv_bytes <= device.cache_mb * MB
    memory = 0.0 if cached else (work.weight_bytes + work.kv_bytes) / (device.bandwidth_gbs * 1e9)
    return (memory, "memory") if memory > compute else (compute, "compute")


Works = list[Work]


def _all(subject: Subject, device: Device, load: Load) -> list[tuple[str, tuple[Works, int]]]:
    return [*_parts(subject, device, load).items(), *_jobs(subject, device, load).items()]


def _parts(subject: Subject, device: Device, load: Load) -> dict[str, tuple[Works, int]]:
    """The stages by themselves."""
    shape, how = subject.shape, subject.precisions
    positions = shape.tower.positions(subject.pixels) * subject.tiles
    found = {"vision, one picture": ([_vision(subject, load)], positions)}
    if "generate" in subject.roles:
        prompt = subject.picture + subject.prompts["generate"]
        one = text_work(shape, how, 1, prompt, load.batch, _kv_size(device, how)) + head_work(shape, how, load.batch)
        found["prefill of a GPS prompt"] = ([text_work(shape, how, prompt, 0, load.batch)], prompt)
        found["decoding, one token"] = ([one], 1)
    return found


def _jobs(subject: Subject, device: Device, load: Load) -> dict[str, tuple[Works, int]]:
    """What a user asks for: the stages one after the other."""
    shape, how, prompts = subject.shape, subject.precisions, subject.prompts
    found: dict[str, tuple[Works, int]] = {}
    if "embed" in subject.roles:
        text = prompts["text"] + load.text_tokens
        picture = prompts["image"] + subject.picture
        found["embed a text"] = ([text_work(shape, how, text, 0, load.batch)], text)
        seen = [_vision(subject, load)]
        found["embed a picture"] = (seen if shape.dual else [*seen, text_work(shape, how, picture, 0, load.batch)],
                                    picture)  # fmt: skip
    if "generate" in subject.roles:
        prompt = prompts["generate"] + subject.picture
        works = [
            _vision(subject, load),
            text_work(shape, how, prompt, 0, load.batch),
            head_work(shape, how, load.batch),
        ]
        for number in range(load.answer_tokens - 1):
            step = text_work(shape, how, 1, prompt + number, load.batch, _kv_size(device, how))
            works.append(step + head_work(shape, how, load.batch))
        found[f"GPS answer, {load.answer_tokens} tokens"] = (works, prompt + load.answer_tokens)
    return found


def _vision(subject: Subject, load: Load) -> Work:
    return vision_work(subject.shape, subject.precisions, subject.tiles * load.batch, subject.pixels)


def _stage(name: str, device: Device, positions: int, works: Works) -> Stage:
    bounds = [bound(work, device) for work in works]
    seconds = sum(one for one, _ in bounds)
    # Of a job, the ceiling that most of its time comes from.
    memory = sum(one for one, kind in bounds if kind == "memory")
    read = sum(work.weight_bytes + work.kv_bytes for work in works) / MB
    flops = sum(work.flops for work in works)
    return Stage(name, positions, flops / 1e9, read, 1e3 * seconds, "memory" if 2 * memory > seconds else "compute")


def _need(subject: Subject, device: Device, load: Load) -> Need:
    opened = [part for part in subject.parts if part.kind != "table"]
    growth = dict.fromkeys(SESSION, ENGINE) if device.kind == "gpu" else SESSION
    weights = sum(part.bytes * growth[part.precision] for part in opened)
    largest = max(part.bytes for part in opened)
    # An engine reads one half of its cache and writes the other (edgegeo/runtime/engines/cache.py).
    rows = load.batch * (2 if device.kind == "gpu" else 1)
    values = 0 if subject.shape.dual else subject.shape.kv_values * load.length * rows
    return Need(
        weights=weights / MB, mapped=sum(part.bytes for part in subject.parts if part.kind == "table") / MB,
        kv=values * _kv_size(device, subject.precisions) / MB, activations=_activations(subject, device, load) / MB,
        overhead=device.overhead_mb, build=BUILD * largest / MB if device.kind == "gpu" else 0.0,
        available=device.memory_mb,
    )  # fmt: skip


def _activations(subject: Subject, device: Device, load: Load) -> float:
    """Bytes of the larger of tower and prefill: the states of one layer, and its attention before the softmax.

    The runtime shows the tower one tile of 512 px at a time, so a picture's tiles don't add up.
    """
    size = 2 if device.kind == "gpu" else 4
    shape, tower = subject.shape, subject.shape.tower
    count = tower.positions(subject.pixels)
    near = min(count, tower.window) if tower.window and not tower.full_layers else count
    states = count * (4 * tower.layers.hidden + 2 * tower.layers.intermediate)
    seen = states + tower.layers.heads * count * near
    length = longest_job(subject, load.text_tokens, load.answer_tokens)
    text = shape.text
    read = length * (4 * text.hidden + 3 * text.intermediate) + text.heads * length * length
    return float(max(seen, read * load.batch) * size + (0 if shape.dual else 4 * shape.vocab * load.batch))


def _kv_size(device: Device, how: Precisions) -> int:
    """Bytes of one number in the KV cache: float16 in engines, what the bundle says on the CPU."""
    return 2 if device.kind == "gpu" else int(BYTES[how.cache])
