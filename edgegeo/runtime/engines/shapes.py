"""The ranges of shapes an engine is built for, by the names that the graphs give their free axes.

A trunk gets three ranges (optimisation profiles): one new position behind a cache, one prompt, several prompts. The
first range that holds all shapes of a call is the one it runs in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgegeo.bundle import Bundle, Segment
from edgegeo.errors import InputError
from edgegeo.runtime.generate import MOST_CANDIDATES
from edgegeo.runtime.model import PIXELS_PER_RUN
from edgegeo.runtime.pictures import most_positions

LONGEST = 2048
"""Most positions unless more are asked for: the memory of an engine grows with the square."""
USUAL_LENGTH = 64


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
class Limits:
    """The largest calls that engines take."""

    batch: int = 16
    """Texts, pictures or prompts at once; larger batches are split."""
    length: int = 0
    """Positions of a prompt and its answer; 0: what the bundle's longest job takes, at most LONGEST."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 4096:
            raise InputError(f"--batch must be between 1 and 4096, not {self.batch}")
        if self.length < 0:
            raise InputError(f"--length must be above 0, not {self.length}")


def profiles(bundle: Bundle, component: str, limits: Limits) -> tuple[Profile, ...]:
    """The ranges for a component of a bundle."""
    kind = bundle.manifest.components[component].kind
    if kind == "vision":
        return (_vision(bundle, limits),)
    if kind == "text":
        role = bundle.manifest.roles.embed
        most = (role.pad_to or role.max_text_tokens + _fixed(role.text_prompt)) if role else LONGEST
        return ({"batch": Span(1, 1, limits.batch), "sequence": Span(1, min(USUAL_LENGTH, most), most)},)
    length = longest(bundle, limits)
    rows = max(limits.batch, MOST_CANDIDATES)
    return head_profiles(rows, length) if kind == "head" else trunk_profiles(limits.batch, rows, length)


def head_profiles(rows: int, length: int) -> tuple[Profile, ...]:
    """For the head: one position of many rows, many positions of one row."""
    one = {"batch": Span(1, 1, rows), "asked": Span(1, 1, 1)}
    return one, {"batch": Span(1, 1, 1), "asked": Span(1, min(16, length), length)}


def trunk_profiles(batch: int, rows: int, length: int) -> tuple[Profile, ...]:
    """For the decoder: one step of `rows` answers, one prompt behind a cache, `batch` prompts, of at most `length`."""
    usual = min(USUAL_LENGTH, length)
    return _step(rows, length), _prompts(1, usual, length, length), _prompts(batch, usual, length, 0)


def longest(bundle: Bundle, limits: Limits) -> int:
    """Positions of the longest job: what `limits` says, or the bundle's own; InputError beyond what the model reads."""
    most = bundle.decoder.max_positions
    if limits.length:
        if limits.length > most:
            raise InputError(f"--length {limits.length} is beyond the {most} positions that the model reads")
        return limits.length
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


def _step(rows: int, length: int) -> Profile:
    """One new position a row behind a cache."""
    past = max(length - 1, 0)
    usual = min(4 * USUAL_LENGTH, past)
    return {
        "batch": Span(1, 1, rows), "sequence": Span(1, 1, 1), "asked": Span(1, 1, 1),
        "past": Span(0, usual, past), "total": Span(1, usual + 1, past + 1),
    }  # fmt: skip


def _prompts(rows: int, usual: int, length: int, past: int) -> Profile:
    """Prompts of up to `length` positions behind up to `past`."""
    return {
        "batch": Span(1, max(1, rows // 2), rows), "sequence": Span(1, usual, length), "asked": Span(1, 1, length),
        "past": Span(0, 0, past), "total": Span(1, usual, length + past),
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
