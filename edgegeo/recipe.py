"""Typed export settings: the presets behind --fp32 --fp16 --int8 --int4, and TOML files that refine them."""

from dataclasses import dataclass, replace
from pathlib import Path

from edgegeo.errors import InputError
from edgegeo.schema import SchemaFault, parse

PRECISIONS = ("fp32", "fp16", "int8", "int4")


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint becomes a bundle. A TOML file under export/ holds the same keys."""

    name: str
    """Suffix of the default bundle name."""
    target: str = "cpu"
    """Where it runs: "cpu" (this version); chooses the operators that have kernels there."""
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
    block_size: int = 32
    """int4 only: weights that share one scale."""
    accuracy_level: int = 4
    """int4 only: MatMulNBits accumulation, 4 = int8 activations (fastest), 1 = fp32 (safest)."""
    calibration_samples: int = 64
    """Pictures and texts that ranges are calibrated on; never random data."""

    def __post_init__(self) -> None:
        for part in ("vision", "trunk", "head"):
            if getattr(self, part) not in PRECISIONS:
                raise ValueError(f"{part} must be one of {', '.join(PRECISIONS)}, not {getattr(self, part)!r}")
        if self.embeddings not in ("fp32", "fp16"):
            raise ValueError(f"embeddings must be fp32 or fp16, not {self.embeddings!r}")
        if self.vision_activations not in ("dynamic", "static"):
            raise ValueError(f"vision_activations must be dynamic or static, not {self.vision_activations!r}")
        if self.target != "cpu":
            raise ValueError(f"target {self.target!r} is not built in this version; use cpu")
        if self.block_size not in (16, 32, 64, 128, 256):
            raise ValueError(f"block_size must be 16, 32, 64, 128 or 256, not {self.block_size}")


def preset(precision: str) -> Recipe:
    """The recipe behind --fp32, --fp16, --int8 or --int4."""
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}'; use one of {', '.join(PRECISIONS)}")
    recipe = Recipe(name=precision, vision=precision, trunk=precision, head=precision)
    if precision == "fp32":
        return recipe
    if precision == "int4":
        # The vision tower stays at 8 bits: MatMulNBits is slower than int8 on its long sequences (benchmarks/).
        return replace(recipe, vision="int8", embeddings="fp16")
    return replace(recipe, embeddings="fp16")


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
