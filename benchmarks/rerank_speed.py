"""Re-ranking 20 candidates behind one shared prefix, against 20 separate prompts and transformers in eager mode.

    python benchmarks/rerank_speed.py --size pocket
    python benchmarks/rerank_speed.py --size smolvlm-256m --scratch FOLDER --prepare     exports only, minutes
    python benchmarks/rerank_speed.py --size smolvlm-256m --scratch FOLDER               random weights, true size

Every way's scores are checked against the others' before anything is timed: in fp32 against transformers and against
whole prompts in one run; in int8, whose activations are scaled by everything in a run, against whole prompts within
INT8. Pixels are ready made for all. Writes benchmarks/results/rerank_speed.json and .md, one part a size.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.evaluate import planet_scenes
from edgegeo.export.source import Source, open_source
from edgegeo.measure import machine, summarize, time_in_turn
from edgegeo.models.prompts import fill_ids
from edgegeo.runtime import ImageTokens, Model, Picture, Reranker
from edgegeo.runtime.rerank import probability
from edgegeo.runtime.tokens import fill

RESULTS = Path(__file__).parent / "results"
CANDIDATES = 20
FP32 = 5e-3
"""Largest difference of log-odds between ways of one fp32 bundle, and to transformers."""
INT8 = 0.05
"""Largest difference of p(yes) between a shared prefix and a whole prompt in int8."""
Ways = dict[str, Callable[[], Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("pocket", "smolvlm-256m"), default="pocket")
    parser.add_argument("--scratch", type=Path, help="where checkpoints and bundles stay for the next run")
    parser.add_argument("--prepare", action="store_true", help="export what is missing, and stop")
    parser.add_argument("--threads", type=int, help="of both sides; without it each side's own default")
    parser.add_argument("--repeats", type=int, default=0, help="default: 20 for pocket, 2 for smolvlm-256m")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    made = tempfile.TemporaryDirectory() if options.scratch is None else nullcontext(str(options.scratch))
    with made as folder:
        checkpoint, bundles = prepared(options.size, Path(folder))
        if options.prepare:
            return
        repeats = options.repeats or (20 if options.size == "pocket" else 2)
        before = os.getloadavg()[0]
        rows = measure(checkpoint, bundles, options.threads, repeats)
        facts = {"threads": options.threads or "auto", "repeats": repeats, "load average before": round(before, 1)}
        write(options.output, options.size, rows, facts)


def prepared(size: str, folder: Path) -> tuple[Path | None, dict[str, Bundle]]:
    """The checkpoint (None: the packaged one) and its bundles, exported where they are missing."""
    from edgegeo.export import export
    from edgegeo.recipe import preset

    checkpoint = None
    if size != "pocket":
        import true_families

        checkpoint = folder / size
        if not any(checkpoint.glob("*.safetensors")):
            true_families.write_checkpoint(size, checkpoint)
    bundles = {}
    for precision in ("fp32", "int8"):
        place = folder / f"{size}-{precision}"
        if not place.exists():
            export(checkpoint, preset(precision), place, places=0)
        bundles[precision] = open_bundle(place)
    return checkpoint, bundles


def measure(
    checkpoint: Path | None, bundles: dict[str, Bundle], threads: int | None, repeats: int
) -> list[dict[str, Any]]:
    """Rows of all queries and ways."""
    scenes = planet_scenes(CANDIDATES, "test")
    source = open_source(checkpoint)
    rerankers = {name: Reranker(Model(bundle, threads)) for name, bundle in bundles.items()}
    rows = []
    for query in ("text", "photo"):
        exact = Pairs(rerankers["fp32"], scenes, query)
        naive = Naive(source, exact)
        check("fp32", exact, naive.first(4))
        pairs = Pairs(rerankers["int8"], scenes, query)
        check("int8", pairs, None)
        ways = pairs.ways() | {"transformers eager fp32: 20 separate prompts": naive.run}
        timings = time_in_turn(ways, repeats, warmup=1)
        reference = summarize(timings[REFERENCE]).p50_ms
        for name, seconds in timings.items():
            took = summarize(seconds)
            rows.append({"query": query, "way": name, **asdict(took), "pairs_a_second": CANDIDATES / took.p50_ms * 1e3,
                         "times_faster": reference / took.p50_ms})  # fmt: skip
            print(f"{query:6} {name:52} {took.p50_ms:10.2f} ms  {rows[-1]['times_faster']:6.2f} x", flush=True)
    return rows


REFERENCE = "20 separate prompts, from pixels"


class Pairs:
    """One query and its candidates, asked in several ways of one bundle."""

    def __init__(self, reranker: Reranker, scenes: Sequence[Any], query: str) -> None:
        self.reranker, self.model, self.query = reranker, reranker.model, query
        prepared = self.model.prepare([scenes[0].photo, *(scene.tile for scene in scenes)])
        self.photo, self.tiles = prepared[0], prepared[1:]
        self.text = scenes[0].text
        seen = self.model.features(reranker.role.vision, prepared)
        self.photo_tokens, self.tile_tokens = seen[0], seen[1:]

    def ways(self) -> Ways:
        """What is timed."""
        return {
            REFERENCE: lambda: self.separate(ready=False),
            "20 separate prompts, image tokens ready": lambda: self.separate(ready=True),
            "one batch of 20 whole prompts, image tokens ready": self.batch,
            "shared prefix, from pixels": lambda: self.shared(self._tokens(self.tiles)),
            "shared prefix, tiles kept": lambda: self.shared(self.tile_tokens),
            "shared prefix, image tokens ready": lambda: self._asked(self.photo_tokens).margins(self.tile_tokens),
        }

    def shared(self, tiles: Sequence[ImageTokens]) -> Any:
        """Log-odds (20,) behind one prefix; the query's picture goes through its tower here."""
        asked = self._asked(None if self.query == "text" else self._tokens([self.photo])[0])
        return asked.margins(tiles)

    def separate(self, ready: bool) -> Any:
        """Log-odds (20,) of prompts that know nothing of each other."""
        out = []
        for tile, tokens in zip(self.tiles, self.tile_tokens, strict=True):
            shown = [] if self.query == "text" else [self.photo_tokens if ready else self._tokens([self.photo])[0]]
            out.append(self._whole([[*shown, tokens if ready else self._tokens([tile])[0]]])[0])
        return np.array(out)

    def batch(self) -> Any:
        """Log-odds (20,) of whole prompts as rows of one run."""
        shown = [] if self.query == "text" else [self.photo_tokens]
        return self._whole([[*shown, tile] for tile in self.tile_tokens])

    def pieces(self) -> list[Any]:
        """The filled prompt."""
        role = self.reranker.role
        if self.query == "text":
            return fill(role.text_prompt, [self.model.tokenizer.encode(self.text)])
        return fill(role.image_prompt)

    def _whole(self, shown: Sequence[Sequence[ImageTokens]]) -> Any:
        slots = [list(column) for column in zip(*shown, strict=True)]
        fed = self.model.assemble([self.pieces()] * len(shown), slots)
        hidden = self.model.trunk(self.reranker.role.trunk).hidden(fed, fed.lengths[:, None] - 1)[:, 0]
        return self.reranker.words.margins(hidden)

    def _asked(self, photo: ImageTokens | None) -> Any:
        return self.reranker.ask(self.text if self.query == "text" or photo is None else photo)

    def _tokens(self, pictures: Sequence[Picture]) -> list[ImageTokens]:
        return self.model.features(self.reranker.role.vision, pictures)


class Naive:
    """What a person would write with transformers alone: one forward pass a pair, both pictures in it."""

    def __init__(self, source: Source, pairs: Pairs) -> None:
        self._pairs, checkpoint = pairs, source.checkpoint
        self._family, self._model = checkpoint.family, source.roles["rerank"].model
        role = pairs.reranker.role
        self._token = self._family.image_token_id(checkpoint.config)
        self._prompt = role.text_prompt if pairs.query == "text" else role.image_prompt
        self._texts = [pairs.model.tokenizer.encode(pairs.text)] if pairs.query == "text" else []
        self._yes, self._no = list(role.yes_ids), list(role.no_ids)

    def run(self) -> Any:
        """Log-odds (20,)."""
        return self.first(CANDIDATES)

    @torch.inference_mode()
    def first(self, count: int) -> Any:
        """Log-odds (count,) of the first pairs."""
        out = []
        for tile in self._pairs.tiles[:count]:
            shown = [tile] if self._pairs.query == "text" else [self._pairs.photo, tile]
            ids = fill_ids(self._prompt, self._token, [picture.layout for picture in shown], self._texts)
            hidden = self._family.hidden(self._model, torch.tensor([ids]), shown)[:, -1]
            logits = self._family.parts(self._model).head(hidden)[0].float()
            out.append(float(torch.logsumexp(logits[self._yes], 0) - torch.logsumexp(logits[self._no], 0)))
        return np.array(out)


def check(precision: str, pairs: Pairs, reference: Any) -> None:
    """End the run where ways disagree."""
    shared = pairs.shared(pairs.tile_tokens)
    for name, got in (("separate", pairs.separate(ready=True)), ("one batch", pairs.batch())):
        odds, chance = np.abs(got - shared).max(), np.abs(probability(got) - probability(shared)).max()
        print(f"{precision} {pairs.query}: shared prefix and {name} differ by {odds:.1e} (p(yes) {chance:.1e})")
        if not (odds <= FP32 if precision == "fp32" else chance <= INT8):
            raise SystemExit(f"{precision} {pairs.query}: a shared prefix and {name} prompts disagree")
    if reference is not None:
        far = np.abs(shared[: len(reference)] - reference).max()
        print(f"{precision} {pairs.query}: shared prefix and transformers differ by {far:.1e}")
        if not far <= FP32:
            raise SystemExit(f"{precision} {pairs.query}: edgegeo and transformers disagree")


def write(folder: Path, size: str, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Both files, with the parts of other sizes as they were."""
    file = folder / "rerank_speed.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    tools = {name: version(name) for name in ("edgegeo", "onnxruntime", "numpy", "torch", "transformers")}
    found[size] = {"date": date.today().isoformat(), "machine": machine(), "versions": tools, "settings": facts,
                   "tolerance": {"fp32 log-odds": FP32, "int8 p(yes)": INT8}, "rows": rows}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"json": json.dumps(found, indent=1) + "\n", "md": page(found)}
    for suffix, text in texts.items():
        draft = folder / f".rerank_speed.{suffix}.part"
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, folder / f"rerank_speed.{suffix}")
    print(f"wrote {folder / 'rerank_speed'}.json and .md")


def page(found: dict[str, Any]) -> str:
    """The tables."""
    lines = ["# Re-ranking 20 candidates", ""]
    lines += [
        f"Median ms of 20 pairs, pairs a second, and times faster than {REFERENCE} (int8; transformers in fp32). "
        "Ways in turn A B C A B C. Scores are equal first: "
        f"in fp32 log-odds within {FP32:g} of whole prompts and of transformers, in int8 p(yes) within {INT8:g} of "
        "whole prompts. From pixels: towers included. Tiles kept: as for tiles that an earlier query found, only the "
        "query's own picture goes through the tower. Image tokens ready: the decoder alone.",
    ]  # fmt: skip
    for size, part in found.items():
        told = {**part["machine"], **part["versions"], **part["settings"]}
        lines += ["", f"## {size}, {part['date']}", "", ", ".join(f"{key} {value}" for key, value in told.items())]
        lines += ["", "| query | way | ms | pairs a second | times faster |", "|---|---|---:|---:|---:|"]
        for row in part["rows"]:
            lines.append(
                f"| {row['query']} | {row['way']} | {row['p50_ms']:.1f} | {row['pairs_a_second']:,.0f} "
                f"| {row['times_faster']:.2f} |"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
