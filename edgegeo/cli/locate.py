"""edgegeo locate: the whole way for one photo or description, with everything a person wants to know about it."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegeo.cli.asking import AvoidFlag, BothOrdersFlag, PairwiseFlag, RerankFlag, apart, note_weights, reranking_of
from edgegeo.cli.decoding import (
    BeamsFlag,
    CandidatesFlag,
    GenerateFlag,
    GrammarFlag,
    LeastFlag,
    ModeFlag,
    PriorFlag,
    SeedFlag,
    StreamFlag,
    TemperatureFlag,
    TopPFlag,
    decoding_of,
    prior_of,
    show,
)
from edgegeo.cli.delivery import (
    Delivery,
    FormatFlag,
    MavlinkFlag,
    MessageFlag,
    NmeaFlag,
    OriginFlag,
    OutputFlag,
    WatchFlag,
    deliver,
)
from edgegeo.cli.files import check_suffix, write_whole
from edgegeo.cli.flags import BundleFlag, GalleryFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag
from edgegeo.cli.output import emit_json, megabytes, note, note_provider, say, table

if TYPE_CHECKING:
    from edgegeo.bundle import Bundle
    from edgegeo.cli.delivery import Ask
    from edgegeo.geo import Position
    from edgegeo.runtime import Answer, Generated, Locator
    from edgegeo.runtime.gallery.backend import GalleryBackend


@dataclass(frozen=True)
class Question:
    """What was asked, and what its EXIF says about the answer."""

    photo: Path | None
    text: str | None
    demo: bool = False
    """The photo is one of ours, since none was given."""
    others: int = 0
    """More photos of the same place."""
    truth: "Position | None" = None


def command(
    photos: Annotated[
        list[Path] | None, typer.Argument(help="JPEG, PNG or WebP pictures.", show_default="a demonstration photo")
    ] = None,
    text: Annotated[str | None, flag("--text", verb="locate", help="A description, alone or with a photo.")] = None,
    bundle: BundleFlag = None,
    gallery: GalleryFlag = None,
    k: Annotated[int, flag("-k", "--top", verb="locate", help="Tiles to return.", min=1, max=1000)] = 6,
    together: Annotated[
        bool, flag("--together", verb="locate", help="All photos show one place: one answer for them.")
    ] = False,
    avoid: AvoidFlag = None,
    rerank: RerankFlag = 0,
    both_orders: BothOrdersFlag = False,
    pairwise: PairwiseFlag = 0,
    generate: GenerateFlag = True,
    candidates: CandidatesFlag = 1,
    temperature: TemperatureFlag = None,
    top_p: TopPFlag = None,
    beams: BeamsFlag = 1,
    seed: SeedFlag = 0,
    mode: ModeFlag = "answer",
    grammar: GrammarFlag = True,
    stream: StreamFlag = False,
    prior: PriorFlag = None,
    min_confidence: LeastFlag = 0.0,
    place: Annotated[int, flag("--place", verb="locate", help="Which demonstration photo, where none is given.")] = 0,
    picture: Annotated[Path | None, flag("--map", verb="locate", help="Write a picture of the answer (PNG).")] = None,
    format: FormatFlag = None,
    output: OutputFlag = None,
    nmea: NmeaFlag = None,
    mavlink: MavlinkFlag = None,
    mavlink_message: MessageFlag = "gps_input",
    origin: OriginFlag = None,
    watch: WatchFlag = None,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Find where a photo was taken, or where a description fits; without arguments, an unseen demonstration photo."""
    if picture is not None:
        check_suffix(picture, (".png", ".jpg", ".jpeg", ".webp"))
    decoding = decoding_of(candidates, temperature, top_p, beams, seed, mode, grammar)
    given, also = apart(photos or [], together, watch)
    opened = partial(
        _opened, bundle, gallery, threads, provider, stream,
        k=k, rerank=reranking_of(rerank, both_orders, pairwise), generate=generate, candidates=candidates,
        decoding=decoding, prior=prior_of(prior), min_confidence=min_confidence, also=also, avoid=avoid or (),
    )  # fmt: skip
    delivery = Delivery(format, output, nmea, mavlink, mavlink_message, origin, watch)
    if not delivery.wanted(given):
        question = _question(given[0] if given else None, text, place)
        _answer_one(replace(question, others=len(also)), *opened(), as_json, picture)
        return
    document = delivery.checked(given, text, as_json, picture)
    if not given and text is None and watch is None:
        given = [photo for photo in [_question(None, None, place).photo] if photo]
    raise typer.Exit(deliver(delivery, given, text, document, opened))


def _opened(
    bundle: str | None, gallery: str | None, threads: int | None, provider: str, stream: bool, **settings: Any
) -> "tuple[Locator, Ask]":
    """The locator, and what asks it with these settings."""
    from edgegeo.home import built_gallery, find_bundle
    from edgegeo.runtime import Locator

    source = find_bundle(bundle)
    locator = Locator.open(source, gallery or built_gallery(source), threads=threads, provider=provider)
    note_provider(provider, locator.model.provider)
    if locator.gallery is None:
        note(f"no gallery, so no tiles; make one with: edgegeo index build{f' --bundle {bundle}' if bundle else ''}")

    note_weights(locator.fit, settings["rerank"].count)

    def ask(photo: Path | None, text: str | None) -> "Answer":
        answer = locator.locate(photo, text, listener=show if stream else None, **settings)
        if stream and answer.text:
            note("")
        return answer

    return locator, ask


def _answer_one(question: Question, locator: "Locator", ask: "Ask", as_json: bool, picture: Path | None) -> None:
    """One answer with everything that is known about it, for a person or as JSON, and its picture."""
    from edgegeo.measure import peak_resident_mb, resident_mb

    answer = ask(question.photo, question.text)
    question = _with_truth(question)
    memory = {"now_mb": resident_mb(), "peak_mb": peak_resident_mb()}
    error = _error_km(answer, question.truth)
    bundle = locator.model.bundle
    if as_json:
        emit_json(_document(question, answer, error, bundle, memory))
    else:
        _print(question, answer, error, bundle, memory)
    if picture is not None:
        _draw(picture, question, answer, error, bundle, locator.gallery)
        note(f"wrote {picture}")


def _question(photo: Path | None, text: str | None, place: int) -> Question:
    if photo is not None or text is not None:
        return Question(photo, text)
    from edgegeo.cli.demo import demo_photo
    from edgegeo.planet import Planet

    return Question(demo_photo(Planet(), place), None, demo=True)


def _with_truth(question: Question) -> Question:
    """The question with what the photo's EXIF says; only for photos that were opened with success before."""
    from PIL import Image

    from edgegeo.exif import read_gps

    if question.photo is None:
        return question
    try:
        with Image.open(question.photo) as image:
            return replace(question, truth=read_gps(image))
    except (OSError, ValueError, SyntaxError):  # a sound picture with damaged metadata
        return question


def _error_km(answer: "Answer", truth: "Position | None") -> float | None:
    from edgegeo.geo import distance_km

    if truth is None or answer.position is None:
        return None
    return float(distance_km(truth.lat, truth.lon, answer.position.lat, answer.position.lon))


def _document(
    question: Question, answer: "Answer", error: float | None, bundle: "Bundle", memory: dict[str, float]
) -> dict[str, Any]:
    return {
        **answer.to_dict(),
        "photo": None if question.photo is None else str(question.photo),
        "query_text": question.text,
        "exif": question.truth,
        "error_km": error,
        "memory_mb": memory,
        "bundle": {
            "path": str(bundle.path),
            "name": bundle.manifest.name,
            "fingerprint": bundle.fingerprint,
            "bytes": bundle.bytes,
            "precision": {name: part.precision for name, part in bundle.manifest.components.items()},
            "accuracy": bundle.manifest.accuracy,
        },
    }


def _print(
    question: Question, answer: "Answer", error: float | None, bundle: "Bundle", memory: dict[str, float]
) -> None:
    from edgegeo.cli.cards import card_line

    lines = []
    if question.photo is not None:
        more = f" and {question.others} more of the same place" if question.others else ""
        lines.append(
            f"photo     {question.photo}{more}{'  (demonstration: a place no training saw)' if question.demo else ''}"
        )
    if question.text is not None:
        lines.append(f"text      {question.text if len(question.text) <= 100 else question.text[:97] + '...'}")
    lines.append(f"position  {_where(answer)}")
    lines += _trust_lines(answer)
    if question.truth is not None:
        far = "no position to compare" if error is None else f"error {error:,.0f} km"
        lines.append(f"EXIF says {question.truth.lat:.4f}, {question.truth.lon:.4f}: {far}")
    say(*lines)
    if answer.hits:
        table(
            ("tile", "lat", "lon", "score", "p(yes)", "km from EXIF"), [_tile_row(hit, question) for hit in answer.hits]
        )
    if len(answer.candidates) > 1:
        table(("candidate", "log p", "km from EXIF"), [_candidate_row(one, question) for one in answer.candidates])
    stages = ", ".join(f"{n} {ms:.1f}" for n, ms in answer.timings_ms.items() if n not in ("load", "total"))
    precision = ", ".join(f"{name} {part.precision}" for name, part in bundle.manifest.components.items())
    say(
        f"time      {_ran_ms(answer):.1f} ms ({stages}), after {answer.timings_ms.get('load', 0.0):.0f} ms to load",
        f"memory    {memory['now_mb']:.0f} MB now, {memory['peak_mb']:.0f} MB at most",
        f"bundle    {bundle.manifest.name}, {megabytes(bundle.bytes)} ({precision})",
        f"accuracy  {card_line(bundle.manifest.accuracy)}",
    )


def _ran_ms(answer: "Answer") -> float:
    """Milliseconds of the answer itself: a program that stays open loads its components once."""
    return answer.timings_ms["total"] - answer.timings_ms.get("load", 0.0)


def _where(answer: "Answer") -> str:
    if answer.position is None:
        wrote = f"; the model wrote {answer.text!r:.80}" if answer.text else ""
        return f"none found{wrote}"
    by = answer.evidence.rule if answer.evidence else answer.source
    return f"{answer.position.lat:.4f}, {answer.position.lon:.4f}  ({answer.source}: {by})"


def _trust_lines(answer: "Answer") -> list[str]:
    """How far the answer can be trusted, and what each part would have said alone."""
    lines = []
    if answer.radius_km is not None and answer.confidence is not None:
        whose = "" if answer.calibration == "fit" else ", as the prior claims"
        near = f"within 750 km with {100 * answer.confidence:.0f} %"
        lines.append(f"radius    within {answer.radius_km:,.0f} km with 80 %, {near}{whose}")
    elif answer.confidence is None:
        lines.append("radius    not calibrated for such a question (edgegeo fit learns it from known places)")
    if answer.abstained:
        lines.append(
            f"withheld  a position was found, but within 750 km with {100 * (answer.confidence or 0):.0f} % only"
        )
    lines += [f"careful   {warning}" for warning in answer.warnings]
    if answer.evidence is not None and len(answer.evidence.proposals) > 1:
        said = [f"{part} {at.lat:.2f}, {at.lon:.2f}" for part, at in answer.evidence.proposals.items()]
        lines.append(f"evidence  {'; '.join(said)}")
    return lines


def _candidate_row(candidate: "Generated", question: Question) -> tuple[str, ...]:
    from edgegeo.geo import distance_km

    place, truth = candidate.position, question.truth
    if place is None:
        return (candidate.text[:60], f"{candidate.logprob:.2f}", "-")
    far = "-" if truth is None else f"{distance_km(truth.lat, truth.lon, place.lat, place.lon):,.0f}"
    return (f"{place.lat:.4f}, {place.lon:.4f}", f"{candidate.logprob:.2f}", far)


def _tile_row(hit: Any, question: Question) -> tuple[str, ...]:
    from edgegeo.geo import distance_km

    truth = question.truth
    far = "-" if truth is None else f"{distance_km(truth.lat, truth.lon, hit.position.lat, hit.position.lon):,.0f}"
    sure = "-" if hit.rerank_score is None else f"{hit.rerank_score:.2f}"
    return (hit.id, f"{hit.position.lat:.4f}", f"{hit.position.lon:.4f}", f"{hit.score:.3f}", sure, far)


def _draw(
    file: Path, question: Question, answer: "Answer", error: float | None, bundle: "Bundle",
    gallery: "GalleryBackend | None",
) -> None:  # fmt: skip
    from io import BytesIO

    from PIL import Image

    from edgegeo.cli.picture import PictureFacts, PictureTile, draw_answer
    from edgegeo.measure import machine
    from edgegeo.runtime import open_image

    tiles = []
    for hit in answer.hits:
        row = gallery.row(hit.id) if gallery is not None else None
        image = None if gallery is None or row is None else Image.open(BytesIO(gallery.thumbnail(row)))
        right = question.truth is not None and hit.position == question.truth
        caption = f"{hit.position.lat:.2f}, {hit.position.lon:.2f}   {hit.score:.2f}"
        tiles.append(PictureTile(image, hit.position, caption, right))
    where = "no position found"
    if answer.position is not None:
        where = f"{answer.position.lat:.2f}, {answer.position.lon:.2f}"
    title = [where, *([] if error is None else [f"{error:,.0f} km from the truth"])]
    facts = machine()
    facts_drawn = PictureFacts(
        title="   ·   ".join([*title, f"{_ran_ms(answer):.0f} ms"]),
        footer=f"{bundle.manifest.name}, {megabytes(bundle.bytes)}, on {facts['cpu']}, {facts['cores']} cores",
        photo=None if question.photo is None else open_image(question.photo),
        text=question.text,
        answer=answer.position,
        truth=question.truth,
        world=_world(bundle, question),
        tiles=tiles,
    )
    write_whole(file, draw_answer(facts_drawn).save)


def _world(bundle: "Bundle", question: Question) -> Any:
    """The demonstration planet's map where the model or the photo belongs to it; None for a model of the Earth."""
    seed = bundle.manifest.source.get("planet_seed")
    if seed is None and not question.demo:
        return None
    from edgegeo.planet import DEFAULT_SEED, Planet

    return Planet(seed if isinstance(seed, int) else DEFAULT_SEED).overview(1024)
