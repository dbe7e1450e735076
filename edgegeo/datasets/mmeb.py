"""MMEB-style rows (VLM2Vec, Jiang et al., ICLR 2025): a query and its target, each a text, a picture, or both."""

import re
from pathlib import Path
from typing import Any

from edgegeo.datasets.form import Form
from edgegeo.datasets.protocol import CANDIDATES, FULL_GALLERY
from edgegeo.datasets.reader import Reader, RowFault, entry_of, seen, text_of
from edgegeo.datasets.sets import Item, RetrievalSet
from edgegeo.errors import InputError

ABSENT = ("", "-")
TRAIN = ("qry", "qry_image_path", "pos_text", "pos_image_path")
TEST = ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
SUFFIXES = (".jsonl", ".json", ".ndjson")
_MARK = re.compile(r"<\|image_\d+\|>")


class _Gallery:
    """Targets, each once."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._rows: dict[tuple[str | None, str | None], int] = {}

    def row(self, text: str | None, image: str | None, path: Path | None) -> int:
        key = (text, image)
        if key not in self._rows:
            self._rows[key] = len(self.items)
            name = f"target-{len(self.items):06d}"
            self.items.append(Item(name, name, name, text=text, image=path))
        return self._rows[key]


def load_mmeb(reader: Reader, *, subset: str | None = None) -> RetrievalSet:
    """One query a row. Training rows have a positive and perhaps a negative; test rows a list, the first being right.

    "-", "" and null mean absent. subset: the file's name without suffix, where a folder holds several.
    """
    file = _file(reader, subset)
    folders = [reader.root, reader.folder("images"), reader.folder(f"{reader.split}_images"), file.parent / "images"]
    queries: list[Item] = []
    chosen: list[tuple[int, ...]] = []
    gallery, test = _Gallery(), False
    for where, row in reader.json_rows(file):
        with reader.row(where):
            entry = entry_of(row)
            test = "tgt_text" in entry or "tgt_img_path" in entry
            entry_of(row, *(TEST if test else TRAIN))
            query = _side(reader, entry[(TEST if test else TRAIN)[0]], entry[(TEST if test else TRAIN)[1]], folders)
            targets = [_side(reader, text, image, folders) for text, image in _targets(entry, test)]
            rows = tuple(gallery.row(*target) for target in targets)
            right = gallery.items[rows[0]].group
            queries.append(Item(where, right, right, text=query[0], image=query[2]))
            chosen.append(tuple(dict.fromkeys(rows)) if test else tuple(r for r in rows[1:] if r != rows[0]))
    lists = tuple(chosen)
    return RetrievalSet(
        tuple(queries),
        tuple(gallery.items),
        (CANDIDATES, FULL_GALLERY) if test else (FULL_GALLERY,),
        reader.report(),
        candidates=lists if test else None,
        negatives=lists if not test and any(lists) else None,
    )


def _targets(entry: dict[str, Any], test: bool) -> list[tuple[Any, Any]]:
    if test:
        return _zipped(entry["tgt_text"], entry["tgt_img_path"])
    negatives = _zipped(entry.get("neg_text"), entry.get("neg_image_path"))
    return [(entry["pos_text"], entry["pos_image_path"]), *(pair for pair in negatives if not all(map(_absent, pair)))]


def _zipped(texts: Any, images: Any) -> list[tuple[Any, Any]]:
    """Two columns of which either may be one value, a list, or absent."""
    lists = [value if isinstance(value, list) else [value] for value in (texts, images)]
    longest = max(map(len, lists))
    filled = [column * longest if len(column) == 1 else column for column in lists]
    if len(filled[0]) != len(filled[1]) or not longest:
        raise RowFault("target texts and pictures differ in number", f"{len(lists[0])} and {len(lists[1])}")
    return list(zip(*filled, strict=True))


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in ABSENT)


def _side(
    reader: Reader, text: object, image: object, folders: list[Path | None]
) -> tuple[str | None, str | None, Path | None]:
    words = None
    if not _absent(text):
        given = text_of(text, "text")
        words = _MARK.sub("", given).strip() or None
        if len(words or "") < len(given):
            reader.trap("picture mark of another model in the text; removed", text)
    name = None if _absent(image) else image
    if words is None and name is None:
        raise RowFault("neither text nor picture on one side")
    return words, str(name) if name is not None else None, None if name is None else reader.picture(name, *folders)


def _file(reader: Reader, subset: str | None) -> Path:
    if reader.file is not None:
        return reader.file
    files = _row_files(reader.root, reader.split)
    if subset is not None:
        files = [file for file in files if file.stem == subset or file.parent.name == subset]
    if len(files) == 1:
        return files[0]
    if not files and any(reader.root.rglob("*.parquet")):
        raise InputError(
            f"{reader.root} holds MMEB as parquet, which edgegeo does not read; write it as JSON lines: "
            "datasets.load_dataset(FOLDER, SUBSET, split=SPLIT).to_json('SUBSET.jsonl')"
        )
    found = ", ".join(sorted(file.stem for file in files)) or f"none ({seen(reader.root)})"
    raise InputError(f"one .jsonl or .json file of rows is wanted for {reader.split}, found {found}; name it: subset=")


def _row_files(root: Path, split: str) -> list[Path]:
    files = [f for f in sorted(root.glob("*")) + sorted(root.glob("*/*")) if f.suffix.lower() in SUFFIXES]
    named = [file for file in files if split in file.stem.lower().split("_") + file.stem.lower().split("-")]
    return named or files


def _recognise(root: Path) -> str | None:
    files = [root] if root.is_file() else _row_files(root, "test")
    for file in files:
        with file.open("rb") as stream:
            head = stream.read(4000)
        if any(all(f'"{key}"'.encode() in head for key in keys[:3]) for keys in (TRAIN, TEST)):
            return file.name
    return None


FORMS = (
    Form(
        "mmeb",
        "MMEB-style rows",
        "*.jsonl of qry, qry_image_path, pos_*, neg_* (train) or qry_text, qry_img_path, tgt_* (test); images/",
        ("train", "test"),
        load_mmeb,
        _recognise,
    ),
)
