"""What the decode loop costs beyond its graphs, what grammar and drafts save, and what ten candidates cost.

    python benchmarks/decoding.py                                   the packaged model, int8
    python benchmarks/decoding.py --size smolvlm-256m               random weights at SmolVLM-256M's size (minutes)
                                  --bundle .peers/smolvlm-256m/int8    the same, as benchmarks/peers/run.py exported it

All ways of decoding write the same given answer, so that weights play no part: every score is computed and the
largest looked for, then the given token is taken. How often drafts are right does depend on a model, so two cases are
shown: as often as the packaged model's on validation places (`count_passes`), and never. With the packaged model the
answers of validation places are scored too, and those that it writes by itself are timed. Rows "from the photo" are
what a user waits for: a JPEG decoded, scaled, through the vision tower, read and answered; vision runs in no other row.
Writes benchmarks/results/decoding_<size>.json and .md.
"""

import argparse
import io
import json
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from given_answers import ANSWERS, BROKEN_DRAFTS, Bench, Counting, prefill
from PIL import Image

from edgegeo.bench.cells import versions
from edgegeo.bundle import open_bundle
from edgegeo.evaluate import planet_scenes
from edgegeo.geo import Position, distance_km
from edgegeo.measure import machine, summarize, time_in_turn
from edgegeo.runtime import Decoding, Generated, Generator, ImageTokens, Model, open_image, parse_answer
from edgegeo.runtime.trunk import Head

RESULTS = Path(__file__).parent / "results"
CANDIDATES = 10
PHOTO = (1600, 1200)
NEVER = range(1 << 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(ANSWERS), default="pocket")
    parser.add_argument("--bundle", type=Path, help="an exported bundle of that size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--places", type=int, default=300)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Model(open_bundle(options.bundle or _export(options.size, Path(folder))), options.threads)
        generator, photo = Generator(model), planet_scenes(1, "validation")[0].photo
        picture = model.features(generator.role.vision, model.prepare([photo]))[0]
        bench = Bench(generator, picture, ANSWERS[options.size])
        rows = [*measure(bench, options.repeats), *from_photo(bench, jpeg(photo), max(5, options.repeats // 3))]
        prompt = int(bench.prefill(bench.decoder(False))[0].length)
        facts = {"threads": options.threads, "repeats": options.repeats, "answer": ANSWERS[options.size],
                 "tokens": len(bench.path.tokens), "prompt": prompt}  # fmt: skip
        accuracy: dict[str, Any] = {}
        if options.size == "pocket":
            rows += real(bench.generator, options.repeats)
            passes, found = count_passes(bench.generator, options.places)
            facts |= {"places": options.places, **passes}
            accuracy = score(bench.generator, options.places, found)
        else:
            rows += captions(bench, max(1, options.repeats // 10))
    write(options.output, options.size, facts, rows, accuracy)


Row = tuple[str, float, float, float]
"""What, median ms of the one, median ms of the other, median of the ratios of pairs."""


def compare(jobs: dict[str, Callable[[], object]], repeats: int, rows: dict[str, tuple[str, str]]) -> list[Row]:
    """Rows of two jobs each; jobs run in turn, so that each pair met the same neighbours on the machine."""
    seconds = time_in_turn(jobs, repeats)
    took = {name: summarize(found).p50_ms for name, found in seconds.items()}
    return [
        (what, took[one], took[other], float(np.median(np.array(seconds[other]) / np.array(seconds[one]))))
        for what, (one, other) in rows.items()
    ]


def measure(bench: Bench, repeats: int) -> list[Row]:
    """One position: the plain way, with grammar and forced tokens, with drafts, and candidates."""
    plain, forced = bench.decoder(False), bench.decoder(True)
    drafting = bench.decoder(True, wrong=bench.path.broken(BROKEN_DRAFTS))
    hopeless = bench.decoder(True, wrong=NEVER)
    drawing = bench.decoder(True, temperature=0.7, top_p=0.95)
    begun, ruled = bench.prefill(plain), bench.prefill(forced)
    jobs: dict[str, Callable[[], object]] = {
        "bare": _bare(bench, len(bench.path.tokens)),
        "plain decode": lambda: bench.decode(plain, *begun),
        "forced decode": lambda: bench.decode(forced, *ruled),
        "plain": lambda: bench.answer(plain),
        "prefill": lambda: bench.prefill(plain),
        "forced": lambda: bench.answer(forced),
        "drafts": lambda: bench.answer(drafting),
        "hopeless": lambda: bench.answer(hopeless),
        "ten": lambda: bench.answer(drawing, CANDIDATES),
    }
    return compare(jobs, repeats, {
        "speed of the plain loop by that of the bare graphs": ("plain decode", "bare"),
        "share of the prefill in plain greedy": ("plain", "prefill"),
        "plain greedy by grammar and forced tokens: without the prefill": ("forced decode", "plain decode"),
        "plain greedy by grammar and forced tokens": ("forced", "plain"),
        "plain greedy by grammar, forced tokens and drafts": ("drafts", "plain"),
        "the same, were no draft ever right": ("hopeless", "plain"),
        f"{CANDIDATES} candidates by one answer without drafts": ("forced", "ten"),
        f"{CANDIDATES} candidates by one answer with drafts": ("drafts", "ten"),
    })  # fmt: skip


def from_photo(bench: Bench, data: bytes, repeats: int) -> list[Row]:
    """The same ways with everything that comes before them: JPEG, tower, prompt."""
    role, model = bench.generator.role, bench.model

    def job(count: int = 1, grammar: bool = True, **settings: Any) -> Callable[[], object]:
        decoder = bench.decoder(grammar, **settings)

        def run() -> object:
            bench.picture = model.features(role.vision, model.prepare([data]))[0]
            return bench.answer(decoder, count)

        return run

    jobs = {
        "before": lambda: model.features(role.vision, model.prepare([data])),
        "plain": job(grammar=False),
        "forced": job(),
        "drafts": job(wrong=bench.path.broken(BROKEN_DRAFTS)),
        "ten": job(CANDIDATES, temperature=0.7, top_p=0.95),
    }
    return compare(jobs, repeats, {
        "from the photo: share of JPEG and tower in plain greedy": ("plain", "before"),
        "from the photo: plain greedy by grammar and forced tokens": ("forced", "plain"),
        "from the photo: plain greedy by grammar, forced tokens and drafts": ("drafts", "plain"),
        f"from the photo: {CANDIDATES} candidates by one answer with drafts": ("drafts", "ten"),
    })  # fmt: skip


def jpeg(photo: Any) -> bytes:
    """A photo as a camera hands it over."""
    stream = io.BytesIO()
    open_image(photo).resize(PHOTO, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def captions(bench: Bench, repeats: int) -> list[Row]:
    """The geo-caption, most of which is forced."""
    path = bench.caption()
    plain, ruled = bench.decoder(False, path), bench.decoder(True, path)
    jobs: dict[str, Callable[[], object]] = {"plain": lambda: bench.answer(plain), "ruled": lambda: bench.answer(ruled)}
    what = f"geo-caption of {len(path.tokens)} tokens, {path.chosen} chosen: plain greedy by grammar and forced tokens"
    return compare(jobs, repeats, {what: ("ruled", "plain")})


def real(generator: Generator, repeats: int, places: int = 20) -> list[Row]:
    """Answers as the model writes them, each way its own; all have the same number of tokens."""
    pictures = _pictures(generator, places)

    def answers(decoding: Decoding) -> None:
        for picture in pictures:
            generator.features([picture], decoding)

    jobs: dict[str, Callable[[], object]] = {
        "plain": lambda: answers(Decoding(grammar=False)), "ruled": lambda: answers(Decoding())
    }  # fmt: skip
    rows = compare(
        jobs, repeats, {f"its own answers of {places} places: plain greedy by the default": ("ruled", "plain")}
    )
    return [(what, one / places, other / places, ratio) for what, one, other, ratio in rows]


def count_passes(generator: Generator, places: int) -> tuple[dict[str, float], dict[str, list[list[Position | None]]]]:
    """Mean passes of an answer, the prefill among them, with drafts and without; and where the answers are."""
    role = generator.role
    passes, found = {}, {}
    for name, drafting in (("grammar and drafts, greedy", True), ("grammar without drafts, greedy", False)):
        count, found[name] = 0, []
        for picture in _pictures(generator, places):
            decoder = Counting(generator.model, role.head, role.stop_ids, generator.grammar, Decoding(), 64)
            decoder.drafting = drafting
            cache, hidden, draft = prefill(generator, picture, decoder)
            answer = decoder.begin()
            answer.draft = draft
            decoder.write(cache, hidden, [answer])
            count += decoder.passes
            found[name].append([parse_answer(generator.model.tokenizer.decode(answer.tokens))])
        passes[f"passes with {name.split(', ')[0]}"] = round(count / places, 2)
    return passes, found


def _bare(bench: Bench, steps: int) -> Callable[[], object]:
    """Trunk and head by run_with_iobinding alone, as often as the plain loop runs them."""
    cache, hidden, _ = bench.prefill(bench.decoder(False))
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


def _pictures(generator: Generator, places: int) -> list[ImageTokens]:
    """Image tokens of validation places."""
    photos = [scene.photo for scene in planet_scenes(places, "validation")]
    return generator.model.features(generator.role.vision, generator.model.prepare(photos))


def score(
    generator: Generator, places: int, found: dict[str, list[list[Position | None]]]
) -> dict[str, dict[str, float]]:
    """Validation places: share within 750 km and median error, by way of decoding; `found` has some already."""
    scenes, pictures = planet_scenes(places, "validation"), _pictures(generator, places)
    ways: dict[str, Callable[[ImageTokens], list[Generated]]] = {
        "plain greedy": lambda picture: generator.features([picture], Decoding(grammar=False)),
        "grammar, 4 beams": lambda picture: generator.features([picture], Decoding(beams=4)),
        f"best of {CANDIDATES} (oracle)": lambda picture: generator.candidates_of(picture, CANDIDATES),
    }
    found = found | {name: [[a.position for a in way(picture)] for picture in pictures] for name, way in ways.items()}
    out = {}
    for name, answers in found.items():
        errors = [
            min((float(distance_km(s.lat, s.lon, p.lat, p.lon)) for p in some if p), default=np.inf)
            for s, some in zip(scenes, answers, strict=True)
        ]
        out[name] = {"within_750_km": float(np.mean(np.array(errors) <= 750)), "median_km": float(np.median(errors)),
                     "answered": float(np.mean([any(some) for some in answers]))}  # fmt: skip
    return out


def _export(size: str, folder: Path) -> Path:
    """The bundle of a size at int8."""
    from edgegeo.export import export
    from edgegeo.recipe import TokenBudget, preset, with_budget

    checkpoint, recipe = None, preset("int8")
    if size != "pocket":
        import true_families

        checkpoint, recipe = folder / "checkpoint", with_budget(recipe, TokenBudget(max_tiles=1))
        true_families.write_checkpoint(size, checkpoint)
    export(checkpoint, recipe, folder / "bundle", places=0)
    return folder / "bundle"


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
