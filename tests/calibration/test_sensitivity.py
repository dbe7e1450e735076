"""Which matrices are raised first, and how errors are measured."""

from collections.abc import Mapping

import numpy as np
import pytest

from edgegeo.calibration.sensitivity import (
    Effect,
    Group,
    Step,
    effect,
    group_matrices,
    halved_after,
    measure_effects,
    mix_after,
    order_steps,
)


def sizes(*names: str) -> dict[str, dict[str, int]]:
    return {name: {"int4": 50, "int8": 100, "fp16": 200} for name in names}


def test_half_of_the_error_is_left_after_so_many_steps() -> None:
    group = Group("a", ("c.a",), {"int4": 1, "fp16": 4})
    steps = [Step(group, "fp16", gain, 1) for gain in (8.0, 4.0, 2.0, 1.0, 1.0)]
    assert [halved_after(steps, count) for count in range(6)] == [1, 2, 3, 4, 5, 5]
    assert halved_after(steps[1:], 0) == 1


def test_effect_is_noise_over_signal_and_cosine() -> None:
    wanted = np.array([[3.0, 0.0], [0.0, 4.0]])
    got = wanted + np.array([[0.0, 0.3], [0.4, 0.0]])  # a tenth of each row, across it
    found = effect("g", "int8", [got], [wanted])
    assert found.error == pytest.approx(0.01)
    assert found.sqnr_db == pytest.approx(20.0)
    assert found.cosine == pytest.approx(1 / np.sqrt(1.01))
    assert effect("g", "int8", [wanted], [wanted]).sqnr_db == np.inf
    assert np.isnan(effect("g", "int8", [np.full((2, 2), np.nan)], [wanted]).error)


def test_every_kind_of_output_counts_alike() -> None:
    many, few = np.ones((10, 2)), np.ones((1, 2))
    assert effect("g", "int8", [many, few * 1.2], [many, few]).error == pytest.approx(0.04 / 2)


def test_groups_are_matrices_while_they_are_few() -> None:
    names = ["vision.patch", *(f"vision.layers.{i}.{m}" for i in range(3) for m in ("qkv", "fc1"))]
    found = group_matrices(sizes(*names), 10)
    assert [one.name for one in found] == names
    assert found[0].sizes == {"int4": 50, "int8": 100, "fp16": 200}


def test_many_matrices_are_grouped_by_block_and_then_by_runs_of_blocks() -> None:
    names = [f"{part}.layers.{i}.{m}" for part in ("vision", "trunk") for i in range(4) for m in ("qkv", "fc1")]
    blocks = group_matrices(sizes(*names), 8)
    assert [one.name for one in blocks] == [f"{part}.layers.{i}.*" for part in ("vision", "trunk") for i in range(4)]
    assert blocks[0].sizes["int8"] == 200
    runs = group_matrices(sizes(*names), 4)
    assert [one.name for one in runs] == [
        f"{part}.layers.{i} to {i + 1}" for part in ("vision", "trunk") for i in (0, 2)
    ]
    least = group_matrices(sizes(*names), 1)
    assert len(least) == 2  # components are never mixed
    assert sorted(layer for one in least for layer in one.layers) == sorted(names)


def test_matrices_of_other_ladders_stay_apart() -> None:
    mixed = sizes("trunk.layers.0.qkv", "trunk.layers.0.o") | {"trunk.layers.0.down": {"int8": 100, "fp16": 200}}
    assert [one.layers for one in group_matrices(mixed, 2)] == [
        ("trunk.layers.0.qkv", "trunk.layers.0.o"), ("trunk.layers.0.down",)
    ]  # fmt: skip


def test_effects_are_measured_one_group_at_a_time() -> None:
    groups = (Group("a", ("c.a",), {"int4": 1, "int8": 2, "fp16": 4}), Group("b", ("c.b",), {"int8": 2, "fp16": 4}))
    noise = {"int4": 0.2, "int8": 0.1, "fp16": 0.0}
    seen = []

    def outputs(mix: Mapping[str, str]) -> list[np.ndarray]:
        seen.append(dict(mix))
        return [np.array([[1.0, noise[mix["c.a"]], 2 * noise[mix["c.b"]]]])]

    found = measure_effects(groups, outputs)
    assert [(one.group, one.precision, round(one.error, 6)) for one in found] == [
        ("a", "int4", 0.04), ("a", "int8", 0.01), ("b", "int8", 0.04)
    ]  # fmt: skip
    assert seen[0] == {"c.a": "fp16", "c.b": "fp16"}
    assert seen[1] == {"c.a": "int4", "c.b": "fp16"}


def test_steps_go_by_error_a_byte_and_skip_a_rung_that_is_not_worth_it() -> None:
    rungs = {"int4": 50, "int8": 100, "fp16": 200}
    groups = tuple(Group(name, (f"c.{name}",), dict(rungs)) for name in ("small", "large", "odd"))
    errors = {
        ("small", "int4"): 0.2, ("small", "int8"): 0.1, ("large", "int4"): 0.9, ("large", "int8"): 0.1,
        ("odd", "int4"): 0.5, ("odd", "int8"): 0.49,  # int8 hardly helps: straight to fp16
    }  # fmt: skip
    effects = [Effect(group, precision, error, 1.0) for (group, precision), error in errors.items()]
    steps = order_steps(groups, effects)
    assert [(one.group.name, one.precision) for one in steps] == [
        ("large", "int8"), ("odd", "fp16"), ("small", "int8"), ("small", "fp16"), ("large", "fp16")
    ]  # fmt: skip
    assert steps[0].gain == pytest.approx(0.8)
    assert steps[1].bytes == 150
    assert mix_after(steps, 0) == {}
    assert mix_after(steps, 2) == {"c.large": "int8", "c.odd": "fp16"}
    assert mix_after(steps, 5) == {"c.large": "fp16", "c.odd": "fp16", "c.small": "fp16"}
