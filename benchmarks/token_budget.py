"""What the token budget costs at SmolVLM-256M's true size: one photo to its embedding, by picture size and tiles.

    python benchmarks/token_budget.py --threads 1

Random weights: speed does not depend on what they say, and accuracy is what `edgegeo bench --image-size --tiles`
measures on a trained model. Every vision tower is compared with transformers at its own size before it is timed.
Writes benchmarks/results/token_budget_smolvlm-256m.json and .md.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import true_size
from contest import FLOORS
from PIL import Image

from edgegeo.bench.cells import versions
from edgegeo.bundle import ImageSpec, TrunkSpec
from edgegeo.export.components import Part, write
from edgegeo.measure import machine, summarize, time_in_turn
from edgegeo.models.family import find_family
from edgegeo.recipe import preset
from edgegeo.runtime.pictures import Picture, positions_of, prepare_picture
from edgegeo.runtime.sessions import open_session
from edgegeo.runtime.trunk import Trunk, TrunkInput

RESULTS = Path(__file__).parent / "results"
STEM = "token_budget_smolvlm-256m"
BUDGETS = ((128, 1), (256, 1), (384, 1), (512, 1), (512, 2), (512, 4))
"""Side of a tile, and tiles of the longest edge; SmolVLM's own processor has the last one."""
PHOTO = (1600, 1200)
STEPS = ("prepare", "vision", "decoder")
HEADERS = ("setting", "tiles", "image tokens", "positions", *(f"{step} ms" for step in STEPS), "together ms", "times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(Path(scratch), options.precision, options.threads, options.repeats)
    settings = {"precision": options.precision, "threads": options.threads, "repeats": options.repeats}
    found = {"machine": machine(), "versions": versions(), "settings": settings, "rows": rows}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{STEM}.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.output / f"{STEM}.md").write_text(page(found))
    print(page(found))


def measure(folder: Path, precision: str, threads: int, repeats: int) -> list[dict[str, Any]]:
    """One row a budget; all are timed in turn."""
    model, text = true_size.random_model(), true_size.TEXT
    names = ("num_hidden_layers", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size")
    shape = TrunkSpec(*(text[name] for name in names), text["max_position_embeddings"])
    trunk = Trunk(_session(model, "trunk", budget(*BUDGETS[0]), precision, folder, threads), shape)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*PHOTO[::-1], 3), dtype=np.uint8))
    jobs: dict[str, Callable[[], object]] = {}
    rows, towers = [], {}
    for size, side in BUDGETS:
        spec = budget(size, side)
        if size not in towers:
            towers[size] = _session(model, "vision", spec, precision, folder / str(size), threads)
        picture = prepare_picture(photo, spec)
        agreement = _agreement(model, towers[size], picture)
        if not agreement >= FLOORS[precision]:
            raise SystemExit(f"{size} px: disagrees with transformers (cosine {agreement:.4f} < {FLOORS[precision]})")
        positions, tiles = positions_of(picture.layout), len(picture.inputs["pixel_values"])
        setting = f"{size} px" if side == 1 else f"{size} px, up to {side * side} tiles"
        jobs[f"{setting} prepare"] = lambda s=spec: prepare_picture(photo, s)
        jobs[f"{setting} vision"] = lambda t=towers[size], p=picture: _tower(t, p)
        jobs[f"{setting} decoder"] = lambda n=positions: _prefill(trunk, n, shape.hidden)
        rows.append({"setting": setting, "tiles": tiles, "tokens": tiles * spec.tokens, "positions": positions,
                     "agreement": agreement})  # fmt: skip
    took = {name: summarize(seconds).p50_ms for name, seconds in time_in_turn(jobs, repeats, warmup=1).items()}
    for row in rows:
        row |= {f"{step}_ms": took[f"{row['setting']} {step}"] for step in STEPS}
        row["together_ms"] = sum(row[f"{step}_ms"] for step in STEPS)
    return rows


def budget(size: int, side: int) -> ImageSpec:
    """SmolVLM's preprocessing at a budget; marks of the lengths that its tokenizer gives them."""
    lines = range(1, side + 1)
    marks: dict[str, tuple[int, ...]] = {"before": (0, 0), "whole": (0, 0, 0), "after": (0,)}
    for row in lines:
        marks |= {f"row_{row}_col_{column}": (0,) * (2 + (row > 1 and column == 1)) for column in lines}
    tokens = (size // true_size.VISION["patch_size"] // 4) ** 2
    half = (0.5,) * 3
    edge = 4 * size if side == 1 else side * size
    return ImageSpec(
        "smolvlm", size, 1, 1 / 255, half, half, tokens, longest_edge=edge, max_tiles=side * side, marks=marks
    )


def page(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows, facts = found["rows"], {**found["machine"], **found["versions"], **found["settings"]}
    whole = next(row for row in rows if row["setting"] == f"{true_size.VISION['image_size']} px")["together_ms"]
    lines = [
        "# The token budget at SmolVLM-256M's true size", "",
        f"One photo of {PHOTO[0]} x {PHOTO[1]} px to its embedding, median ms; times: against the model's own picture "
        "size, not split. Random weights: accuracy is not measured here.", "",
        ", ".join(f"{name} {value}" for name, value in facts.items()), "",
        "| " + " | ".join(HEADERS) + " |", "|---|" + "---:|" * (len(HEADERS) - 1),
    ]  # fmt: skip
    for row in rows:
        numbers = [f"{row[f'{step}_ms']:.0f}" for step in (*STEPS, "together")]
        cells = [row["setting"], row["tiles"], row["tokens"], row["positions"], *numbers]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['together_ms'] / whole:.2f} |")
    worst = min(row["agreement"] for row in rows)
    return "\n".join([*lines, "", f"Lowest cosine of image tokens to transformers: {worst:.4f}", ""])


def _session(model: Any, kind: str, spec: ImageSpec, precision: str, folder: Path, threads: int) -> Any:
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    part, _ = write(Part(kind, kind, model, find_family("smolvlm"), spec), preset(precision), folder)
    return open_session(folder / part.file, threads)


def _tower(session: Any, picture: Picture) -> Any:
    # Tile by tile, as the runtime does at 512 px: more at once are no faster, but take gigabytes.
    tiles = picture.inputs["pixel_values"]
    return np.concatenate([session.run(None, {"pixel_values": tiles[i : i + 1]})[0] for i in range(len(tiles))])


def _prefill(trunk: Trunk, length: int, hidden: int) -> Any:
    embeds = np.random.default_rng(1).normal(size=(1, length, hidden)).astype(np.float32)
    return trunk.hidden(TrunkInput(embeds, np.array([length])), np.array([[length - 1]]))


def _agreement(model: Any, session: Any, picture: Picture) -> float:
    """Cosine of the first tile's image tokens with transformers."""
    tile = picture.inputs["pixel_values"][:1]
    ours, theirs = (
        x.ravel() for x in (session.run(None, {"pixel_values": tile})[0], true_size.torch_vision(model, tile))
    )
    return float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))


if __name__ == "__main__":
    main()
