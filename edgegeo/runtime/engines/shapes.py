"""The ranges of shapes an engine is built for, by the names that the graphs give their free axes.

A trunk gets three ranges (optimisation profiles): one new position behind a cache, one prompt, several prompts. The
first range that holds all shapes of a call is the one it runs in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgegeo.bundle import Bundle, Segment
from edgegeo.errors import InputError
from edgegeo.runtime.generate import MOST_CANDIDATES
from edgegeo.runtime.model import PIXELS_PER_RUN
from edgegeo.runtime.pictures import most_positions

LONGEST = 2048
"""Most positions unless more are asked for: the memory of an engine grows with the square."""
USUAL_LENGTH = 64
MOST_ROWS = 4096


@dataclass(frozen=True)
class Span:
    """Sizes of an axis: kernels are chosen for the usual one and work for all."""

    least: int
    usual: int
    most: int

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.usual <= self.most:
            raise ValueError(f"sizes {self.least}, {self.usual}, {self.most} do not ascend")


Profile = dict[str, Span]
"""Axis name -> its sizes."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of calls as a person gives them, by TensorRT's names; 0: left to the bundle."""

    min: int = 1
    opt: int = 0
    """What kernels are chosen for."""
    max: int = 0

    def __post_init__(self) -> None:
        given = [size for size in (self.min, self.opt, self.max) if size]
        if self.min < 1 or min(given) < 1 or given != sorted(given):
            raise ValueError(
                f"min {self.min}, opt {self.opt}, max {self.max} must ascend from 1 (0: left to the bundle)"
            )

    def at_most(self, most: int) -> "Sizes":
        """These, with another largest size, which the others don't pass."""
        return Sizes(min(self.min, most), min(self.opt, most), most)

    def span(self, usual: int, most: int) -> Span:
        """Decided, by what the bundle says where nothing was given; opt and min give way to its largest size."""
        most = self.max or most
        return Span(min(self.min, most), max(min(self.opt or usual, most), min(self.min, most)), most)


@dataclass(frozen=True)
class Limits:
    """The calls that engines are built for; a table of an engine profile (`edgegeo.runtime.engines.profile`)."""

    batch: Sizes = Sizes(max=16)
    """Texts, pictures or prompts at once; larger batches are split."""
    answers: Sizes = Sizes(opt=1, max=MOST_CANDIDATES)
    """Candidates or beams decoded together."""
    prompt: Sizes = Sizes()
    """Positions of a prompt; without a max, what the bundle's longest job takes, at most LONGEST."""
    cache: Sizes = Sizes()
    """Positions that the KV cache has room for; without a max, as many as the longest prompt and its answer."""

    def __post_init__(self) -> None:
        for name in ("batch", "answers"):
            if not 1 <= getattr(self, name).max <= MOST_ROWS:
                raise ValueError(f"{name}.max must be between 1 and {MOST_ROWS}, not {getattr(self, name).max}")
        if 0 < self.cache.max < self.prompt.max:
            raise ValueError(
                f"cache.max {self.cache.max} is below prompt.max {self.prompt.max}: the cache holds the whole prompt"
            )

    def at_most(self, batch: int | None = None, length: int | None = None) -> "Limits":
        """These, with another largest batch, and another length of prompts and cache; InputError for none."""
        made = self
        if batch is not None:
            if not 1 <= batch <= MOST_ROWS:
                raise InputError(f"--batch must be between 1 and {MOST_ROWS}, not {batch}")
            made = replace(made, batch=made.batch.at_most(batch))
        if length is not None:
            if length < 1:
                raise InputError(f"--length must be above 0, not {length}")
            made = replace(made, prompt=made.prompt.at_most(length), cache=made.cache.at_most(length))
        return made


@dataclass(frozen=True)
class Calls:
    """`Limits` with every size decided."""

    batch: Span
    answers: Span
    prompt: Span
    cache: Span


def decide(limits: Limits, length: int) -> Calls:
    """Every size, for a longest prompt of `length` positions; InputError for a cache that can't hold it."""
    prompt = limits.prompt.span(USUAL_LENGTH, length)
    cache = limits.cache.span(4 * USUAL_LENGTH, prompt.most)
    if cache.most < prompt.most:
        raise InputError(
            f"cache.max {cache.most} is below the {prompt.most} positions of the longest prompt; raise it, or set "
            "prompt.max"
        )
    rows = limits.batch.max
    return Calls(limits.batch.span(max(1, rows // 2), rows), limits.answers.span(1, rows), prompt, cache)


def profiles(bundle: Bundle, component: str, limits: Limits) -> tuple[Profile, ...]:
    """The ranges for a component of a bundle."""
    kind = bundle.manifest.components[component].kind
    if kind == "vision":
        return (_vision(bundle, limits),)
    if kind == "text":
        role = bundle.manifest.roles.embed
        most = (role.pad_to or role.max_text_tokens + _fixed(role.text_prompt)) if role else LONGEST
        return ({"batch": limits.batch.span(1, 1), "sequence": Span(1, min(USUAL_LENGTH, most), most)},)
    calls = decide(limits, longest(bundle, limits))
    return head_profiles(calls) if kind == "head" else trunk_profiles(calls)


def head_profiles(calls: Calls) -> tuple[Profile, ...]:
    """For the head: one position of many rows, many positions of one row."""
    rows = max(calls.answers.most, calls.batch.most)
    one = {"batch": Span(calls.answers.least, calls.answers.usual, rows), "asked": Span(1, 1, 1)}
    most = calls.prompt.most
    return one, {"batch": Span(1, 1, 1), "asked": Span(1, min(16, most), most)}


def trunk_profiles(calls: Calls) -> tuple[Profile, ...]:
    """For the decoder: one step of many answers, one prompt behind a cache, several prompts."""
    return _step(calls), _prompts(calls, Span(1, 1, 1), calls.cache.most), _prompts(calls, calls.batch, 0)


def longest(bundle: Bundle, limits: Limits) -> int:
    """Positions of the longest job: what `limits` says, or the bundle's own; InputError beyond what the model reads."""
    most = bundle.decoder.max_positions
    for what, given in (("prompt", limits.prompt.max), ("cache", limits.cache.max)):
        if given > most:
            raise InputError(
                f"a {what} of {given} positions is beyond the {most} that the model reads; lower --length, or "
                f"{what}.max of the profile"
            )
    if limits.prompt.max:
        return limits.prompt.max
    roles, image = bundle.manifest.roles, most_positions(bundle.manifest.image)
    text, found = 0, [1]
    if roles.embed is not None:
        text, queries = roles.embed.max_text_tokens, 0
        if roles.embed.queries is not None:
            queries = len(np.load(bundle.file(roles.embed.queries), mmap_mode="r", allow_pickle=False))
        found += [_fixed(roles.embed.text_prompt) + text + queries, _fixed(roles.embed.image_prompt) + image + queries]
    if roles.rerank is not None:
        found += [_fixed(roles.rerank.text_prompt) + text + image, _fixed(roles.rerank.image_prompt) + 2 * image]
    if roles.generate is not None:
        prompts = (roles.generate.prompt, *roles.generate.phrasings)
        found.append(max(map(_fixed, prompts)) + image + roles.generate.max_new_tokens)
    return min(max(found), most, LONGEST)


def sizes(dims: Mapping[str, Sequence[int | str]], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Axis name -> its size in a call; dims: of every input. InputError for shapes that contradict them."""
    found: dict[str, int] = {}
    for name, shape in shapes.items():
        if len(shape) != len(dims[name]):
            raise InputError(f"{name} has {len(shape)} axes, the engine takes {len(dims[name])}")
        for size, axis in zip(shape, dims[name], strict=True):
            expected = found.setdefault(axis, size) if isinstance(axis, str) else axis
            if size != expected:
                raise InputError(f"{name} has the shape {tuple(shape)}, where {axis} is {expected}")
    return found


def choose(built: Sequence[Profile], found: Mapping[str, int]) -> int | None:
    """Number of the first range that holds the sizes; None if none does."""
    for number, profile in enumerate(built):
        if all(span.least <= found.get(axis, span.least) <= span.most for axis, span in profile.items()):
            return number
    return None


def most_rows(built: Sequence[Profile], found: Mapping[str, int]) -> int:
    """Most rows of a batch in the range that would hold the sizes if there were fewer rows; 0 if none would."""
    fitting = (one["batch"].most for one in built if "batch" in one and choose([one], {**found, "batch": 1}) == 0)
    return max(fitting, default=0)


def beyond(built: Sequence[Profile], found: Mapping[str, int]) -> str:
    """In words: what of the sizes no range holds, and what the engine takes."""
    axes: Iterable[str] = dict.fromkeys(axis for profile in built for axis in profile)
    said = []
    for axis in axes:
        least = min(profile[axis].least for profile in built if axis in profile)
        most = max(profile[axis].most for profile in built if axis in profile)
        if axis in found and not least <= found[axis] <= most:
            said.append(f"{axis} {found[axis]} (it takes {least} to {most})")
    whole = ", ".join(f"{axis} {size}" for axis, size in found.items())
    return ", ".join(said) or f"{whole} together"


def _step(calls: Calls) -> Profile:
    """One new position a row behind a cache."""
    past = calls.cache.most - 1
    usual = min(calls.cache.usual, past)
    return {
        "batch": Span(calls.answers.least, calls.answers.usual, max(calls.answers.most, calls.batch.most)),
        "sequence": Span(1, 1, 1), "asked": Span(1, 1, 1),
        "past": Span(0, usual, past), "total": Span(1, usual + 1, past + 1),
    }  # fmt: skip


def _prompts(calls: Calls, batch: Span, past: int) -> Profile:
    """Prompts behind up to `past` positions."""
    new = calls.prompt
    return {
        "batch": batch, "sequence": new, "asked": Span(1, 1, new.most),
        "past": Span(0, 0, past), "total": Span(new.least, new.usual, new.most + past),
    }  # fmt: skip


def _vision(bundle: Bundle, limits: Limits) -> Profile:
    spec = bundle.manifest.image
    if spec.tokens:
        return {"batch": Span(1, 1, max(1, PIXELS_PER_RUN // spec.size**2))}
    tokens, side = longest(bundle, limits), spec.window // spec.size
    usual = min(16 * side * side, tokens)

    def windows(count: int) -> int:
        """Of the thinnest grid of so many tokens, which has the most."""
        return count // side**2 + (count + 1) // side + 1

    merged = spec.merge**2
    return {
        "patches": Span(merged, usual * merged, tokens * merged),
        "windows": Span(1, max(1, usual // side**2), windows(tokens)),
    }


def _fixed(prompt: Sequence[Segment]) -> int:
    return sum(len(segment.ids or ()) for segment in prompt)
