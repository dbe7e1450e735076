"""Retrieval adapters: a LoRA (NGCG-MLLM), latent queries on a frozen model (SLQ), or queries and a LoRA that sees.

Each kind of query looks for its target among the targets of the batch.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import EMBEDDING_CONFIG, POOLINGS, SLQ_CONFIG, SLQ_FILE
from edgegeo.models.lineage import record_base
from edgegeo.progress import Progress, silent
from edgegeo.train import validate
from edgegeo.train.adapting import Learner, attach_lora, save_lora, settle
from edgegeo.train.contrast import backward_in_chunks
from edgegeo.train.losses import info_nce, nested, pooled, unit
from edgegeo.train.masters import Masters
from edgegeo.train.running import (
    AdapterReport,
    finite,
    open_run,
    passed,
    run_adapter,
    step_seed,
    steps_of,
    writing,
)
from edgegeo.train.sequences import Row, distinct
from edgegeo.train.settings import RetrieverSettings
from edgegeo.train.sources import Pairs, Rows, open_pairs

METHODS = ("lora", "slq", "hybrid")
LORA_RATE, SLQ_RATE = 3e-4, 1e-2
SHARPEST = 100.0
"""Largest learned one over temperature (CLIP's bound)."""
MOST_ALIKE = 10
"""Hard places are drawn among this many of the most alike."""


class Retriever(nn.Module):
    """What is learned besides a LoRA: latent queries (Q, hidden), shared by texts and pictures, and a temperature."""

    def __init__(self, learner: Learner, settings: RetrieverSettings) -> None:
        super().__init__()
        s, self.learner = settings, [learner]  # in a list: its parameters are not ours
        self.pooling, self.last, self.matryoshka = s.pooling, s.last, s.matryoshka
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
        # Bounded with its gradient: beyond the bound it could not come back otherwise.
        beyond = (self.log_scale.detach() - math.log(SHARPEST)).clamp(min=0)
        scale = (self.log_scale - beyond).exp()
        # All processes compute the same gradient of it, and gradients are summed over processes.
        return scale if self.learner[0].world.first else scale.detach()

    def save(self, folder: Path) -> None:
        """Exactly what was learned, float32, and what it is."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {"pooling": self.pooling, "last": self.last if self.pooling == "last_k" else 1}
        if self.matryoshka:
            facts["matryoshka"] = list(self.matryoshka)
        if self.queries is None or self.matryoshka:
            (folder / EMBEDDING_CONFIG).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if self.queries is None:
            return
        assert self.log_scale is not None
        tensors = {"queries": self.queries.detach().float(), "log_scale": self.log_scale.detach().float().reshape(1)}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, str(folder / SLQ_FILE))
        facts = {"method": "slq", "queries": len(self.queries), "hidden": self.queries.shape[1], "pooling": "mean"}
        (folder / SLQ_CONFIG).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def train_retriever(settings: RetrieverSettings, progress: Progress = silent) -> AdapterReport:
    """Train a retrieval adapter and write its folder; the base is never changed."""
    _check(settings)
    opened = open_run(settings, progress)
    learner = opened.learner
    train, held = opened.world.in_turn(lambda: open_pairs(settings.data, learner.checkpoint.image, opened.told))
    if settings.method != "slq":
        attach_lora(learner, settings.lora, "vision" if settings.method == "hybrid" else None)
    retriever = Retriever(learner, settings)
    learned = [*learner.trainable, *((f"retriever.{name}", p) for name, p in retriever.named_parameters())]
    lr = settings.lr or (SLQ_RATE if settings.method == "slq" else LORA_RATE)
    masters = Masters(
        learned, lr, settings.weight_decay if settings.method == "lora" else 0.0, betas=(0.9, 0.999),
        factors={"retriever.queries": settings.queries_lr / lr} if settings.method == "hybrid" else None,
    )  # fmt: skip
    hidden = learner.checkpoint.config.get_text_config().hidden_size
    if any(not 0 < dim < hidden for dim in settings.matryoshka):
        raise TrainingError(f"matryoshka holds numbers of dimensions from 1 to {hidden - 1}, the whole has {hidden}")
    settle(learner, settings.memory)

    def save() -> None:
        if learner.adapted is not None:
            save_lora(learner.adapted, masters.weights(), settings.out)
        retriever.save(settings.out)
        if learner.adapted is None:
            record_base(learner.model, settings.out)

    return run_adapter(
        opened, train, held, masters, lr, steps_of(settings.schedule, len(np.unique(train.groups))),
        step=Steps(settings, train, retriever, [p for _, p in learned], opened.folder),
        validate=lambda: validate.retrieval(retriever.embed, learner, held),
        goal=validate.recall_goal,
        save=save,
    )  # fmt: skip


class Steps:
    """The steps of a run by their number; only the hard places that were mined last carry over, in a file."""

    def __init__(
        self,
        settings: RetrieverSettings,
        train: Pairs,
        retriever: Retriever,
        learned: list[nn.Parameter],
        folder: Path,
    ) -> None:
        self.settings, self.train, self.retriever, self.learned = settings, train, retriever, learned
        self.folder = folder
        self._by_group = np.argsort(train.groups, kind="stable")
        self._starts = np.append(np.unique(train.groups[self._by_group], return_index=True)[1], len(train.groups))
        self._mined: tuple[int, Rows | None] = (0, None)

    def __call__(self, number: int) -> dict[str, float]:
        """Leave the gradients of one step; its loss."""
        s, world = self.settings, self.retriever.learner[0].world
        seed = step_seed(s.schedule.seed, number)
        rng = np.random.default_rng(seed)
        index = self.draw(number, rng)
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
        scale = self.retriever.scale()

        def loss(one: Tensor, other: Tensor) -> Tensor:
            return info_nce(one, other, scale, symmetric)

        return torch.stack([nested(one, targets, self.settings.matryoshka, loss) for one in queries]).mean()

    def draw(self, number: int, rng: np.random.Generator) -> Rows:
        """Rows of a step, no two of one group: the next groups of a pass, some of them beside their hard places."""
        s = self.settings
        groups = passed(number, s.schedule.batch, len(self._starts) - 1, s.schedule.seed)
        order = self._by_group[rng.integers(self._starts[groups], self._starts[groups + 1])]
        if s.hard and (mined := self._hard_places(number - number % s.mine_every)) is not None:
            count = max(1, round(s.schedule.batch * (1 - s.hard)))
            near = mined[rng.choice(len(mined), min(len(mined), count), replace=False)]
            partners = rng.permuted(near[:, 1:], axis=1).T.ravel()  # one of each place, then a second of each
            order = np.concatenate([near[:, 0], partners[: s.schedule.batch - len(near)], order])
        index = distinct(order, self.train.groups, s.schedule.batch)
        if len(index) < 2:
            raise TrainingError("the training data hold a single place; contrastive training needs others beside it")
        return index

    def _hard_places(self, at: int) -> Rows | None:
        """What was mined before step `at`: (places, 1 + most alike) rows; nothing before the first mining."""
        if at and self._mined[0] != at:
            world = self.retriever.learner[0].world
            self._mined = (at, world.told(lambda: self._read_or_mine(at)))
        return self._mined[1]

    def _read_or_mine(self, at: int) -> Rows:
        file = self.folder / f"mined-{at:06d}.npy"
        if file.is_file():  # of the run that is being resumed, by the weights of that step
            rows: Rows = np.load(file, allow_pickle=False)
            return rows
        rows = self.mine(np.random.default_rng((self.settings.schedule.seed, at, 1)))
        part = file.with_suffix(".part")
        with writing(self.folder):
            with part.open("wb") as out:
                np.save(out, rows)
            part.replace(file)
        return rows

    @torch.no_grad()
    def mine(self, rng: np.random.Generator) -> Rows:
        """Some places and the targets of others that the model takes for theirs: (places, 1 + most alike) rows."""
        s, train = self.settings, self.train
        index = distinct(rng.permutation(len(train.groups)), train.groups, s.mine_places)
        found = validate.embed_pairs(self.retriever.embed, self.retriever.learner[0], train, index)
        likeness = found.queries[-1] @ found.targets.T
        own = train.groups[index][:, None] == train.groups[found.rows][None]
        likeness[torch.from_numpy(own).to(likeness.device)] = -2.0
        near = likeness.topk(max(1, min(MOST_ALIKE, len(found.rows) - 1)), dim=1).indices.cpu().numpy()
        return np.column_stack([index, found.rows[near]])


def _check(settings: RetrieverSettings) -> None:
    if settings.method not in METHODS:
        raise TrainingError(f"method must be one of {', '.join(METHODS)}, not {settings.method!r}")
    if settings.pooling not in POOLINGS:
        raise TrainingError(f"pooling must be one of {', '.join(POOLINGS)}, not {settings.pooling!r}")
    if settings.method != "lora" and settings.pooling != "eos":
        raise TrainingError("latent queries are pooled over themselves; leave pooling out")
    if not 0 <= settings.hard < 1 or settings.queries < 1 or settings.last < 1:
        raise TrainingError("hard must be in [0, 1), queries and last at least 1")
    lr = 1.0 if settings.lr is None else settings.lr
    rates = (settings.temperature, settings.initial_temperature, lr, settings.queries_lr)
    if not all(rate > 0 for rate in rates):  # NaN is not
        raise TrainingError("temperature, initial_temperature, lr and queries_lr must be above 0")
    if settings.mine_every < 1 or settings.mine_places < 2:
        raise TrainingError("mine_every must be at least 1, mine_places at least 2")
