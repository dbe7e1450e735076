"""Pre-training from nothing: the base checkpoint learns the planet's pictures and words together.

Every step takes one batch of places and computes their image tokens once. Three things are learned from them:
contrastive embeddings at the end of the retrieval prompts (InfoNCE, what a SigLIP tower brings along in larger
models), answers in words (captions, questions about a place, its position), and yes or no on pairs of pictures or of
a text and a picture, half of them of different places.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgegeo.errors import TrainingError
from edgegeo.models.checkpoint import Checkpoint, ModelSettings
from edgegeo.models.family import find_family
from edgegeo.progress import Progress, silent
from edgegeo.train import validate
from edgegeo.train.adapting import Learner, reads_any_type
from edgegeo.train.data import Drawing, PlanetPlaces, planet_places
from edgegeo.train.diary import Diary
from edgegeo.train.losses import answer_loss, info_nce, last_positions, unit
from edgegeo.train.masters import Masters, cosine
from edgegeo.train.parallel import World
from edgegeo.train.running import reading
from edgegeo.train.sequences import Row, Writer
from edgegeo.train.settings import BaseSettings
from edgegeo.train.skeleton import END, NO, PROMPTS, YES, image_spec, new_model, save_checkpoint, train_tokenizer
from edgegeo.train.sources import PlanetSource
from edgegeo.train.talk import Talk, corpus
from edgegeo.train.trunk import features_of, hidden_states, use_matmul_attention

TOKENIZER_PLACES = 4_000
TEXT, TILE_TALK, PHOTO_TALK, GPS, PAIR, TEXT_PAIR = 64, 96, 64, 48, 48, 88
NEW_PAIRS = 0.5
"""Share of pairs that show different places."""
HARD_PAIRS = 0.25
"""Share of those whose other place is the most alike of the batch; the rest are drawn."""
WEIGHTS = {"gps": 3.0}
"""Loss weights other than 1. Few of an answer's tokens can be learned at all: its last digits are noise."""
GPS_PLACES = 200
"""Validation photos that positions are answered for; the whole set would cost minutes."""


@dataclass(frozen=True)
class BaseReport:
    """What pre-training reached."""

    out: str
    steps: int
    validation: dict[str, float]


class _Scale(nn.Module):
    """The learnable one over temperature of InfoNCE; it is thrown away after pre-training."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(1 / 0.07).log())

    def forward(self) -> Tensor:
        return self.log.exp().clamp(max=100.0)


class Pretraining:
    """Model, optimiser and data of one run; `step` does everything once."""

    def __init__(self, settings: BaseSettings, places: PlanetPlaces) -> None:
        self.settings, self.places = settings, places
        self.tokenizer = train_tokenizer(corpus(places.words[:TOKENIZER_PLACES]), settings.shape.vocab)
        self.talk = Talk(self.tokenizer, image_spec(settings.shape, self.tokenizer))
        torch.manual_seed(settings.seed)
        self.model: Any = new_model(settings.shape, self.tokenizer)
        self.scale = _Scale()
        parameters = [*self.model.named_parameters(), *((f"scale.{n}", p) for n, p in self.scale.named_parameters())]
        self.masters = Masters(parameters, settings.lr, settings.weight_decay)
        self.model.to(torch.bfloat16)
        use_matmul_attention(self.model)
        reads_any_type(self.model.model.vision_model)
        if settings.compile:
            for layer in [*self.model.model.vision_model.encoder.layers, *self.model.model.text_model.layers]:
                layer.compile(dynamic=False)

    def step(self, number: int) -> dict[str, float]:
        """One optimiser step; which places and words it takes depends on the seed and the number only."""
        s = self.settings
        rng = np.random.default_rng((s.seed, number))
        index = rng.choice(len(self.places.words), s.batch, replace=False)
        losses = self.losses(index, rng)
        total: Tensor = torch.stack([WEIGHTS.get(name, 1.0) * value for name, value in losses.items()]).sum()
        total.backward()
        norm = self.masters.step(cosine(number, s.steps, s.warmup, s.lr))
        return {name: float(value.detach()) for name, value in losses.items()} | {"norm": norm}

    def losses(self, index: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """Each task's loss on the places of `index`."""
        model, talk, words = self.model, self.talk, [self.places.words[i] for i in index]
        both = np.concatenate([self.places.pictures(kind, index) for kind in ("tile", "photo")])
        features = features_of(model, both)
        image = talk.padded([(talk.image, 0)] * len(both), len(talk.image))
        tiles, photos = unit(hidden_states(model, image.ids, features)[:, -1]).chunk(2)
        captions = talk.captions(words, rng, TEXT)
        texts = unit(last_positions(hidden_states(model, captions.ids), captions.lengths))
        scale = self.scale()
        losses = {"text_tile": info_nce(texts, tiles, scale), "photo_tile": info_nce(photos, tiles, scale)}
        tile, photo = features.chunk(2)
        n = self.settings.talk
        some, head = words[:n], model.get_output_embeddings().weight
        start = len(talk.image)
        for name, rows, feats in (
            ("tile_talk", talk.talks(some, "tile", rng, TILE_TALK), tile[:n]),
            ("photo_talk", talk.talks(some, "photo", rng, PHOTO_TALK), photo[:n]),
            ("gps", talk.positions(words[: 2 * n], GPS), photo[: 2 * n]),
        ):
            losses[name] = answer_loss(hidden_states(model, rows.ids, feats), rows.labels, head, start)
        likeness = {"pair": (photos @ tiles.T).detach(), "text_pair": (texts @ tiles.T).detach()}
        for name, query, length in (("pair", "image", PAIR), ("text_pair", "text", TEXT_PAIR)):
            other, same = partners(likeness[name][:n], rng)
            rows = talk.pairs(query, some, same, rng, length)
            seen = tile[other] if query == "text" else torch.stack([photo[:n], tile[other]], 1).flatten(0, 1)
            losses[name] = answer_loss(hidden_states(model, rows.ids, seen), rows.labels, head, start)
        return losses

    def validate(self, places: PlanetPlaces) -> dict[str, float]:
        """Retrieval on all validation places, positions on some."""
        # Other shapes and no gradients: compiling for them would take longer than running them.
        with torch.compiler.set_stance("force_eager"):
            return self._scores(places)

    def _scores(self, places: PlanetPlaces) -> dict[str, float]:
        spec, seed = image_spec(self.settings.shape, self.tokenizer), self.settings.data.planet_seed
        asked = ModelSettings(PROMPTS, (YES,), (NO,))
        model, ends = self.model, (self.tokenizer.token_to_id(END),)
        found = Checkpoint(
            self.settings.out, find_family("smolvlm"), model.config, model, self.tokenizer, spec, asked, ends
        )
        learner, source = Learner(found, model, Writer(found), World()), PlanetSource(places, spec, seed)

        def embed(rows: Sequence[Row]) -> Tensor:
            states, batch = learner.states(list(rows))
            return unit(last_positions(states, batch.lengths))

        some = min(len(source), GPS_PLACES)
        return validate.retrieval(embed, learner, source) | validate.answers(learner, source, some, 1.0, 22, some)


def partners(likeness: Tensor, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """For each query (rows) a tile (columns), and whether it is its own; others are random or the most alike."""
    n, wide = likeness.shape
    own = torch.arange(n)
    hardest = likeness.scatter(1, own[:, None], float("-inf")).argmax(1)
    drawn = (own + torch.from_numpy(rng.integers(1, wide, n))) % wide
    different = torch.where(torch.from_numpy(rng.random(n) < HARD_PAIRS), hardest, drawn)
    same = rng.random(n) >= NEW_PAIRS
    return torch.where(torch.from_numpy(same), own, different), same


def train_base(settings: BaseSettings, progress: Progress = silent) -> BaseReport:
    """Pre-train a checkpoint and write its folder; TrainingError if it can't start or continue.

    Half-way states and the diary lie in `out`/state; `resume` continues from there to the same weights.
    """
    state = settings.out / "state"
    if settings.batch < max(2, 2 * settings.talk):
        raise TrainingError(f"batch must be at least 2 and twice talk, got {settings.batch} and {settings.talk}")
    if not settings.resume and any((settings.out / name).exists() for name in ("config.json", "state/state.json")):
        raise TrainingError(
            f"{settings.out} holds a checkpoint already; --resume goes on with it, or name another folder"
        )
    if settings.resume and not (state / "state.json").is_file():
        raise TrainingError(f"nothing to resume in {state}; leave out --resume to start anew")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    held_out = _drawn(settings, "validation", settings.data.validation, progress)
    run = Pretraining(settings, _drawn(settings, "train", settings.data.places, progress))
    first = _resumed(run, state) if settings.resume else 0
    diary = Diary(state / "diary.jsonl")
    scores: dict[str, float] = {}
    for number in range(first, settings.steps):
        diary.add(run.step(number))
        done = number + 1
        if done % 20 == 0:
            diary.write(done)
        if done % settings.validate_every == 0 or done == settings.steps:
            run.masters.save(state / "state.safetensors")
            (state / "state.json").write_text(json.dumps({"step": done, **_identity(settings)}), encoding="utf-8")
            scores = run.validate(held_out)
            diary.write(done, **scores)
            write_base(run, settings)
        progress("pre-training", done, settings.steps)
    return BaseReport(str(settings.out), settings.steps, scores)


def write_base(run: Pretraining, settings: BaseSettings) -> None:
    """The checkpoint folder with the run's present weights."""
    model = new_model(settings.shape, run.tokenizer)
    weights = {name: value for name, value in run.masters.weights().items() if not name.startswith("scale.")}
    lacking, unknown = model.load_state_dict(weights, strict=False)
    if unknown or set(lacking) - {"lm_head.weight"}:
        raise TrainingError(f"weights and model disagree on {sorted({*lacking, *unknown})[:3]}; report this")
    model.tie_weights()
    save_checkpoint(settings.out, model, run.tokenizer, settings.shape, settings.data.planet_seed)


def _drawn(settings: BaseSettings, split: str, n: int, progress: Progress) -> PlanetPlaces:
    spec = image_spec(settings.shape)
    return planet_places(Drawing(settings.data.cache, split, n, spec, settings.data.planet_seed), progress)


def _identity(settings: BaseSettings) -> dict[str, Any]:
    # What must be equal for a continued run to be the same run.
    kept = ("shape", "steps", "batch", "talk", "lr", "warmup", "weight_decay", "seed")
    return {key: value for key, value in asdict(settings).items() if key in kept} | {"places": settings.data.places}


def _resumed(run: Pretraining, state: Path) -> int:
    with reading(state):
        saved = json.loads((state / "state.json").read_text("utf-8"))
        step = int(saved["step"])
    wanted = _identity(run.settings)
    changed = sorted(key for key, value in wanted.items() if saved.get(key) != value)
    if changed:
        names = ", ".join(changed)
        raise TrainingError(f"{state} was trained with other settings ({names}); use the same ones to resume")
    with reading(state):
        run.masters.load(state / "state.safetensors")
    return step
