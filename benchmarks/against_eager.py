"""edgegeo against transformers in eager mode: the same checkpoint, inputs and machine, in turn.

    python benchmarks/against_eager.py                        the packaged model, whole jobs
    python benchmarks/against_eager.py --size smolvlm-256m    random weights at SmolVLM-256M's size, by component
                                       --plain                and what torch.onnx.export alone makes of it (minutes)

Pixels are ready made for both sides, so that the model is compared and not the JPEG decoder. Bundles that are missing
are exported first. Writes benchmarks/results/against_eager_<size>.json and .md.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import true_size
from contest import REFERENCE, Contest, Job
from eager import Eager

from edgegeo.bundle import open_bundle
from edgegeo.evaluate import planet_scenes
from edgegeo.runtime import Embedder, Generator, Model, Picture

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("pocket", "smolvlm-256m"), default="pocket")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of your own instead of the packaged one")
    parser.add_argument("--precision", default="fp32,int8,int4")
    parser.add_argument("--plain", action="store_true", help="torch.onnx.export too, with --size smolvlm-256m")
    parser.add_argument("--threads", type=int, help="of both sides; without it each side's own default")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.plain and options.size == "pocket":
        parser.error("--plain needs --size smolvlm-256m")
    precisions = options.precision.split(",")
    settings: dict[str, Any] = {"threads": options.threads or "auto", "repeats": options.repeats}
    settings["load average before"] = round(os.getloadavg()[0], 1)  # above 1 a core, neighbours are in the numbers
    contest = Contest(f"edgegeo against transformers eager: {options.size}", settings)
    with tempfile.TemporaryDirectory() as folder:
        if options.size == "pocket":
            compare_checkpoint(contest, options.checkpoint, precisions, Path(folder), options.threads, options.repeats)
        else:
            true_size.compare(contest, precisions, Path(folder), options.threads, options.repeats, plain=options.plain)
    contest.settings["load average after"] = round(os.getloadavg()[0], 1)
    contest.write(options.output, f"against_eager_{options.size}")


def compare_checkpoint(
    contest: Contest, checkpoint: Path | None, precisions: list[str], folder: Path, threads: int | None, repeats: int
) -> None:
    """Whole jobs: a description or a picture to its vector, a picture to its answer."""
    from edgegeo.export import export
    from edgegeo.export.source import open_source
    from edgegeo.recipe import preset

    models = {}
    for precision in precisions:
        export(checkpoint, preset(precision), folder / precision, places=0)
        models[precision] = Model(open_bundle(folder / precision), threads)
    eager = Eager(open_source(checkpoint))
    scenes = planet_scenes(32, "test")
    pictures = models[precisions[0]].prepare([scene.photo for scene in scenes])
    text = scenes[0].text
    jobs: dict[str, Any] = {REFERENCE: lambda: eager.text(text)}
    jobs |= {f"edgegeo {name}": lambda e=Embedder(model): e.texts([text]) for name, model in models.items()}
    contest.run(Job("embed a description, batch 1", jobs, repeats))
    for batch in (1, 32):
        some = pictures[:batch]
        stack = np.concatenate([picture.inputs["pixel_values"] for picture in some])
        jobs = {REFERENCE: lambda p=stack: eager.images(p)}
        jobs |= {f"edgegeo {n}": lambda e=Embedder(m), p=some: _embed(e, p) for n, m in models.items()}
        contest.run(Job(f"embed pictures, batch {batch}", jobs, repeats if batch == 1 else max(5, repeats // 4)))
    _answers(contest, eager, models, pictures[0], repeats)


def _embed(embedder: Embedder, pictures: list[Picture]) -> Any:
    return embedder.features(embedder.model.features(embedder.role.vision, pictures))


def _answers(contest: Contest, eager: Eager, models: dict[str, Model], picture: Picture, repeats: int) -> None:
    """Greedy answers differ in length between precisions, so the tokens are told; fp32 must write the same ones."""
    generators = {name: Generator(model) for name, model in models.items()}

    def answer(generator: Generator) -> list[int]:
        features = generator.model.features(generator.role.vision, [picture])
        return list(generator.features(features)[0].tokens)

    pixels = picture.inputs["pixel_values"][0]
    wanted = eager.answer(pixels)
    for name, generator in generators.items():
        got = answer(generator)
        contest.settings[f"answer tokens {name}"] = f"{len(got)} of {len(wanted)}"
        if name == "fp32" and got != wanted:
            raise SystemExit(f"fp32 answers {got}, transformers {wanted}")
    jobs: dict[str, Any] = {REFERENCE: lambda: [float(bool(eager.answer(pixels)))]}
    jobs |= {f"edgegeo {n}": lambda g=g: [float(bool(answer(g)))] for n, g in generators.items()}
    contest.run(Job("answer for a picture, greedy", jobs, repeats))


if __name__ == "__main__":
    main()
