"""Sizes that no model can have are refused before anything is drawn."""

import pytest

from edgegeo.train.settings import Shape


@pytest.mark.parametrize("wrong", [{"hidden": 40}, {"hidden": 32, "kv_heads": 2}, {"image_size": 100}])
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        Shape(**wrong)
