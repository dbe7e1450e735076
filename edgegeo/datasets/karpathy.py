"""Captions in a Karpathy split file: COCO, Flickr30K, and the remote-sensing sets that copied its form."""

import json
from pathlib import Path
from typing import Any

from edgegeo.datasets.protocol import CAPTIONS
from edgegeo.datasets.reader import Reader, RowFault, entry_of, place, text_of
from edgegeo.datasets.sets import Item, RetrievalSet
from edgegeo.errors import InputError

PER_IMAGE = 5
FOLDERS = ("images", "Images", "flickr30k-images", "flickr30k_images", "imgs")


def load_karpathy(reader: Reader, *, captions: int | None = PER_IMAGE, restval: bool = True) -> RetrievalSet:
    """Captions as queries, pictures as gallery; a hit is the caption's picture.

    captions: how many of a picture's captions are used outside training (COCO has up to seven, its scores are of
    five); None for all. restval: COCO's left-over validation pictures belong to train, as is the custom.
    """
    file = reader.need(_split_file(reader))
    whole = reader.json(file)
    entries = whole.get("images") if isinstance(whole, dict) else None
    if not isinstance(entries, list):
        raise InputError(f"{file} has no list 'images'; a Karpathy split file is {{'images': [...], 'dataset': ...}}")
    wanted = (reader.split, "restval") if reader.split == "train" and restval else (reader.split,)
    others = [split for split in ("train", "val", "test", "restval") if split not in wanted]
    texts: list[Item] = []
    images: dict[str, Item] = {}
    for number, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("split") in others:
            continue
        with reader.row(f"{file.name}[{number}]"):
            _read(reader, entry, wanted, None if reader.split == "train" else captions, texts, images)
    return RetrievalSet(tuple(texts), tuple(images.values()), (CAPTIONS,), reader.report())


def _read(
    reader: Reader, row: Any, wanted: tuple[str, ...], most: int | None, texts: list[Item], images: dict[str, Item]
) -> None:
    entry = entry_of(row, "filename", "sentences", "split")
    if entry["split"] not in wanted:
        raise RowFault("unknown split", repr(entry["split"]))
    if entry["split"] == "restval":
        reader.trap("restval picture, used for training")
    name = text_of(entry["filename"], "filename")
    below = entry.get("filepath")
    relative = f"{below}/{name}" if isinstance(below, str) and below else name
    if relative in images:
        raise RowFault("duplicate picture", relative)
    found = _sentences(reader, entry["sentences"])
    if most is not None and len(found) > most:
        reader.trap(f"more than {most} captions; the first {most} are used", len(found))
        found = found[:most]
    elif len(found) < PER_IMAGE:
        reader.trap(f"fewer than {PER_IMAGE} captions", len(found))
    if len(set(found)) < len(found):
        reader.trap("the same caption more than once for a picture")
    folders = [reader.root, *(reader.folder(one) for one in FOLDERS)]
    path = reader.picture(relative, *folders)
    position = place(entry["lat"], entry["lon"]) if "lat" in entry and "lon" in entry else None
    images[relative] = Item(relative, relative, relative, image=path, position=position)
    texts += [Item(f"{relative}#{k}", relative, relative, text=text, position=position) for k, text in enumerate(found)]


def _sentences(reader: Reader, rows: object) -> list[str]:
    if not isinstance(rows, list):
        raise RowFault("sentences are no list", repr(rows))
    found = []
    for row in rows:
        raw = row.get("raw") if isinstance(row, dict) else None
        if isinstance(raw, str) and raw.strip():
            found.append(text_of(raw))
        else:
            reader.trap("sentence without text; left out", repr(row))
    if not found:
        raise RowFault("no caption")
    return found


def _split_file(reader: Reader) -> str:
    files = split_files(reader.root)
    own = [file for file in files if dataset_named(file) == reader.dataset] or files
    if len(own) > 1 and reader.file is None:
        raise InputError(f"{reader.root} holds {', '.join(file.name for file in own)}; give the one that is meant")
    return own[0].name


def split_files(root: Path) -> list[Path]:
    """The Karpathy split files in a folder, told by their content."""
    files = sorted(root.glob("dataset*.json")) if root.is_dir() else [root]
    return [file for file in files if _is_split_file(file)] or [root / "dataset.json"]


def _is_split_file(file: Path) -> bool:
    # The files are hundreds of megabytes; their beginning tells enough.
    try:
        with file.open("rb") as stream:
            head = stream.read(2000)
    except OSError:
        return False
    return head.lstrip()[:1] == b"{" and b'"images"' in head


def dataset_named(file: Path) -> str:
    """What a split file calls itself, or its name tells: "coco", "flickr30k", "rsicd", ...; "" if neither does."""
    named = file.stem.removeprefix("dataset").strip("_-").lower()
    if named or not file.is_file():
        return named
    try:
        return str(json.loads(file.read_bytes()).get("dataset", "")).lower()
    except (ValueError, AttributeError, OSError):
        return ""
