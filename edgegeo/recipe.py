"""Typed export settings: the presets behind --fp32 --fp16 --int8 --int4, and TOML files that refine them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from edgegeo.errors import InputError
from edgegeo.schema import SchemaFault, parse

DIALECTS = {"cpu": "ort", "tensorrt": "trt", "tensorrt-modern": "trt-modern"}
"""Target -> the operators of its graphs: onnxruntime's contrib operators, or standard ones, of opset 20 for TensorRT
10.3 to 11 (JetPack 6 on), of opset 23 for 10.15 to 11 (JetPack 7.2 on)."""
PRECISIONS = ("fp32", "fp16", "bf16", "int8-blocks", "int8", "nf4", "int4", "int3", "int2")
"""From the finest to the coarsest."""
BLOCKS = ("int8-blocks", "int4", "int3", "int2")
"""Those whose codes share a scale a block, which `Recipe.rounding` chooses."""
EXPLICIT = ("fp32", "fp16", "int8", "int4")
"""Those that the standard operators of the tensorrt target have."""
BYTES = {
    "fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8-blocks": 1.0, "int8": 1.0, "nf4": 0.5, "int4": 0.5, "int3": 0.375,
    "int2": 0.25,
}  # fmt: skip
"""Of one weight, without scales."""
SESSION = {
    "fp32": 1.2, "fp16": 2.2, "bf16": 2.2, "int8-blocks": 1.6, "int8": 1.1, "nf4": 1.1, "int4": 1.7, "int3": 2.2,
    "int2": 2.9,
}  # fmt: skip
"""Memory of an open session by bytes of its weights: kernels keep packed copies (benchmarks/results/real_size.md)."""
ROUNDINGS = ("nearest", "hqq", "gptq")
"""How weights become codes of a block (edgegeo/export/rounding/); gptq needs a calibration."""
RANGES = ("mse", "minmax", "percentile", "entropy")
"""How the range of static activations follows from what was seen (edgegeo/calibration/ranges.py)."""
CACHES = ("fp32", "fp16", "int8")
"""What the KV cache may be stored in."""


@dataclass(frozen=True)
class TokenBudget:
    """How much of a picture the model sees: the largest lever on latency. None leaves the checkpoint's own setting."""

    image_size: int | None = None
    """Side of the square picture (or tile) in pixels."""
    max_tiles: int | None = None
    """Most tiles a picture is split into besides the whole; 1 never splits."""
    max_pixels: int | None = None
    """Largest area of a picture, for families of native resolution (Qwen2.5-VL)."""

    def __post_init__(self) -> None:
        for name, most in (("image_size", 4096), ("max_tiles", 144), ("max_pixels", 2**26)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise ValueError(f"{name} must be between 1 and {most:,}, not {value}")

    @property
    def label(self) -> str:
        """Short words for what is set, e.g. "64px-4tiles"; empty where nothing is."""
        tiles = "tile" if self.max_tiles == 1 else "tiles"
        named = ((self.image_size, "px"), (self.max_tiles, tiles), (self.max_pixels, "pixels"))
        return "-".join(f"{value}{unit}" for value, unit in named if value is not None)


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint becomes a bundle. A TOML file under export/ holds the same keys."""

    name: str
    """Suffix of the default bundle name."""
    target: str = "cpu"
    """Where it runs, which chooses the operators: "cpu", or "tensorrt" and "tensorrt-modern" (standard operators with
    explicit Q/DQ, compiled on the device by `edgegeo compile`; onnxruntime runs them too, to check them)."""
    vision: str = "fp32"
    """Precision of the vision tower's matrices."""
    trunk: str = "fp32"
    """Precision of the text decoder's matrices."""
    head: str = "fp32"
    """Precision of the LM head; embedding and re-ranking never run it."""
    embeddings: str = "fp32"
    """Storage of the token-embedding table: fp32 or fp16."""
    vision_activations: str = "dynamic"
    """int8 only: "dynamic" (range per call) or "static" (calibrated Q/DQ)."""
    trunk_activations: str = "dynamic"
    head_activations: str = "dynamic"
    ranges: str = "mse"
    """Of static activations: "mse", "minmax", "percentile" or "entropy"."""
    rounding: str = "nearest"
    """Blocks (int8-blocks, int4, int3, int2) only: "nearest", "hqq", or "gptq" (with recorded activations)."""
    smooth: float = 0.0
    """Share of the activations' outliers that equalisation moves into the weights (SmoothQuant's alpha); 0: none."""
    kv: str = "fp32"
    """Storage of the KV cache on the cpu target: "fp32", "fp16", or "int8" (calibrated, onnxruntime >= 1.31)."""
    block_size: int = 32
    """Blocks and nf4 only: weights that share one scale."""
    accuracy_level: int = 4
    """Blocks only: MatMulNBits accumulation, 4 = int8 activations (fastest), 1 = fp32 (safest)."""
    image: TokenBudget = TokenBudget()
    """What the model sees of a picture."""
    layers: dict[str, str] = field(default_factory=dict)
    """Precision of single matrices by their name, `COMPONENT.LAYER` as in "vision.layers.3.fc1", "trunk.layers.*.down",
    "head.logits"; shell patterns, of which the first that matches counts."""
    calibration_samples: int = 64
    """Pictures and texts that ranges are calibrated on; never random data."""

    def __post_init__(self) -> None:
        for part in ("vision", "trunk", "head"):
            if getattr(self, part) not in PRECISIONS:
                raise ValueError(f"{part} must be one of {', '.join(PRECISIONS)}, not {getattr(self, part)!r}")
        if self.embeddings not in ("fp32", "fp16"):
            raise ValueError(f"embeddings must be fp32 or fp16, not {self.embeddings!r}")
        for part in ("vision_activations", "trunk_activations", "head_activations"):
            if getattr(self, part) not in ("dynamic", "static"):
                raise ValueError(f"{part} must be dynamic or static, not {getattr(self, part)!r}")
        for name, known in (("ranges", RANGES), ("rounding", ROUNDINGS), ("kv", CACHES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if not 0.0 <= self.smooth < 1.0:
            raise ValueError(f"smooth must be at least 0 and below 1, not {self.smooth}")
        if self.target not in DIALECTS:
            raise ValueError(f"target must be one of {', '.join(DIALECTS)}, not {self.target!r}")
        if wrong := {k: v for k, v in self.layers.items() if v not in PRECISIONS}:
            pattern, value = next(iter(wrong.items()))
            raise ValueError(f"layers.{pattern!r} must be one of {', '.join(PRECISIONS)}, not {value!r}")
        if self.target != "cpu" and (wrong_ones := sorted(self.precisions - set(EXPLICIT))):
            raise ValueError(f"TensorRT's graphs have {', '.join(EXPLICIT)}, not {wrong_ones[0]}")
        if self.target != "cpu" and (self.kv != "fp32" or (self.rounding == "hqq" and "int4" in self.precisions)):
            raise ValueError("kv and rounding = 'hqq' are for the cpu target; TensorRT's graphs have a cache in fp16")
        if self.target != "cpu" and "int4" in self.precisions and self.block_size < 64:
            raise ValueError(f"block_size must be 64 or 128 for int4 under TensorRT, not {self.block_size}")
        if self.block_size not in (16, 32, 64, 128, 256):
            raise ValueError(f"block_size must be 16, 32, 64, 128 or 256, not {self.block_size}")

    @property
    def precisions(self) -> frozenset[str]:
        """Every precision that a matrix may get."""
        return frozenset({self.vision, self.trunk, self.head, *self.layers.values()})

    @property
    def exact(self) -> bool:
        """Whether nothing is rounded."""
        return self.precisions == {"fp32"} and self.embeddings == self.kv == "fp32"

    @property
    def calibrated(self) -> bool:
        """Whether it asks for recorded activations."""
        static = {self.vision_activations, self.trunk_activations, self.head_activations}
        blocks = self.precisions & set(BLOCKS)
        return (
            ("int8" in self.precisions and "static" in static)
            or (self.rounding == "gptq" and bool(blocks))
            or self.smooth > 0
            or self.kv == "int8"
        )


def precision_of(layer: str, layers: Mapping[str, str], otherwise: str) -> str:
    """Precision of a matrix: of the first pattern in `layers` that matches its whole name, or `otherwise`."""
    return next((precision for pattern, precision in layers.items() if fnmatchcase(layer, pattern)), otherwise)


def check_layers(recipe: Recipe, names: Iterable[str]) -> None:
    """InputError for a pattern of the recipe that matches none of a model's layers: it would be ignored in silence."""
    known = tuple(names)
    for pattern in recipe.layers:
        if not any(fnmatchcase(name, pattern) for name in known):
            some = ", ".join(dict.fromkeys((*known[:2], *known[-1:])))
            raise InputError(f"recipe {recipe.name}: no layer matches {pattern!r}; layers are named as {some}")


def preset(precision: str, target: str = "cpu") -> Recipe:
    """The recipe behind --fp32, --fp16, --int8 or --int4, and --target."""
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}'; use one of {', '.join(PRECISIONS)}")
    if target not in DIALECTS:
        raise InputError(f"unknown target '{target}'; use one of {', '.join(DIALECTS)}")
    name, block_size = (precision, 32) if target == "cpu" else (f"{precision}-{target}", 64)
    recipe = Recipe(name=name, target=target, vision=precision, trunk=precision, head=precision, block_size=block_size)
    if precision == "fp32":
        return recipe
    if precision in (*BLOCKS, "nf4"):
        # The vision tower stays at 8 bits: MatMulNBits is slower than int8 on its long sequences (benchmarks/).
        return replace(recipe, vision="int8", embeddings="fp16")
    return replace(recipe, embeddings="fp16")


def with_budget(recipe: Recipe, budget: TokenBudget) -> Recipe:
    """The recipe with what the budget sets, which also goes into its name: other bundles, other names."""
    given = {name: value for name, value in vars(budget).items() if value is not None}
    if not given:
        return recipe
    return replace(recipe, name=f"{recipe.name}-{budget.label}", image=replace(recipe.image, **given))


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a TOML file; InputError names the file and every fault in it."""
    try:
        import tomllib
    except ModuleNotFoundError:
        raise InputError("recipes are read on the build side, which needs Python 3.11 or newer") from None
    file = Path(path)
    try:
        return parse(Recipe, tomllib.loads(file.read_text(encoding="utf-8")), file.name)
    except OSError as error:
        raise InputError(f"recipe {file} can't be read ({error.strerror}); see the examples under export/") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, SchemaFault) as fault:
        raise InputError(f"recipe {file}: {fault}") from None
