"""edgegeo embed: photos and descriptions to vectors."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgegeo.cli.files import check_suffix, write_whole
from edgegeo.cli.flags import BatchFlag, BundleFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag
from edgegeo.cli.output import emit_json, note, note_provider, progress_bar, table
from edgegeo.errors import InputError

ENCODINGS = ("float32", "int8", "binary")


def command(
    photos: Annotated[list[Path] | None, typer.Argument(help="JPEG, PNG or WebP pictures.")] = None,
    text: Annotated[list[str] | None, flag("--text", verb="embed", help="A description; may be given again.")] = None,
    output: Annotated[Path | None, flag("--output", "-o", verb="embed", help="Write the vectors as .npy.")] = None,
    bundle: BundleFlag = None,
    dims: Annotated[
        int | None,
        flag("--dims", verb="embed", help="First so many numbers, where trained for it.", min=1, show_default="all"),
    ] = None,
    encode: Annotated[
        str, flag("--encode", verb="embed", help="float32, int8 (a quarter of it) or binary (a 32nd).")
    ] = "float32",
    batch: BatchFlag = 16,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Embed photos and texts: unit vectors in one space, so that their dot product is their similarity."""
    pictures, texts = photos or [], text or []
    if not pictures and not texts:
        raise InputError("nothing to embed; name photos, or give --text 'a description'")
    if output is not None:
        check_suffix(output, (".npy",))
    if encode not in ENCODINGS:
        raise InputError(f"--encode takes {', '.join(ENCODINGS)}, not {encode!r:.40}")
    import numpy as np

    from edgegeo.home import find_bundle
    from edgegeo.runtime import Embedder

    embedder = Embedder.open(find_bundle(bundle), threads=threads, provider=provider, dims=dims)
    scales = embedder.scales() if encode == "int8" else None
    note_provider(provider, embedder.model.provider)
    rows = [embedder.texts(texts, batch=batch)] if texts else []
    with progress_bar() as progress:
        for start in range(0, len(pictures), batch):
            progress("embedding photos", start, len(pictures))
            rows.append(embedder.images(pictures[start : start + batch], batch=batch))
    vectors = _encoded(np.concatenate(rows), encode, scales)
    if output is not None:
        write_whole(output, lambda draft: np.save(draft, vectors, allow_pickle=False))
        note(f"wrote {output}: {vectors.shape[0]} x {vectors.shape[1]} {vectors.dtype}")
    names = [{"text": one} for one in texts] + [{"image": str(one)} for one in pictures]
    if as_json:
        items = [{**name, "embedding": vector} for name, vector in zip(names, vectors.tolist(), strict=True)]
        facts: dict[str, Any] = {"dim": embedder.dim, "embedding_id": embedder.embedding_id, "encoding": encode}
        if scales is not None:
            facts["scales"] = scales.tolist()
        emit_json({**facts, "items": items})
        return
    shown = [next(iter(name.values())) for name in names]
    short = [one if len(one) <= 60 else one[:57] + "..." for one in shown]
    form = {"float32": "+.3f", "int8": "+d", "binary": "08b"}[encode]
    starts = [" ".join(format(value, form) for value in vector[:6].tolist()) + " ..." for vector in vectors]
    counted = f"{vectors.shape[1]} bytes" if encode == "binary" else f"{embedder.dim} numbers"
    table(("input", f"first of {counted}"), list(zip(short, starts, strict=True)))


def _encoded(vectors: Any, encode: str, scales: Any) -> Any:
    from edgegeo.runtime.codes import to_binary, to_int8

    if encode == "int8":
        return to_int8(vectors, scales)
    return to_binary(vectors) if encode == "binary" else vectors
