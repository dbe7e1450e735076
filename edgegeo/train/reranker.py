"""Re-ranking adapters: a LoRA that answers "same place?" about what a retriever mistakes for each other.

A model asked about pairs drawn at random learns to tell countries apart; re-ranking meets a first stage's near misses.
So each query is shown its own target among others that a retriever ranks high for it, and learns to answer yes or no
(p(yes) / (p(yes) + p(no)) of MLLM pair scoring, arXiv 2604.13268, trained) and to put its own target first. The
retriever's cosines teach beside the truth (distillation): of ten wrong candidates they say which are how wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import is_lora, is_queries, load_pooling, load_queries, merge_adapter
from edgegeo.models.checkpoint import Checkpoint
from edgegeo.models.prompts import word_ids
from edgegeo.progress import Progress, silent
from edgegeo.train import validate
from edgegeo.train.adapting import DTYPES, Learner, attach_lora, reads_any_type, settle
from edgegeo.train.masters import Masters
from edgegeo.train.parallel import World
from edgegeo.train.retriever import Retriever
from edgegeo.train.running import AdapterReport, finite, open_run, passed, run_adapter, step_seed, steps_of
from edgegeo.train.seen import look_once
from edgegeo.train.sequences import Row, Writer, distinct
from edgegeo.train.settings import RerankerSettings, RetrieverSettings
from edgegeo.train.shared_prompt import can_share, states_behind
from edgegeo.train.sources import Pairs, Rows, open_pairs

PIECE = 1024
"""Queries whose likeness to all targets is in memory at once."""
SHOWN = 10
"""Near misses, among all validation targets, that a query is judged with: about what re-ranking gets by default."""


@dataclass(frozen=True)
class NearMisses:
    """Places and, for each kind of query, the targets that a retriever takes for theirs."""

    index: Rows
    """(P,) rows of the source."""
    others: NDArray[np.int64]
    """(kinds, P, near) rows of the source whose targets are the most alike, the likest first; none of its own group."""
    cosines: NDArray[np.float32]
    """(kinds, P, 1 + near) of each query with its own target, then with the others."""

    def first(self, count: int) -> "NearMisses":
        """The first places alone."""
        return NearMisses(self.index[:count], self.others[:, :count], self.cosines[:, :count])

    @property
    def rows(self) -> Rows:
        """Every row of the source that stands in it, once."""
        return np.union1d(self.index, self.others)


class Judge(nn.Module):
    """Margins log p(yes) - log p(no) of queries and candidates."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = [learner]  # in a list: its parameters are not ours
        settings, tokenizer = learner.checkpoint.settings, learner.checkpoint.tokenizer
        self.yes, self.no = (list(word_ids(words, tokenizer)) for words in (settings.yes, settings.no))

    def forward(self, queries: Sequence[Sequence[Row]]) -> Tensor:
        """(Q, K) float32 of Q queries' filled prompts for K candidates each; texts and pictures that ask in passes of
        their own."""
        found: list[Tensor] = []
        places: list[int] = []
        for pictures in sorted({len(rows[0].pictures) for rows in queries}):
            chosen = [i for i, rows in enumerate(queries) if len(rows[0].pictures) == pictures]
            found.append(self._margins([queries[i] for i in chosen]))
            places += chosen
        return torch.cat(found)[torch.argsort(torch.tensor(places)).to(found[0].device)]

    def _margins(self, queries: list[Sequence[Row]]) -> Tensor:
        learner = self.learner[0]
        last = states_behind(learner, queries) if can_share(learner) else _read_whole(learner, queries)
        logits = learner.checkpoint.family.parts(learner.model).head(last).float()
        return torch.logsumexp(logits[..., self.yes], -1) - torch.logsumexp(logits[..., self.no], -1)


def _read_whole(learner: Learner, queries: Sequence[Sequence[Row]]) -> Tensor:
    """Last hidden states (Q, K, hidden), every pair read by itself."""
    states, batch = learner.states([row for rows in queries for row in rows])
    last = states[torch.arange(len(states), device=states.device), batch.lengths - 1]
    return last.reshape(len(queries), len(queries[0]), -1)


def train_reranker(settings: RerankerSettings, progress: Progress = silent) -> AdapterReport:
    """Train a re-ranking adapter and write its folder; the base is never changed."""
    _check(settings)
    opened = open_run(settings, progress)
    world, learner, told = opened.world, opened.learner, opened.told
    train, held = world.in_turn(lambda: open_pairs(settings.data, learner.checkpoint.image, told))
    chosen, seed = settings.retriever or learner.checkpoint.adapter("embed"), settings.schedule.seed
    first_stage = open_retriever(learner.checkpoint, chosen, settings.memory.dtype)
    # Of the first process, since a last bit decides between candidates alike.
    near, asked = world.told(
        lambda: (
            mine(first_stage, train, settings.mine_places, settings.near, seed, told),
            mine(first_stage, held, settings.data.validation, SHOWN, seed, told).first(settings.validation_places),
        )
    )
    attach_lora(learner, settings.lora)
    judge, learned = Judge(learner), learner.trainable
    masters = Masters(learned, settings.lr, settings.weight_decay, betas=(0.9, 0.999))
    settle(learner, settings.memory)
    train = look_once(train, learner, near.rows, settings.pictures_mb, told)
    held = look_once(held, learner, asked.rows, settings.pictures_mb, told)
    return run_adapter(
        opened, train, held, masters, settings.lr, steps_of(settings.schedule, len(near.index)),
        step=Steps(settings, train, near, judge, [p for _, p in learned]),
        validate=lambda: told_apart(judge, held, asked, settings.temperature),
        goal=goal,
    )  # fmt: skip


class Steps:
    """The steps of a run by their number."""

    def __init__(
        self, settings: RerankerSettings, train: Pairs, near: NearMisses, judge: Judge, learned: list[nn.Parameter]
    ) -> None:
        self.settings, self.train, self.near, self.judge, self.learned = settings, train, near, judge, learned

    def __call__(self, number: int) -> dict[str, float]:
        """Leave the gradients of one step; its loss a query."""
        s, learner = self.settings, self.judge.learner[0]
        seed = step_seed(s.schedule.seed, number)
        rng = np.random.default_rng(seed)
        places = passed(number, s.schedule.batch, len(self.near.index), s.schedule.seed)
        kinds, _, near = self.near.others.shape
        queries: list[tuple[list[Row], NDArray[np.float32]]] = []
        for kind in range(kinds):
            few = _few(rng, len(places), near, s.wrong)
            wrong = np.take_along_axis(self.near.others[kind, places], few, 1)
            shown = np.pad(1 + few, ((0, 0), (1, 0)))  # a query's own target stands first
            cosines = np.take_along_axis(self.near.cosines[kind, places], shown, 1)
            rows = asked_rows(learner.writer, self.train, self.near.index[places], wrong, kind)
            queries += zip(rows, cosines, strict=True)
        mine, stride, told = list(learner.world.share(queries)), max(1, s.schedule.chunk // (1 + s.wrong)), 0.0
        for start in range(0, len(mine), stride):
            torch.manual_seed(seed + 7919 * (learner.world.rank * len(queries) + start))
            some = mine[start : start + stride]
            margins = self.judge([rows for rows, _ in some])
            likeness = torch.from_numpy(np.stack([cosines for _, cosines in some])).to(margins.device)
            loss = pair_loss(margins, likeness / s.temperature, s.distil) * len(some) / len(queries)
            loss.backward()
            told += float(loss.detach())
        learner.world.sum_gradients(self.learned)
        return {"loss": finite(learner.world.total(told))}


def pair_loss(margins: Tensor, likeness: Tensor, distil: float) -> Tensor:
    """Of margins and log-likelihoods (Q, 1 + wrong) whose first column is the right candidate's: yes or no for each, a
    query's wrong ones together counting as much as its right one; the right one first (softmax); and, `distil` times,
    how far the margins' distribution is from the likelihoods' (Kullback-Leibler)."""
    truth = torch.zeros_like(margins)
    truth[:, 0] = 1.0
    weights = torch.where(truth > 0, 0.5, 0.5 / (margins.shape[1] - 1))
    answered = F.binary_cross_entropy_with_logits(margins, truth, weights, reduction="sum") / len(margins)
    first = torch.zeros(len(margins), dtype=torch.long, device=margins.device)
    told = F.kl_div(margins.log_softmax(1), likeness.softmax(1), reduction="batchmean")
    return answered + F.cross_entropy(margins, first) + distil * told


def asked_rows(writer: Writer, source: Pairs, index: Rows, wrong: NDArray[np.int64], kind: int) -> list[list[Row]]:
    """For each query of one kind its own target, then the wrong ones (N, n), in the re-ranking prompt. Texts ask by the
    words that near misses were mined with, the first ones."""
    own = source.pairs(index, None)
    others = source.pairs(wrong.ravel(), None)
    count = wrong.shape[1]
    shown = [[pair, *others[i * count : (i + 1) * count]] for i, pair in enumerate(own)]
    return [[writer.pair(some[0].queries[kind], one.target) for one in some] for some in shown]


@torch.no_grad()
def told_apart(judge: Judge, source: Pairs, near: NearMisses, temperature: float) -> dict[str, float]:
    """For each kind of query: share whose own target comes first among the near misses, by the cosines alone, by the
    margins alone and by half of each; share of own targets and first near misses answered rightly. And the loss a
    query, without what the cosines teach."""
    learner = judge.learner[0]
    learner.model.eval()
    scores: dict[str, float] = {}
    losses: list[float] = []
    for kind, name in enumerate(source.kinds):
        margins = []
        stride = max(1, learner.stride // (1 + near.others.shape[2]))
        for start in range(0, len(near.index), stride):
            some = slice(start, start + stride)
            rows = asked_rows(learner.writer, source, near.index[some], near.others[kind, some], kind)
            margins.append(judge(rows))
        whole = torch.cat(margins)
        likeness = torch.from_numpy(near.cosines[kind]).to(whole.device) / temperature
        losses.append(float(pair_loss(whole, likeness, 0.0)))
        scores[f"{name}_searched"] = _first(likeness)
        scores[f"{name}_judged"] = _first(whole)
        scores[f"{name}_told_apart"] = _first(likeness + whole)
        right = torch.cat([whole[:, 0] > 0, whole[:, 1] <= 0])
        scores[f"{name}_right"] = float(right.float().mean())
    learner.model.train()
    return scores | {"validation_loss": float(np.mean(losses))}


def _first(values: Tensor) -> float:
    """Share of rows whose first column is the largest; a tie is a miss."""
    return float((values[:, :1] > values[:, 1:]).all(1).float().mean())


def goal(scores: dict[str, float]) -> float:
    """What validation chooses by: the loss, since shares of a few hundred queries move by chance from step to step."""
    return -scores["validation_loss"]


def open_retriever(checkpoint: Checkpoint, folder: Path | None, dtype: str = "fp32") -> Retriever:
    """A retriever as it was trained, to compute in a type of `Memory.dtype`: an adapter folder of any method, or None
    for the base, which stays in its own type."""
    if folder is not None and not (is_lora(folder) or is_queries(folder)):
        raise TrainingError(f"{folder} is no retrieval adapter; name a PEFT or SLQ folder, or leave retriever out")
    model = checkpoint.model
    if folder is not None and is_lora(folder):
        model = merge_adapter(checkpoint, folder).model.to(DTYPES[dtype])
        reads_any_type(checkpoint.family.parts(model).vision)
    pooling, last = ("eos", 1) if folder is None else load_pooling(folder)
    learner = Learner(checkpoint, model, Writer(checkpoint), World())
    retriever = Retriever(learner, RetrieverSettings(Path(), pooling=pooling, last=last))
    if folder is not None and is_queries(folder):
        retriever.queries = nn.Parameter(torch.from_numpy(load_queries(folder)))
    return retriever


@torch.no_grad()
def mine(retriever: Retriever, source: Pairs, places: int, near: int, seed: int, progress: Progress) -> NearMisses:
    """Near misses of some places of a source, the same for the same seed."""
    progress("mining near misses", 0, 0)
    order = np.random.default_rng((seed, 3)).permutation(len(source.groups))
    index = distinct(order, source.groups, places)
    found = validate.embed_pairs(retriever.embed, retriever.learner[0], source, index)
    most = len(found.rows) - 1
    if most < 1:
        raise TrainingError("the data hold a single target; re-ranking is learned from others beside it")
    others, cosines = [], []
    for queries in found.queries:
        for start in range(0, len(index), PIECE):
            some = slice(start, start + PIECE)
            likeness = queries[some] @ found.targets.T
            own = torch.from_numpy(source.groups[index[some]][:, None] == source.groups[found.rows][None])
            own = own.to(likeness.device)
            best = likeness.masked_fill(~own, -2.0).max(1, keepdim=True).values
            alike = likeness.masked_fill(own, -2.0).topk(min(near, most), dim=1)
            others.append(found.rows[alike.indices.cpu().numpy()])
            cosines.append(torch.cat([best, alike.values], 1).float().cpu().numpy())
    shape = (len(found.queries), len(index), -1)
    return NearMisses(index, np.concatenate(others).reshape(shape), np.concatenate(cosines).reshape(shape))


def _few(rng: np.random.Generator, rows: int, near: int, count: int) -> NDArray[np.int64]:
    """(rows, count) columns of `near`, different ones in a row; all of them, repeated, where there are too few."""
    return np.argsort(rng.random((rows, max(near, count))), axis=1)[:, :count] % near


def _check(settings: RerankerSettings) -> None:
    if min(settings.wrong, settings.near) < 1 or not (settings.lr > 0 and settings.temperature > 0):  # NaN is neither
        raise TrainingError("wrong and near must be at least 1, lr and temperature above 0")
    if not 0 <= settings.distil < float("inf"):
        raise TrainingError(f"distil must be at least 0, not {settings.distil}")
    if settings.mine_places < 2 or settings.validation_places < 2:
        raise TrainingError("mine_places and validation_places must be at least 2")
