"""Retrieval adapters: a LoRA (NGCG-MLLM), latent queries on a frozen model (SLQ), or queries and a LoRA that sees.

Each kind of query looks for its target among the targets of the batch.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import EMBEDDING_CONFIG, SLQ_CONFIG, SLQ_FILE
from edgegeo.progress import Progress, silent
from edgegeo.schema import to_plain
from edgegeo.train import validate
from edgegeo.train.adapting import Learner, attach_lora, open_learner, save_lora, settle
from edgegeo.train.contrast import backward_in_chunks
from edgegeo.train.losses import info_nce, pooled, unit
from edgegeo.train.masters import Masters
from edgegeo.train.parallel import World
from edgegeo.train.running import AdapterReport, Job, finite, run, step_seed, steps_of
from edgegeo.train.sequences import Row, distinct
from edgegeo.train.settings import RetrieverSettings
from edgegeo.train.sources import Pairs, open_pairs

METHODS = ("lora", "slq", "hybrid")
POOLINGS = ("eos", "mean", "last_k")
LORA_RATE, SLQ_RATE = 3e-4, 1e-2
SHARPEST = 100.0
"""Largest learned one over temperature (CLIP's bound)."""
MOST_ALIKE = 10
"""Hard places are drawn among this many of the most alike."""
Rows = np.ndarray[Any, np.dtype[np.int64]]


class Retriever(nn.Module):
    """What is learned besides a LoRA: latent queries (Q, hidden), shared by texts and pictures, and a temperature."""

    def __init__(self, learner: Learner, settings: RetrieverSettings) -> None:
        super().__init__()
        s, self.learner = settings, [learner]  # in a list: its parameters are not ours
        self.pooling, self.last = s.pooling, s.last
        self.queries: nn.Parameter | None = None
        self.log_scale: nn.Parameter | None = None
        self.fixed = 1 / s.temperature
        if s.method != "lora":
            hidden = learner.checkpoint.config.get_text_config().hidden_size
            self.queries = nn.Parameter(torch.randn(s.queries, hidden) / hidden**0.5)
        if s.method != "lora" or s.learn_temperature:
            self.log_scale = nn.Parameter(torch.tensor(1 / s.initial_temperature).log())
        self.to(learner.world.device)

    def embed(self, rows: Sequence[Row]) -> Tensor:
        """Unit embeddings (N, hidden), texts and pictures in passes of their own."""
        parts, places = [], []
        for seen in (False, True):
            chosen = [i for i, row in enumerate(rows) if bool(row.pictures) == seen]
            if chosen:
                parts.append(self._pooled([rows[i] for i in chosen]))
                places += chosen
        back = torch.argsort(torch.tensor(places))
        return torch.cat(parts)[back.to(parts[0].device)]

    def _pooled(self, rows: list[Row]) -> Tensor:
        states, batch = self.learner[0].states(rows, self.queries)
        if self.queries is None:
            return unit(pooled(states, batch.lengths, self.pooling, self.last))
        places = batch.lengths[:, None] + torch.arange(len(self.queries), device=states.device)
        return unit(states.gather(1, places[..., None].expand(-1, -1, states.shape[-1])).mean(1))

    def scale(self) -> Tensor | float:
        """One over the temperature."""
        if self.log_scale is None:
            return self.fixed
        scale = self.log_scale.exp().clamp(max=SHARPEST)
        # All processes compute the same gradient of it, and gradients are summed over processes.
        return scale if self.learner[0].world.first else scale.detach()

    def save(self, folder: Path) -> None:
        """Exactly what was learned, float32, and what it is."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        if self.queries is None:
            facts: dict[str, Any] = {"pooling": self.pooling, "last": self.last if self.pooling == "last_k" else 1}
            (folder / EMBEDDING_CONFIG).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            return
        assert self.log_scale is not None
        tensors = {"queries": self.queries.detach().float(), "log_scale": self.log_scale.detach().float().reshape(1)}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, str(folder / SLQ_FILE))
        facts = {"method": "slq", "queries": len(self.queries), "hidden": self.queries.shape[1], "pooling": "mean"}
        (folder / SLQ_CONFIG).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def train_retriever(settings: RetrieverSettings, progress: Progress = silent) -> AdapterReport:
    """Train a retrieval adapter and write its folder; the base is never changed."""
    _check(settings)
    world = World()
    learner = open_learner(settings.checkpoint, settings.schedule, settings.memory, world)
    train, held = open_pairs(settings.data, learner.checkpoint.image, progress if world.first else silent)
    if settings.method != "slq":
        attach_lora(learner, settings.lora, "vision" if settings.method == "hybrid" else None)
    retriever = Retriever(learner, settings)
    learned = [*learner.trainable, *((f"retriever.{name}", p) for name, p in retriever.named_parameters())]
    lr = settings.lr or (SLQ_RATE if settings.method == "slq" else LORA_RATE)
    masters = Masters(learned, lr, settings.weight_decay if settings.method == "lora" else 0.0, betas=(0.9, 0.999))
    settle(learner, settings.memory)
    steps = steps_of(settings.schedule, len(np.unique(train.groups)))
    job = Job(
        step=Steps(settings, train, retriever, [p for _, p in learned]),
        validate=lambda: validate.retrieval(retriever.embed, learner, held),
        goal=validate.recall_goal,
        masters=masters,
        lr=lr,
        facts=_facts(settings, steps) | {"train": train.fingerprint, "validation": held.fingerprint},
    )
    folder = settings.out.with_name(f"{settings.out.name}.run")
    reached = run(job, settings.schedule, steps, folder, world, progress if world.first else silent)
    if world.first:
        if learner.adapted is not None:
            save_lora(learner.adapted, masters.weights(), settings.out)
        retriever.save(settings.out)
    world.close()
    return AdapterReport(str(settings.out), trainable=sum(p.numel() for _, p in learned), **reached)


class Steps:
    """The steps of a run by their number; only the hard places that were mined last carry over."""

    def __init__(
        self, settings: RetrieverSettings, train: Pairs, retriever: Retriever, learned: list[nn.Parameter]
    ) -> None:
        self.settings, self.train, self.retriever, self.learned = settings, train, retriever, learned
        self._neighbours: tuple[Rows, Rows] | None = None
        self._mined_at = -1

    def __call__(self, number: int) -> dict[str, float]:
        """Leave the gradients of one step; its loss."""
        s, world = self.settings, self.retriever.learner[0].world
        seed = step_seed(s.schedule.seed, number)
        rng = np.random.default_rng(seed)
        if s.hard:
            self._mine(number - number % s.mine_every)
        index = self._draw(rng)
        writer = self.retriever.learner[0].writer
        pairs = self.train.pairs(index, rng)
        rows = [writer.side(pair.target) for pair in pairs]
        for kind in range(len(self.train.kinds)):
            rows += [writer.side(pair.queries[kind]) for pair in pairs]
        loss = backward_in_chunks(rows, self.retriever.embed, self._loss, s.schedule.chunk, seed, world)
        world.sum_gradients(self.learned)
        return {"loss": finite(loss)}

    def _loss(self, embeddings: Tensor) -> Tensor:
        targets, *queries = embeddings.chunk(1 + len(self.train.kinds))
        symmetric = self.settings.symmetric or self.settings.method != "lora"
        losses = [info_nce(one, targets, self.retriever.scale(), symmetric) for one in queries]
        return torch.stack(losses).mean()

    def _draw(self, rng: np.random.Generator) -> Rows:
        groups, batch = self.train.groups, self.settings.schedule.batch
        order = rng.permutation(len(groups))
        if self._neighbours is not None:
            known, near = self._neighbours
            count = min(len(known), round(batch * (1 - self.settings.hard)))
            first = rng.choice(len(known), count, replace=False)
            partners = near[first, rng.integers(0, near.shape[1], count)]
            chosen = known[first]
            # Each place stands beside one that the model takes for it; what is left over fills the batch.
            order = np.concatenate([chosen, partners[: batch - count], order])
        index = distinct(order, groups, batch)
        if len(index) < 2:
            raise TrainingError("the training data hold a single place; contrastive training needs others beside it")
        return index

    @torch.no_grad()
    def _mine(self, at: int) -> None:
        """Find, for the queries of some places, the targets of other places that the model thinks most alike."""
        if at == self._mined_at:
            return
        self._mined_at = at
        if at == 0:
            return  # the base's own idea of likeness; an untrained LoRA changes nothing, queries know nothing
        s = self.settings
        rng = np.random.default_rng((s.schedule.seed, at, 1))
        index = distinct(rng.permutation(len(self.train.groups)), self.train.groups, s.mine_places)
        found = validate.embed_pairs(self.retriever.embed, self.retriever.learner[0], self.train, index)
        likeness = found.queries[-1] @ found.targets.T
        likeness.fill_diagonal_(-2.0)
        near = likeness.topk(min(MOST_ALIKE, len(index) - 1), dim=1).indices.cpu().numpy()
        self._neighbours = (index, index[near])


def _check(settings: RetrieverSettings) -> None:
    if settings.method not in METHODS:
        raise TrainingError(f"method must be one of {', '.join(METHODS)}, not {settings.method!r}")
    if settings.pooling not in POOLINGS:
        raise TrainingError(f"pooling must be one of {', '.join(POOLINGS)}, not {settings.pooling!r}")
    if settings.method != "lora" and settings.pooling != "eos":
        raise TrainingError("latent queries are pooled over themselves; leave pooling out")
    if not 0 <= settings.hard < 1 or settings.temperature <= 0 or settings.queries < 1 or settings.last < 1:
        raise TrainingError("hard must be in [0, 1), temperature above 0, queries and last at least 1")
    if settings.hard and settings.schedule.resume:
        raise TrainingError("a run with mined negatives can't be resumed: what was mined isn't kept; start it anew")


def _facts(settings: RetrieverSettings, steps: int) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(settings)
    for name in ("out", "checkpoint"):
        plain[name] = None if plain[name] is None else Path(plain[name]).name
    plain["data"] |= {"cache": None, "root": None}
    plain["schedule"] = {**plain["schedule"], "steps": steps, "resume": False, "threads": None, "chunk": None}
    return plain
