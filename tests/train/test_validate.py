"""What runs are judged by, by hand; and what is asked of which token, by gradients."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from invented import quick

from edgegeo.errors import TrainingError
from edgegeo.train import validate
from edgegeo.train.adapting import Learner, attach_lora, open_learner, settle
from edgegeo.train.gps import gps_goal
from edgegeo.train.parallel import World
from edgegeo.train.sequences import Row
from edgegeo.train.settings import Lora, Memory
from edgegeo.train.sources import Pair, open_lessons

pytest.importorskip("peft")
VECTORS = {"cat": (1.0, 0.0), "dog": (0.0, 1.0), "CAT": (0.8, 0.6), "DOG": (0.28, 0.96), "COW": (0.6, 0.8)}


class Written:
    """Queries in small letters, targets in capitals; a target may belong to several queries."""

    kinds = ("query",)
    fingerprint, refused = "", dict[str, int]()

    def __init__(self, rows: list[tuple[str, str, int]]) -> None:
        self.rows = rows
        self.groups = np.array([group for _, _, group in rows])
        self.targets = np.array([sorted(VECTORS).index(target) for _, target, _ in rows])

    def pairs(self, index: Any, rng: Any) -> list[Pair]:
        return [Pair((self.rows[i][0],), self.rows[i][1]) for i in index.tolist()]


class Speller:
    def side(self, word: str) -> Row:
        return Row(tuple(word.encode()))


class Mute:
    def eval(self) -> None: ...
    def train(self) -> None: ...


def score(rows: list[tuple[str, str, int]], stride: int = 100) -> dict[str, float]:
    def embed(found: Any) -> torch.Tensor:
        return torch.tensor([VECTORS[bytes(row.ids).decode()] for row in found])

    learner: Any = Learner(None, Mute(), Speller(), None, stride=stride)  # type: ignore[arg-type]
    return validate.retrieval(embed, learner, Written(rows))


@pytest.mark.parametrize("stride", [1, 3, 100])
def test_a_target_of_many_captions_stands_in_the_gallery_once(stride: int) -> None:
    """cat: CAT is first. dog: DOG 0.96, COW 0.8, CAT 0.6. The third asks for COW with "dog": second, although DOG has
    ten captions."""
    rows = [("dog", "DOG", 0)] * 10 + [("cat", "CAT", 1), ("dog", "COW", 2)]
    found = score(rows, stride)
    assert found["query_recall_at_1"] == pytest.approx(11 / 12)
    assert found["query_recall_at_5"] == 1.0


def test_any_target_of_the_group_is_a_hit() -> None:
    assert score([("dog", "CAT", 0), ("dog", "DOG", 0), ("cat", "COW", 1)])["query_recall_at_1"] == pytest.approx(2 / 3)


def test_positions_are_chosen_by_shares_and_else_by_loss() -> None:
    shares = {"gps_within_200_km": 0.1, "gps_within_750_km": 0.5, "gps_within_2500_km": 0.9}
    assert gps_goal(shares | {"loss_a_token": 9.0}) == pytest.approx(0.5)
    assert gps_goal({"loss_a_token": 1.0}) > gps_goal({"loss_a_token": 2.0})


def state_gradients(base_folder: Path, data: Any, weight: float) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """The gradient that each position's last state gets, the weights, and the tokens."""
    memory = Memory("fp32")
    learner = open_learner(base_folder, quick(), memory, World())
    attach_lora(learner, Lora(rank=2, dropout=0.0))
    settle(learner, memory)
    train, _ = open_lessons(data, learner.checkpoint.image, "reason", lambda *told: None)
    rows = [learner.writer.answer(one.picture, one.answer, weight) for one in train.lessons(np.arange(2), None)]
    compute, kept = learner.states, []

    def states(rows: list[Row], tail: Any = None) -> Any:
        found, batch = compute(rows, tail)
        found.retain_grad()
        kept.append(found)
        return found, batch

    learner.states = states  # type: ignore[method-assign]
    loss, total = validate.answer_loss(learner, rows)
    assert total == pytest.approx(sum(sum(row.weights) for row in rows))
    loss.backward()
    weights = torch.zeros(kept[0].shape[:2])
    for i, row in enumerate(rows):
        weights[i, : len(row.weights)] = torch.tensor(row.weights)
    return kept[0].grad, weights, rows


def test_only_answers_are_learned_and_coordinates_count_what_is_asked(base_folder: Path, data: Any) -> None:
    one, _, _ = state_gradients(base_folder, data, 1.0)
    five, weights, rows = state_gradients(base_folder, data, 5.0)
    asked = weights[:, 1:]  # a state is judged by the token after it
    assert set(asked.unique().tolist()) == {0.0, 1.0, 5.0}
    assert torch.count_nonzero(one[:, :-1][asked == 0]) == 0
    assert (one[:, :-1][asked > 0].abs().sum(-1) > 0).all()
    torch.testing.assert_close(five[:, :-1][asked == 1], one[:, :-1][asked == 1])
    torch.testing.assert_close(five[:, :-1][asked == 5], 5 * one[:, :-1][asked == 5])
    assert asked[0, len(rows[0].ids) - 2] == 1  # the end of the answer is learned too


def test_answers_beyond_the_models_positions_are_refused(base_folder: Path, data: Any) -> None:
    learner = open_learner(base_folder, quick(), Memory("fp32"), World())
    train, _ = open_lessons(data, learner.checkpoint.image, "answer", lambda *told: None)
    lesson = train.lessons(np.arange(1), None)[0]
    with pytest.raises(TrainingError, match="512 positions"):
        learner.writer.answer(lesson.picture, "a road " * 600, 1.0)
