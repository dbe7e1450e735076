"""edgegeo locate: the whole way for one photo or description, with everything a person wants to know about it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegeo.cli.files import check_suffix, write_whole
from edgegeo.cli.flags import BundleFlag, GalleryFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag
from edgegeo.cli.output import emit_json, megabytes, note, note_provider, say, table

if TYPE_CHECKING:
    from edgegeo.bundle import Bundle
    from edgegeo.geo import Position
    from edgegeo.runtime import Answer, Gallery


@dataclass(frozen=True)
class Question:
    """What was asked, and what its EXIF says about the answer."""

    photo: Path | None
    text: str | None
    demo: bool = False
    """The photo is one of ours, since none was given."""
    truth: "Position | None" = None


def command(
    photo: Annotated[
        Path | None, typer.Argument(help="A JPEG, PNG or WebP picture.", show_default="a demonstration photo")
    ] = None,
    text: Annotated[str | None, flag("--text", verb="locate", help="A description, alone or with a photo.")] = None,
    bundle: BundleFlag = None,
    gallery: GalleryFlag = None,
    k: Annotated[int, flag("-k", "--top", verb="locate", help="Tiles to return.", min=1, max=1000)] = 6,
    rerank: Annotated[
        int, flag("--rerank", help="Best tiles to look at again as pairs; 0: none.", min=0, max=1000)
    ] = 0,
    generate: Annotated[
        bool, flag("--generate/--no-generate", help="Whether the model writes a position for a photo.")
    ] = True,
    place: Annotated[int, flag("--place", verb="locate", help="Which demonstration photo, where none is given.")] = 0,
    picture: Annotated[Path | None, flag("--map", verb="locate", help="Write a picture of the answer (PNG).")] = None,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Find where a photo was taken, or where a description fits; without arguments, an unseen demonstration photo."""
    from edgegeo.home import default_gallery, find_bundle
    from edgegeo.measure import peak_resident_mb, resident_mb
    from edgegeo.runtime import Locator

    if picture is not None:
        check_suffix(picture, (".png", ".jpg", ".jpeg", ".webp"))
    source = find_bundle(bundle)
    if gallery is None and (usual := default_gallery(source)).is_dir():
        gallery = usual
    locator = Locator.open(source, gallery, threads=threads, provider=provider)
    note_provider(provider, locator.model.provider)
    question = _question(photo, text, place)
    if locator.gallery is None:
        note(f"no gallery, so no tiles; make one with: edgegeo index build{f' --bundle {bundle}' if bundle else ''}")
    answer = locator.locate(question.photo, question.text, k=k, rerank=rerank, generate=generate)
    question = _with_truth(question)
    memory = {"now_mb": resident_mb(), "peak_mb": peak_resident_mb()}
    error = _error_km(answer, question.truth)
    opened = locator.model.bundle
    if as_json:
        emit_json(_document(question, answer, error, opened, memory))
    else:
        _print(question, answer, error, opened, memory)
    if picture is not None:
        _draw(picture, question, answer, error, opened, locator.gallery)
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
        lines.append(
            f"photo     {question.photo}{'  (demonstration: a place no training saw)' if question.demo else ''}"
        )
    if question.text is not None:
        lines.append(f"text      {question.text if len(question.text) <= 100 else question.text[:97] + '...'}")
    lines.append(f"position  {_where(answer)}")
    if question.truth is not None:
        far = "no position to compare" if error is None else f"error {error:,.0f} km"
        lines.append(f"EXIF says {question.truth.lat:.4f}, {question.truth.lon:.4f}: {far}")
    say(*lines)
    if answer.hits:
        table(
            ("tile", "lat", "lon", "score", "p(yes)", "km from EXIF"), [_tile_row(hit, question) for hit in answer.hits]
        )
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
    radius = f", half of such answers lie within {answer.radius_km:,.0f} km" if answer.radius_km else ""
    by = {"generation": "written by the model", "retrieval": "that of the best tile"}.get(answer.source, answer.source)
    return f"{answer.position.lat:.4f}, {answer.position.lon:.4f}  ({by}{radius})"


def _tile_row(hit: Any, question: Question) -> tuple[str, ...]:
    from edgegeo.geo import distance_km

    truth = question.truth
    far = "-" if truth is None else f"{distance_km(truth.lat, truth.lon, hit.position.lat, hit.position.lon):,.0f}"
    sure = "-" if hit.rerank_score is None else f"{hit.rerank_score:.2f}"
    return (hit.id, f"{hit.position.lat:.4f}", f"{hit.position.lon:.4f}", f"{hit.score:.3f}", sure, far)


def _draw(
    file: Path, question: Question, answer: "Answer", error: float | None, bundle: "Bundle", gallery: "Gallery | None"
) -> None:
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
