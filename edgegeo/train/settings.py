"""What a person can set about training. The strings under the fields are the specification."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from edgegeo.planet import DEFAULT_SEED


@dataclass(frozen=True)
class Data:
    """What to train and validate on. A test split is refused."""

    name: str = "planet"
    """A name of `edgegeo data list`; "planet" is drawn here and kept in `cache`."""
    root: Path | None = None
    """Folder of the data set; the planet needs none."""
    split: str = "train"
    """Split of the data set to learn from."""
    cache: Path = Path("planet-cache")
    """Folder for drawn places of the planet; an interrupted drawing continues. About 0.1 MB a place."""
    places: int = 60_000
    """Most training places; all rows of one place (building, image) count once."""
    validation: int = 1_000
    """Places held out of the split: the gallery that progress and adapter choices are measured on."""
    planet_seed: int = DEFAULT_SEED
    """The planet, and which places of a data set are held out."""

    def __post_init__(self) -> None:
        if self.planet_seed < 0:
            raise ValueError(f"planet_seed must be at least 0, not {self.planet_seed}")
        if self.name == "planet" and self.root is not None:
            raise ValueError("the planet is drawn here and has no root; name the data set with --data, or leave it out")


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
    """Layers of the vision tower."""
    text_layers: int = 6
    """Layers of the decoder."""
    kv_heads: int = 2
    """Key/value heads of the decoder."""
    ffn: int = 512
    """Width of the decoder's feed-forward layers."""
    vocab: int = 1024
    """Tokens of the byte-level BPE, control tokens included."""
    max_positions: int = 512
    """Tokens that the decoder can see at once."""

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1:
            raise ValueError("every size must be at least 1")
        if self.hidden < 32 or self.hidden % 32:
            raise ValueError(f"hidden must be a multiple of 32, the width of a head, not {self.hidden}")
        if self.hidden // 32 % self.kv_heads:
            raise ValueError(f"kv_heads must divide the {self.hidden // 32} heads, got {self.kv_heads}")
        if self.image_size % (self.patch_size * self.shuffle):
            raise ValueError(
                f"image_size must be a multiple of {self.patch_size * self.shuffle}, not {self.image_size}"
            )


@dataclass(frozen=True)
class BaseSettings:
    """Pre-training from nothing (`edgegeo train base`)."""

    out: Path
    """Checkpoint folder to write; training state lies in `out`/state until the end."""
    data: Data = field(default_factory=Data)
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

    def __post_init__(self) -> None:
        if min(self.steps, self.talk, self.validate_every) < 1 or not self.lr > 0:
            raise ValueError("steps, talk and validate_every must be at least 1, lr above 0")
        _check_run(self.seed, self.warmup, self.threads)


@dataclass(frozen=True)
class Lora:
    """Shape of a LoRA (arXiv 2106.09685), gaussian init."""

    rank: int = 16
    """Of the two matrices beside each adapted one."""
    alpha: int = 128
    """alpha / rank scales the adapter."""
    dropout: float = 0.1
    """Share of the adapter's inputs that a training step leaves out."""
    dora: bool = True
    """Weight-decomposed (DoRA, arXiv 2402.09353)."""
    targets: str = "all"
    """"all": every matrix in the layers of vision tower and decoder; "vision", "text": of one of them; else a regular
    expression over module names."""


@dataclass(frozen=True)
class Memory:
    """How the base is held."""

    dtype: str = "bf16"
    """"bf16" or "fp32" to compute in; what is learned is kept in float32 anyway."""
    nf4: bool = False
    """QLoRA: the decoder's frozen matrices in 4-bit NormalFloat (arXiv 2305.14314); needs edgegeo[qlora]."""
    checkpointing: bool = False
    """Gradient checkpointing: layers are computed again instead of kept."""


@dataclass(frozen=True)
class Schedule:
    """Length of a run, and when it is validated and saved."""

    steps: int = 600
    """Optimiser steps with linear decay after the warm-up."""
    epochs: float | None = None
    """Instead of steps: passes over the training places, each in an order of its own."""
    batch: int = 128
    """Places of a step, over all processes."""
    chunk: int = 512
    """Rows whose graph is in memory at once: the smaller, the less memory, for the same result (but for dropout)."""
    warmup: int = 30
    """Steps of linear warm-up."""
    validate_every: int = 100
    """Steps between validations; the best one's weights are kept."""
    save_every: int = 50
    """Steps between states that a killed run resumes from."""
    seed: int = 1234
    """Initial adapter, order of places and choice of captions."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice."""
    resume: bool = False
    """Continue from the run's folder; gives the same weights as an uninterrupted run."""

    def __post_init__(self) -> None:
        _check_run(self.seed, self.warmup, self.threads)


@dataclass(frozen=True)
class RetrieverSettings:
    """A retrieval adapter on a frozen base (`edgegeo train retriever`)."""

    out: Path
    """Adapter folder to write; the run's own files stand in `out`.run."""
    method: str = "lora"
    """"lora": NGCG-MLLM (arXiv 2604.10721); "slq": shared latent queries (arXiv 2604.13710); "hybrid": latent queries
    and a LoRA on the vision tower, for pictures far from what the tower knows."""
    checkpoint: Path | None = None
    """Base checkpoint; None is pocket."""
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
    lora: Lora = field(default_factory=Lora)
    memory: Memory = field(default_factory=Memory)
    lr: float | None = None
    """Highest learning rate; None: 3e-4 for a LoRA, 1e-2 for queries. The papers' 1e-4 and 5e-4 suit larger models."""
    queries_lr: float = 1e-2
    """hybrid: that of the queries, while `lr` is that of the LoRA beside them."""
    weight_decay: float = 0.01
    """lora: on its matrices. Queries, and a LoRA beside them, have none."""
    pooling: str = "eos"
    """lora: "eos" (last real token), "mean" (padding excluded) or "last_k"."""
    last: int = 4
    """last_k: how many."""
    temperature: float = 0.03
    """lora: fixed temperature of InfoNCE."""
    learn_temperature: bool = False
    """lora: learn it from `initial_temperature`, as SLQ always does."""
    initial_temperature: float = 0.07
    """Learnable temperature's start."""
    symmetric: bool = True
    """lora: both directions of InfoNCE, or query to tile only, as NGCG-MLLM's code does."""
    queries: int = 8
    """slq, hybrid: number of latent queries."""
    matryoshka: tuple[int, ...] = ()
    """Leading dimensions that serve as shorter embeddings, as [32, 64, 96]: the loss is summed over them and the whole
    (Matryoshka Representation Learning, arXiv 2205.13147); `edgegeo embed --dims 64`."""
    hard: float = 0.0
    """Share of a batch that is mined: hard negatives, each among the ten most alike of another place in the batch."""
    mine_places: int = 4_000
    """Training places that hard ones are mined among, by the model as it stands and the last kind of query."""
    mine_every: int = 200
    """Steps between minings; before the first, batches are as drawn."""


@dataclass(frozen=True)
class GpsSettings:
    """A GPS adapter by supervised fine-tuning (`edgegeo train gps`, GeoLocSFT, arXiv 2506.01277)."""

    out: Path
    """Adapter folder to write; the run's own files stand in `out`.run."""
    checkpoint: Path | None = None
    """Base checkpoint; None is pocket."""
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
    lora: Lora = field(default_factory=lambda: Lora(rank=32, alpha=64, dropout=0.0, dora=False))
    memory: Memory = field(default_factory=Memory)
    lr: float = 5e-4
    """Highest learning rate."""
    weight_decay: float = 0.0
    """On matrices only."""
    form: str = "answer"
    """On the planet: "answer" at once, "reason" (a description first) or "caption" (the geo-caption JSON). A data set
    of conversations brings its own form."""
    answer_weight: float = 1.0
    """What a token of the coordinates counts for; other tokens of the answer count 1."""
    validation_photos: int = 400
    """Validation places that are answered; all of them have their loss taken."""


@dataclass(frozen=True)
class RerankerSettings:
    """A re-ranking adapter: yes or no on a retriever's near misses (`edgegeo train reranker`)."""

    out: Path
    """Adapter folder to write; the run's own files stand in `out`.run."""
    checkpoint: Path | None = None
    """Base checkpoint; None is pocket."""
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=200, batch=32))
    lora: Lora = field(default_factory=lambda: Lora(rank=16, alpha=32, dropout=0.0, dora=False))
    memory: Memory = field(default_factory=Memory)
    lr: float = 5e-4
    """Highest learning rate."""
    weight_decay: float = 0.0
    """On matrices only."""
    retriever: Path | None = None
    """Adapter folder of the first stage whose near misses are learned from; None: the checkpoint's own."""
    wrong: int = 3
    """Wrong candidates shown to a query in a step, drawn among its near misses."""
    near: int = 20
    """How many of the most alike places are near misses."""
    temperature: float = 0.03
    """The first stage's cosines are divided by it, to log-likelihoods: the retriever's own."""
    distil: float = 2.0
    """How much the first stage's likelihoods teach beside the truth."""
    mine_places: int = 4_000
    """Training places that near misses are mined among, once, before the first step."""
    validation_places: int = 300
    """Validation places that are judged with their ten likest others, of all validation places."""
    pictures_mb: int = 2_048
    """Pictures are looked at once, where the tower stands still and their image tokens fit into this memory."""


def described(settings: type, above: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every setting of a class as --set names it, its default (MISSING where it must be given), and its text."""
    body = ast.parse(textwrap.dedent(inspect.getsource(settings))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, list[str]] = {}
    name = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            texts[name] = str(node.value.value).split()
    for one in fields(settings):
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if is_dataclass(default):
            for inner, _, text in described(type(default), f"{above}{one.name}."):
                yield inner, getattr(default, inner.rpartition(".")[2]), text
        else:
            yield above + one.name, default, " ".join(texts.get(one.name, []))


def _check_run(seed: int, warmup: int, threads: int | None) -> None:
    if min(seed, warmup) < 0 or (threads is not None and threads < 1):
        raise ValueError("seed and warmup must be at least 0, threads at least 1")
