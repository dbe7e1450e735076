"""Settings of Hugging Face image processors that every family reads alike."""

import math
from typing import Any

from edgegeo.errors import CheckpointError

STEPS = ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb")
"""What every rule of edgegeo/runtime/pictures/ does; a processor that leaves one out makes other pixels."""


def faults(preprocessor: dict[str, Any], *kinds: str) -> list[str]:
    """In words, the settings that the rule of a family can't reproduce.

    kinds: how the class names of the processors begin that it follows; a file may name none.
    """
    found = [f"{step} false" for step in STEPS if preprocessor.get(step) is False]
    kind = preprocessor.get("image_processor_type")
    if kind is not None and not str(kind).startswith(kinds):
        found.append(f"image_processor_type '{kind}'")
    return found


def pixels(
    preprocessor: dict[str, Any], resample: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, Any]:
    """`resample`, `rescale`, `mean` and `std` of an ImageSpec; the arguments are the processor's own defaults.

    CheckpointError for numbers that make no pixels.
    """
    made = {
        "resample": _setting(preprocessor, "resample", resample),
        "rescale": _setting(preprocessor, "rescale_factor", 1 / 255),
        "mean": _setting(preprocessor, "image_mean", mean),
        "std": _setting(preprocessor, "image_std", std),
    }
    try:
        filters, rescale = int(made["resample"]), float(made["rescale"])
        means, stds = tuple(map(float, made["mean"])), tuple(map(float, made["std"]))
        sound = 0 <= filters <= 5 and len(means) == len(stds) == 3 and min(stds) > 0
        if sound and all(map(math.isfinite, (rescale, *means, *stds))):
            return {"resample": filters, "rescale": rescale, "mean": means, "std": stds}
    except (TypeError, ValueError):
        pass
    named = ", ".join(f"{name} {value!r:.40}" for name, value in made.items())
    raise CheckpointError(
        f"preprocessor_config.json makes no pixels ({named}): resample is one of Pillow's filters (0 to 5), mean and "
        "std have three numbers each; download or save the file again"
    )


def _setting(preprocessor: dict[str, Any], name: str, default: Any) -> Any:
    found = preprocessor.get(name)
    return default if found is None else found
