"""What a person can set about training. The strings under the fields are the specification."""

from dataclasses import dataclass, field
from pathlib import Path

from edgegeo.planet import DEFAULT_SEED

LORA_TARGETS = (
    r".*(text_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
    r"|vision_model\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12]))"
)


@dataclass(frozen=True)
class PlanetData:
    """Which places to train and validate on. Test places are never read by training."""

    cache: Path = Path("planet-cache")
    """Folder for drawn places; an interrupted drawing continues. About 0.1 MB a place."""
    places: int = 60_000
    """Training places."""
    validation: int = 1_000
    """Validation places: the gallery that progress and adapter choices are measured on."""
    planet_seed: int = DEFAULT_SEED
    """The planet."""


@dataclass(frozen=True)
class Shape:
    """Size of a model made from nothing: SmolVLM's architecture at pocket size."""

    image_size: int = 128
    """Pixels of the square picture."""
    patch_size: int = 16
    """Pixels of a patch; (image_size / patch_size / shuffle)^2 image tokens."""
    shuffle: int = 2
    """Pixel-shuffle factor (`scale_factor`)."""
    hidden: int = 192
    """Width of vision tower and decoder; heads are 32 wide."""
    vision_layers: int = 4
    text_layers: int = 6
    kv_heads: int = 2
    """Key/value heads of the decoder."""
    ffn: int = 512
    """Width of the decoder's feed-forward layers."""
    vocab: int = 1024
    """Tokens of the byte-level BPE, control tokens included."""
    max_positions: int = 512

    def __post_init__(self) -> None:
        if self.hidden < 32 or self.hidden % 32:
            raise ValueError(f"hidden must be a multiple of 32, the width of a head, not {self.hidden}")
        if self.kv_heads < 1 or self.hidden // 32 % self.kv_heads:
            raise ValueError(f"kv_heads must divide the {self.hidden // 32} heads, got {self.kv_heads}")
        if self.image_size < 1 or self.image_size % (self.patch_size * self.shuffle):
            raise ValueError(
                f"image_size must be a multiple of {self.patch_size * self.shuffle}, not {self.image_size}"
            )


@dataclass(frozen=True)
class BaseSettings:
    """Pre-training from nothing (`edgegeo train base`)."""

    out: Path
    """Checkpoint folder to write; training state lies in `out`/state until the end."""
    data: PlanetData = field(default_factory=PlanetData)
    shape: Shape = field(default_factory=Shape)
    steps: int = 2_000
    """Optimiser steps; the cosine schedule ends with them."""
    batch: int = 128
    """Places of a step: pictures, embeddings and contrastive negatives."""
    talk: int = 32
    """Places of a step that are also talked about: caption, questions, position, pairs."""
    lr: float = 1.5e-3
    """Highest learning rate (AdamW, betas 0.9 and 0.98, clipped at norm 1)."""
    warmup: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.05
    """On matrices only."""
    seed: int = 2026
    """Initial weights, order of places and choice of words."""
    validate_every: int = 400
    """Steps between two validations, each with a saved state."""
    compile: bool = False
    """Fuse the layers with torch.compile: about a minute at the start, faster steps after it."""
    resume: bool = False
    """Continue from `out`/state; gives the same weights as an uninterrupted run."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice."""


@dataclass(frozen=True)
class RetrieverSettings:
    """A retrieval adapter on a frozen base (`edgegeo train retriever --method lora|slq`)."""

    out: Path
    """Adapter folder to write."""
    method: str = "lora"
    """"lora": NGCG-MLLM (arXiv 2604.10721); "slq": shared latent queries (arXiv 2604.13710)."""
    checkpoint: Path | None = None
    """Base checkpoint; None is pocket."""
    data: PlanetData = field(default_factory=PlanetData)
    steps: int = 600
    """Optimiser steps with linear decay after the warm-up."""
    batch: int = 128
    """Places of a step, each with its tile, photo and one caption; the others are the negatives."""
    lr: float | None = None
    """Highest learning rate; None: 3e-4 for lora, 1e-2 for slq. The papers' 1e-4 and 5e-4 suit far larger models."""
    warmup: int = 30
    """Steps of linear warm-up."""
    weight_decay: float = 0.01
    """On matrices only."""
    temperature: float = 0.03
    """lora: fixed temperature of InfoNCE; slq: ignored."""
    initial_temperature: float = 0.07
    """slq: learnable temperature's start."""
    symmetric: bool = True
    """lora: both directions of InfoNCE, or query to tile only, as the paper's code does."""
    rank: int = 16
    """lora: rank."""
    alpha: int = 128
    """lora: alpha; alpha / rank scales the adapter."""
    dropout: float = 0.1
    """lora: dropout before the adapter."""
    dora: bool = True
    """lora: weight-decomposed (DoRA)."""
    targets: str = LORA_TARGETS
    """lora: regular expression over module names; vision tower and decoder."""
    queries: int = 8
    """slq: number of latent queries."""
    seed: int = 1234
    """Initial adapter, order of places and choice of captions."""
    validate_every: int = 100
    """Steps between validations; the best one's weights are kept."""
    threads: int | None = None


@dataclass(frozen=True)
class GpsSettings:
    """A GPS adapter by supervised fine-tuning (`edgegeo train gps`, GeoLocSFT, arXiv 2506.01277)."""

    out: Path
    """Adapter folder to write."""
    checkpoint: Path | None = None
    """Base checkpoint; None is pocket."""
    data: PlanetData = field(default_factory=PlanetData)
    steps: int = 600
    """Optimiser steps with linear decay after the warm-up."""
    batch: int = 128
    """Photos of a step."""
    lr: float = 5e-4
    """Highest learning rate."""
    warmup: int = 30
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    rank: int = 32
    """LoRA rank (the paper's)."""
    alpha: int = 64
    """LoRA alpha."""
    dropout: float = 0.0
    targets: str = LORA_TARGETS
    """Regular expression over module names."""
    seed: int = 1234
    """Initial adapter and order of places."""
    validate_every: int = 100
    """Steps between validations; the best one's weights are kept."""
    threads: int | None = None
