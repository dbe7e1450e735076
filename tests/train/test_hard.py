"""Hard negatives: what is mined, what stands in a batch, and that a resumed run has the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented import quick
from test_running import curve, stopped_at

from edgegeo.train import validate
from edgegeo.train.adapting import open_learner, settle
from edgegeo.train.parallel import World
from edgegeo.train.retriever import SHARPEST, Retriever, Steps, train_retriever
from edgegeo.train.settings import Lora, Memory, RetrieverSettings
from edgegeo.train.sources import open_pairs

pytest.importorskip("peft")


def steps(base_folder: Path, data: Any, folder: Path, **changes: Any) -> Steps:
    settings = RetrieverSettings(out=folder, method="slq", checkpoint=base_folder, data=data, queries=2, **changes)
    learner = open_learner(base_folder, settings.schedule, Memory("fp32"), World())
    settle(learner, Memory("fp32"))
    train, _ = open_pairs(data, learner.checkpoint.image, lambda *told: None)
    return Steps(settings, train, Retriever(learner, settings), [], folder)


def test_the_most_alike_of_other_places_are_mined(base_folder: Path, data: Any, tmp_path: Path) -> None:
    made = steps(base_folder, data, tmp_path, hard=0.5, schedule=quick())
    mined = made.mine(np.random.default_rng(0))
    assert mined.shape == (8, 8)  # each of eight places, and the seven others
    found = validate.embed_pairs(made.retriever.embed, made.retriever.learner[0], made.train, np.arange(8))
    likeness = (found.queries[-1] @ found.targets.T).numpy()
    for place, *near in mined.tolist():
        assert place not in near
        others = [i for i in np.argsort(-likeness[place], kind="stable").tolist() if i != place]
        np.testing.assert_allclose(likeness[place][near], likeness[place][others], atol=1e-6)


@pytest.mark.parametrize(("hard", "most"), [(0.5, 2), (0.75, 1), (0.25, 3)])
def test_a_share_of_the_batch_is_hard_places_of_the_rest(
    hard: float, most: int, base_folder: Path, data: Any, tmp_path: Path
) -> None:
    made = steps(base_folder, data, tmp_path, hard=hard, mine_every=2, schedule=quick(batch=4))
    near = {0: (1, 2, 3), 1: (0, 2, 3), 2: (3, 0, 1), 3: (2, 1, 0)}
    near |= {place + 4: tuple(other + 4 for other in others) for place, others in near.items()}
    np.save(tmp_path / "mined-000002.npy", np.array([(place, *others) for place, others in near.items()]))
    plain = made.draw(1, np.random.default_rng(0))
    assert len(set(plain.tolist())) == 4
    for seed in range(20):
        index = made.draw(3, np.random.default_rng(seed)).tolist()
        assert len(set(index)) == 4
        anchors, partners = index[:most], index[most:]
        if len({place // 4 for place in anchors}) == len(anchors):  # no two whose partners may coincide
            assert {place // 4 for place in partners} <= {place // 4 for place in anchors}


def test_the_last_passes_are_whole(base_folder: Path, data: Any, tmp_path: Path) -> None:
    """Without hard places every place is seen once before any is seen again."""
    made = steps(base_folder, data, tmp_path, schedule=quick(batch=4))
    seen = np.concatenate([made.draw(number, np.random.default_rng(number)) for number in (0, 1)])
    assert sorted(seen.tolist()) == list(range(8))


@pytest.mark.parametrize("step", [3, 4])
def test_a_resumed_run_has_the_same_hard_places(step: int, base_folder: Path, data: Any, tmp_path: Path) -> None:
    """Stopped after the mining before step 2, whether or not the next one follows at once."""
    plan = quick(steps=6, validate_every=3, save_every=1)
    settings = RetrieverSettings(
        out=tmp_path / "whole", checkpoint=base_folder, data=data, lora=Lora(rank=2), schedule=plan, hard=0.5,
        mine_every=2, lr=0.02,
    )  # fmt: skip
    train_retriever(settings)
    broken = replace(settings, out=tmp_path / "broken")
    stopped_at(broken, step)
    train_retriever(replace(broken, schedule=replace(plan, resume=True)))
    assert curve(broken.out) == curve(settings.out)
    for at in (2, 4):
        files = [out.with_name(f"{out.name}.run") / f"mined-{at:06d}.npy" for out in (settings.out, broken.out)]
        assert np.array_equal(np.load(files[0]), np.load(files[1]))
    assert json.loads((tmp_path / "broken.run" / "state.json").read_text())["step"] == 6


def test_a_learned_temperature_is_bounded_and_comes_back(base_folder: Path, data: Any, tmp_path: Path) -> None:
    retriever = steps(base_folder, data, tmp_path, schedule=quick()).retriever
    assert retriever.log_scale is not None
    for raised in (0.0, 9.0):
        retriever.log_scale.data += raised
        retriever.log_scale.grad = None
        scale: Any = retriever.scale()
        scale.backward()
        assert float(scale.detach()) <= SHARPEST * 1.001
        assert float(retriever.log_scale.grad) == pytest.approx(float(scale.detach()), rel=1e-4)
    assert float(scale.detach()) == pytest.approx(SHARPEST, rel=1e-4)
