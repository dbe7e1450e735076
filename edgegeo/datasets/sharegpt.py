"""Conversations about pictures in sharegpt form, as GeoLocSFT trains on them; reading, checking, writing."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgegeo.datasets.form import Form
from edgegeo.datasets.geocaption import caption_faults
from edgegeo.datasets.protocol import GPS
from edgegeo.datasets.reader import Reader, RowFault, entry_of, seen, text_of
from edgegeo.datasets.sets import SftRow, SftSet
from edgegeo.errors import InputError
from edgegeo.runtime.answer import parse_answer

IMAGE = "<image>"
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
ANSWERS = ("any", "caption", "tag")
_FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


def load_sharegpt(reader: Reader, *, images: str | None = None, answers: str = "any") -> SftSet:
    """One question and its answer a row: a geo-caption JSON with exactly the keys of the schema, or an <answer> tag.

    images: the folder of pictures. answers: "caption" or "tag" refuses rows of the other form.
    """
    if answers not in ANSWERS:
        raise InputError(f"answers is one of {', '.join(ANSWERS)}, not {answers!r}")
    file = _file(reader)
    folders = [reader.folder(images)] if images else [reader.root, reader.folder("images"), file.parent / "images"]
    if images and folders == [None]:
        raise InputError(f"no folder {reader.root / images}; {reader.root} holds {seen(reader.root)}")
    rows: list[SftRow] = []
    known: set[tuple[tuple[str, ...], str, str]] = set()
    for where, row in reader.json_rows(file):
        with reader.row(where):
            entry = entry_of(row, "images", "conversations")
            names = entry["images"] if isinstance(entry["images"], list) else [entry["images"]]
            prompt, answer = _turns(reader, entry["conversations"])
            _check_marks(prompt, len(names))
            answer, caption = _answer(reader, answer, answers)
            position = parse_answer(answer)
            if position is None:
                raise RowFault("the answer holds no position", answer)
            paths = tuple(reader.picture(name, *folders) for name in names)
            if caption is not None and Path(caption["image_id"]).stem != paths[0].stem:
                reader.trap("image_id in the caption is not the picture's", f"{caption['image_id']}, {paths[0].name}")
            key = (tuple(map(str, names)), prompt, answer)
            if key in known:
                raise RowFault("duplicate row", names[0])
            known.add(key)
            rows.append(SftRow(where, paths, prompt, answer, position, caption))
    return SftSet(tuple(rows), (GPS,), reader.report())


def write_sharegpt(file: str | Path, rows: Iterable[SftRow], root: str | Path | None = None) -> int:
    """Write rows as a sharegpt JSON that any trainer reads; returns how many.

    Picture paths are relative to `root`, by default the file's folder; a picture elsewhere or not in a file is an
    InputError.
    """
    file = Path(file)
    base = Path(root or file.parent).resolve()
    entries = []
    for row in rows:
        entries.append(
            {
                "images": [_relative(image, base) for image in row.images],
                "conversations": [
                    {"role": "user", "content": row.prompt},
                    {"role": "assistant", "content": row.answer},
                ],
            }
        )
    file.write_text(json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8")
    return len(entries)


def _relative(image: object, base: Path) -> str:
    if not isinstance(image, Path):
        raise InputError("a picture that is drawn at use has no path; save it first (edgegeo data planet does)")
    try:
        return image.resolve().relative_to(base).as_posix()
    except ValueError:
        raise InputError(f"{image} does not lie below {base}; copy it there, or name another root") from None


def _turns(reader: Reader, turns: object) -> tuple[str, str]:
    if not isinstance(turns, list):
        raise RowFault("conversations are no list", repr(turns))
    said: list[tuple[str, str]] = []
    for turn in turns:
        entry = turn if isinstance(turn, dict) else {}
        if "from" in entry:
            reader.trap("turns say from and value instead of role and content")
        role = ROLES.get(str(entry.get("role", entry.get("from"))))
        if role is None:
            raise RowFault("a turn has no known role", repr(turn))
        said.append((role, text_of(entry.get("content", entry.get("value")), f"{role} turn")))
    if said and said[0][0] == "system":
        reader.trap("system turn; left out")
        said = said[1:]
    if [role for role, _ in said] != ["user", "assistant"]:
        raise RowFault("not one question and one answer", ", ".join(role for role, _ in said) or "no turns")
    return said[0][1], said[1][1]


def _check_marks(prompt: str, pictures: int) -> None:
    if pictures == 0:
        raise RowFault("no picture named", "images is empty")
    if prompt.count(IMAGE) != pictures:
        raise RowFault("as many <image> marks as pictures are needed", f"{prompt.count(IMAGE)} and {pictures}")


def _answer(reader: Reader, text: str, answers: str) -> tuple[str, dict[str, Any] | None]:
    """The answer, and the geo-caption if it is one."""
    tagged = "<answer>" in text or "</answer>" in text
    if answers != "any" and tagged != (answers == "tag"):
        raise RowFault(f"the answer is no {answers}", text)
    if tagged:
        return text, None
    fenced = _FENCE.fullmatch(text)
    if fenced:
        reader.trap("answer stands in a code fence; taken out")
        text = fenced.group(1)
    try:
        caption = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowFault("the answer is neither an <answer> tag nor JSON", error) from None
    if not isinstance(caption, dict):
        raise RowFault("the answer is no JSON object", text)
    for key in ("thinking", "answer"):
        if key not in caption:
            raise RowFault(f"the caption has no {key}", ", ".join(caption))
    faults = caption_faults(caption)
    if faults:
        more = f" and {len(faults) - 2} more" if len(faults) > 2 else ""
        raise RowFault("the caption does not follow the schema", "; ".join(faults[:2]) + more)
    return text, caption


def _file(reader: Reader) -> Path:
    if reader.file is not None:
        return reader.file
    named = [reader.root / f"{reader.split}{suffix}" for suffix in (".json", ".jsonl")]
    files = [file for file in named if file.is_file()] or list(_sharegpt_files(reader.root))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or f"none among {seen(reader.root)}"
        raise InputError(
            f"{reader.root} should hold {reader.split}.json in sharegpt form, found {found}; give the file"
        )
    return files[0]


def _sharegpt_files(root: Path) -> Iterable[Path]:
    files = [root] if root.is_file() else sorted(root.glob("*.json")) + sorted(root.glob("*.jsonl"))
    for file in files:
        with file.open("rb") as stream:
            if b'"conversations"' in stream.read(8000):
                yield file


def _recognise(root: Path) -> str | None:
    return next((file.name for file in _sharegpt_files(root)), None)


FORMS = (
    Form(
        "sharegpt",
        "GeoLocSFT conversations",
        "{train,validation,test}.json of {'images': [...], 'conversations': [user, assistant]}; images/",
        ("validation", "test", "train"),
        load_sharegpt,
        _recognise,
    ),
)
