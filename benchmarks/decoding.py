"""What the decode loop costs beyond its graphs, what the grammar saves, and what ten candidates cost.

    python benchmarks/decoding.py                                              the packaged model, int8
    python benchmarks/decoding.py --size smolvlm-256m --tokenizer FILE         random weights at SmolVLM-256M's size

Both ways of decoding write the same given answer, so that weights and luck play no part: every score is computed and
the largest looked for, then the given token is taken. Vision is not run. With the packaged model the answers of
validation places are scored too. Writes benchmarks/results/decoding_<size>.json and .md.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import true_size
from tokenizers import Tokenizer as RustTokenizer

from edgegeo.bench.cells import versions
from edgegeo.bundle import SCHEMA_VERSION, Bundle, GenerateRole, ImageSpec, Manifest, Roles, TrunkSpec, open_bundle
from edgegeo.evaluate import planet_scenes
from edgegeo.geo import distance_km
from edgegeo.measure import machine, summarize, time_in_turn
from edgegeo.runtime import Decoding, Generator, ImageTokens, Model
from edgegeo.runtime.decoding import Decoder, Written
from edgegeo.runtime.tokens import fill
from edgegeo.runtime.trunk import Head

RESULTS = Path(__file__).parent / "results"
ANSWERS = {"pocket": "<answer>+48.8, -122.3</answer>", "smolvlm-256m": " <answer>-48.858, -122.294</answer>"}
"""What both ways write: as long as the grammar lets it become."""
FREELY = {"pocket": ANSWERS["pocket"], "smolvlm-256m": " <answer>-48.85837, -122.29448</answer>"}
"""What a model trained as GeoLocSFT (five decimals) writes where nothing ends it."""
CANDIDATES = 10


class Given(Decoder):
    """A decoder that scores everything and then takes the tokens it was given."""

    tokens: tuple[int, ...] = ()

    def _pick(self, scores: Any, answers: Sequence[Written]) -> Any:
        super()._pick(scores, answers)
        token = self.tokens[len(answers[0].tokens)]
        index = token if self.grammar is None else int(np.searchsorted(self._allowed(answers[0]).tokens, token))
        return np.full(len(answers), index)


class Bench:
    """One model and one picture's image tokens."""

    def __init__(self, generator: Generator, picture: ImageTokens, answer: str, freely: str) -> None:
        self.generator, self.model, self.picture = generator, generator.model, picture
        # The runtime's tokenizer takes control tokens for letters, as texts of people need it; answers hold tokens.
        coded = RustTokenizer.from_file(str(self.model.bundle.file(self.model.bundle.manifest.tokenizer)))
        self.tokens, self.freely = (
            tuple(coded.encode(text, add_special_tokens=False).ids) for text in (answer, freely)
        )

    def decoder(self, grammar: bool, settings: Decoding = Decoding(), freely: bool = False) -> Given:
        role = self.generator.role
        rules = self.generator.grammar if grammar else None
        made = Given(self.model, role.head, role.stop_ids, rules, settings, 64)
        made.tokens = (*(self.freely if freely else self.tokens), role.stop_ids[0])
        return made

    def prefill(self, opening: list[int], room: int = 80) -> tuple[Any, Any]:
        pieces = [*fill(self.generator.role.prompt), *([np.array(opening, np.int64)] if opening else [])]
        fed = self.model.assemble([pieces], [[self.picture]])
        cache = self.model.trunk(self.generator.role.trunk).cache(1, int(fed.lengths[0]) + room)
        return cache, cache.extend(fed, fed.lengths[:, None] - 1)

    def answer(self, grammar: bool, count: int = 1, freely: bool = False) -> Written:
        settings = Decoding(temperature=0.7, top_p=0.95) if count > 1 else Decoding()
        decoder = self.decoder(grammar, settings, freely)
        cache, hidden = self.prefill(decoder.opening())
        return self.decode(decoder, cache, hidden, count)

    def decode(self, decoder: Given, cache: Any, hidden: Any, count: int = 1) -> Written:
        rows = [decoder.begin(number) for number in range(count)]
        mark = cache.mark()
        if count > 1:
            decoder.write(cache.expand(count), np.repeat(hidden, count, axis=0), rows)
        else:
            decoder.write(cache, hidden, rows)
        cache.rewind(mark)
        assert all((*row.tokens, decoder.tokens[-1]) == decoder.tokens for row in rows), [row.tokens for row in rows]
        return rows[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(ANSWERS), default="pocket")
    parser.add_argument("--bundle", type=Path, help="an exported bundle of the packaged model")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json of SmolVLM (49,280 tokens)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--places", type=int, default=300)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.size == "pocket":
            model = Model(open_bundle(options.bundle or _export(Path(folder) / "bundle")), options.threads)
            scenes = planet_scenes(1, "validation")
            picture = model.features("vision", model.prepare([scenes[0].photo]))[0]
        else:
            if options.tokenizer is None:
                parser.error("--size smolvlm-256m needs --tokenizer")
            model, picture = _true_size(Path(folder), options.tokenizer, options.threads)
        bench = Bench(Generator(model), picture, ANSWERS[options.size], FREELY[options.size])
        rows = measure(bench, options.repeats)
        accuracy = score(bench.generator, options.places) if options.size == "pocket" else {}
        facts = {"threads": options.threads, "repeats": options.repeats, "answer": ANSWERS[options.size],
                 "places": options.places, "tokens": len(bench.tokens), "prompt": _prompt_length(bench)}  # fmt: skip
    write(options.output, options.size, facts, rows, accuracy)


def measure(bench: Bench, repeats: int) -> list[tuple[str, float, float, float]]:
    """Rows of (what, median ms of the one, median ms of the other, median of the ratios of pairs)."""
    cache, hidden = bench.prefill([])
    plain = bench.decoder(grammar=False)
    ruled = bench.decoder(grammar=True)
    behind, ruled_hidden = bench.prefill(ruled.opening())
    drawing = bench.decoder(True, Decoding(temperature=0.7, top_p=0.95))
    longer = bench.decoder(grammar=False, freely=True)
    jobs: dict[str, Callable[[], object]] = {
        "bare": _bare(bench, len(bench.tokens)),
        "plain decode": lambda: bench.decode(plain, cache, hidden),
        "longer decode": lambda: bench.decode(longer, cache, hidden),
        "grammar decode": lambda: bench.decode(ruled, behind, ruled_hidden),
        "ten decode": lambda: bench.decode(drawing, behind, ruled_hidden, CANDIDATES),
        "plain whole": lambda: bench.answer(grammar=False),
        "longer whole": lambda: bench.answer(grammar=False, freely=True),
        "grammar whole": lambda: bench.answer(grammar=True),
        "ten whole": lambda: bench.answer(True, CANDIDATES),
    }
    seconds = time_in_turn(jobs, repeats)
    took = {name: summarize(found).p50_ms for name, found in seconds.items()}

    def row(what: str, one: str, other: str) -> tuple[str, float, float, float]:
        # Each pair of neighbouring runs met the same neighbours on the machine.
        ratios = np.array(seconds[other]) / np.array(seconds[one])
        return what, took[one], took[other], float(np.median(ratios))

    several = f"{CANDIDATES} candidates by one answer"
    return [
        row("speed of the plain loop by that of the bare graphs", "plain decode", "bare"),
        row("plain greedy by grammar: decode part", "grammar decode", "plain decode"),
        row("plain greedy by grammar: whole answer after vision", "grammar whole", "plain whole"),
        row("five decimals, plain, by grammar: decode part", "grammar decode", "longer decode"),
        row("five decimals, plain, by grammar: whole after vision", "grammar whole", "longer whole"),
        row(f"{several}: decode part", "grammar decode", "ten decode"),
        row(f"{several}: whole after vision", "grammar whole", "ten whole"),
    ]


def _bare(bench: Bench, steps: int) -> Callable[[], object]:
    """Trunk and head by run_with_iobinding alone, as often as the plain loop runs them."""
    cache, hidden = bench.prefill([])
    for _ in range(steps // 2):
        hidden = cache.step()
    spec = bench.model.bundle.decoder
    head = Head(bench.model.session(bench.generator.role.head), 1, spec.hidden, spec.vocab)
    head.run(hidden)

    def run() -> None:
        for _ in range(steps):
            cache._session.run_with_iobinding(cache._binding)
            head._session.run_with_iobinding(head._binding)
        head._session.run_with_iobinding(head._binding)

    return run


def score(generator: Generator, places: int) -> dict[str, dict[str, float]]:
    """Validation places: share within 750 km and median error, by way of decoding."""
    scenes = planet_scenes(places, "validation")
    model = generator.model
    pictures = model.features(generator.role.vision, model.prepare([scene.photo for scene in scenes]))
    found: dict[str, list[list[Any]]] = {"plain greedy": [], "grammar, greedy": [], "grammar, 4 beams": [],
                                         f"best of {CANDIDATES} (oracle)": []}  # fmt: skip
    for picture in pictures:
        found["plain greedy"].append(generator.features([picture], Decoding(grammar=False)))
        found["grammar, greedy"].append(generator.features([picture]))
        found["grammar, 4 beams"].append(generator.features([picture], Decoding(beams=4)))
        found[f"best of {CANDIDATES} (oracle)"].append(generator.candidates_of(picture, CANDIDATES))
    out = {}
    for name, answers in found.items():
        errors = [
            min((float(distance_km(s.lat, s.lon, a.position.lat, a.position.lon)) for a in some if a.position),
                default=np.inf)
            for s, some in zip(scenes, answers, strict=True)
        ]  # fmt: skip
        answered = float(np.mean([any(a.position for a in some) for some in answers]))
        out[name] = {"within_750_km": float(np.mean(np.array(errors) <= 750)),
                     "median_km": float(np.median(errors)), "answered": answered}  # fmt: skip
    return out


def _export(folder: Path) -> Path:
    from edgegeo.export import export
    from edgegeo.recipe import preset

    export(None, preset("int8"), folder, places=0)
    return folder


def _true_size(folder: Path, tokenizer: Path, threads: int) -> tuple[Model, ImageTokens]:
    """A bundle of SmolVLM-256M's size at int8, random weights, with the family's own prompt."""
    import shutil

    from edgegeo.export.components import Part, write
    from edgegeo.export.grammar import write_grammar
    from edgegeo.export.pack import draft
    from edgegeo.models.checkpoint import AnswerForm, load_tokenizer
    from edgegeo.models.family import find_family
    from edgegeo.models.prompts import segments
    from edgegeo.recipe import preset

    model, family = true_size.random_model(), find_family("smolvlm")
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    known = load_tokenizer(folder)
    settings = family.default_settings(known)
    image = ImageSpec("smolvlm", true_size.VISION["image_size"], 1, 1 / 255, (0.5,) * 3, (0.5,) * 3, 64)
    (folder / "onnx").mkdir()
    made = {kind: write(Part(kind, kind, model, family, image), preset("int8"), folder) for kind in ("trunk", "head")}
    np.save(folder / "embed_tokens.npy", model.get_input_embeddings().weight.detach().numpy().astype(np.float16))
    grammar = write_grammar(known, model.lm_head, AnswerForm(**settings["answer"]), folder)
    role = GenerateRole("vision", "trunk", "head", segments(settings["prompts"]["generate"], known),
                        (true_size.TEXT["eos_token_id"],), 64, grammar)  # fmt: skip
    names = ("num_hidden_layers", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size")
    spec = TrunkSpec(*(true_size.TEXT[name] for name in names), true_size.TEXT["max_position_embeddings"])
    manifest = Manifest(
        schema=SCHEMA_VERSION, name="random", family="smolvlm", dialect="ort", target="cpu", components=made,
        image=image, trunk=spec, roles=Roles(generate=role), tokenizer="tokenizer.json",
        embed_tokens="embed_tokens.npy", golden="", accuracy={}, calibration={}, source={}, tools={},
    )  # fmt: skip
    bundle: Bundle = draft(folder, manifest)
    rows = np.random.default_rng(0).normal(size=(64, spec.hidden)).astype(np.float32)
    return Model(bundle, threads), ImageTokens(rows, (64,), None)


def _prompt_length(bench: Bench) -> int:
    cache, _ = bench.prefill([])
    return int(cache.length)


def write(folder: Path, size: str, facts: dict[str, Any], rows: list[Any], accuracy: dict[str, Any]) -> None:
    """The tables, for a person and for a program."""
    document = {
        "title": f"Decoding: {size}, int8", "date": date.today().isoformat(), "machine": machine(),
        "versions": versions(), "settings": facts,
        "rows": [dict(zip(("what", "one_ms", "other_ms", "ratio"), row, strict=True)) for row in rows],
        "accuracy": accuracy,
    }  # fmt: skip
    lines = [f"# {document['title']}", "", "Medians; contestants in turn A B C A B C, ratios of neighbouring runs.", ""]
    lines += [", ".join(f"{k} {v}" for k, v in {**document["machine"], **document["versions"]}.items()), ""]
    lines += [", ".join(f"{k} {v}" for k, v in facts.items()), ""]
    lines += ["| what | ms of the one | ms of the other | ratio |", "|---|---:|---:|---:|"]
    lines += [f"| {what} | {one:.2f} | {other:.2f} | {ratio:.2f} |" for what, one, other, ratio in rows]
    if accuracy:
        lines += [
            "",
            f"| {facts.get('places', '')} validation places | within 750 km | median km | answered |",
            "|---|---:|---:|---:|",
        ]
        lines += [
            f"| {n} | {a['within_750_km']:.1%} | {a['median_km']:.0f} | {a['answered']:.1%} |"
            for n, a in accuracy.items()
        ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"decoding_{size}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / f"decoding_{size}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
