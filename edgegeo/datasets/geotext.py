"""GeoText-1652 (Chu et al., ECCV 2024): drone, ground and satellite pictures of buildings with descriptions."""

import math
from pathlib import Path
from typing import Any

from edgegeo.datasets.form import Form, names_any
from edgegeo.datasets.protocol import BUILDING, EXACT_IMAGE
from edgegeo.datasets.reader import Reader, RowFault, entry_of, text_of
from edgegeo.datasets.sets import Item, Region, RetrievalSet
from edgegeo.errors import InputError

FILES = {"train": "train.json", "test_24g": "test_24G_version.json", "test": "test_951_version.json"}


def load_geotext(reader: Reader, *, official_ids: bool = False) -> RetrievalSet:
    """Captions as queries, pictures as gallery; a hit is any item of the same building.

    official_ids: number the buildings as the official evaluation does, which gives the first picture of each building
    the number of the one before (its counter moves after the picture is filed). For comparison with its numbers only.
    """
    if official_ids and reader.split == "train":
        raise InputError("official_ids is a matter of the test files; leave it out for train")
    file = reader.need(FILES[reader.split], f"images/{FILES[reader.split]}")
    folders = (reader.root, reader.folder("images"))
    counted = _OfficialCounter()
    texts: dict[tuple[str, str], Item] = {}
    images: dict[str, Item] = {}
    for where, row in reader.json_rows(file):
        official = counted.number(row)
        with reader.row(where):
            entry = entry_of(row, "image_id", "image", "caption")
            pair = text_of(entry["image_id"], "image_id")
            building = official if official_ids else building_of(pair, entry["image"])
            captions = _captions(reader, entry["caption"])
            path = reader.picture(entry["image"], *folders)
            fresh = [caption for caption in captions if (pair, caption) not in texts]
            if not fresh:
                raise RowFault("duplicate row", pair)
            regions = (images[pair].regions if pair in images else ()) + _regions(reader, entry)
            images[pair] = Item(pair, building, pair, image=path, regions=tuple(dict.fromkeys(regions)))
            for caption in fresh:
                texts[pair, caption] = Item(f"{pair}#{len(texts)}", building, pair, text=caption)
    return RetrievalSet(tuple(texts.values()), tuple(images.values()), (BUILDING, EXACT_IMAGE), reader.report())


def building_of(image_id: str, image: object = "") -> str:
    """The building: the folder a picture lies in."""
    for name in (image_id, image):
        parts = str(name).replace("\\", "/").split("/")
        if len(parts) > 1 and parts[-2]:
            return parts[-2]
    raise RowFault("no building folder in image_id or image", image_id)


class _OfficialCounter:
    """Building numbers by the official rule: the first four letters of image_id, compared after use."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._count = 0

    def number(self, row: Any) -> str:
        name = str(row.get("image_id", ""))[:4] if isinstance(row, dict) else ""
        given = str(self._count)
        if self._last is not None and name != self._last:
            self._count += 1
        self._last = name
        return given


def _captions(reader: Reader, found: object) -> list[str]:
    if isinstance(found, str):
        if reader.split != "train":
            reader.trap("caption is one text where the test files have a list")
        return [text_of(found)]
    if not isinstance(found, list) or not found:
        raise RowFault("caption is neither a text nor a list of texts", repr(found))
    if reader.split == "train":
        reader.trap("caption is a list where the training file has one text")
    captions = []
    for one in found:
        if isinstance(one, str) and one.strip():
            captions.append(text_of(one))
        else:
            reader.trap("null or empty caption in a list; left out", repr(one))
    if not captions:
        raise RowFault("no caption in the list", repr(found))
    return list(dict.fromkeys(captions))


def _regions(reader: Reader, entry: dict[str, Any]) -> tuple[Region, ...]:
    sentences, boxes = entry.get("sentences") or (), entry.get("bboxes") or ()
    if not isinstance(sentences, (list, tuple)) or not isinstance(boxes, (list, tuple)):
        reader.trap("sentences or bboxes are no list; left out")
        return ()
    if len(sentences) != len(boxes):
        reader.trap("sentences and bboxes differ in number; the surplus is left out")
    regions = []
    for sentence, box in zip(sentences, boxes, strict=False):
        if not isinstance(sentence, str) or not sentence.strip():
            reader.trap("null sentence; left out")
            continue
        if box is None:
            reader.trap("null bbox; the sentence is kept without")
        regions.append(Region(sentence.strip(), _box(reader, box)))
    return tuple(regions)


def _box(reader: Reader, box: object) -> tuple[float, float, float, float] | None:
    if box is None:
        return None
    numbers = [float(v) for v in box if isinstance(v, (int, float))] if isinstance(box, list) else []
    if len(numbers) == 4 and all(map(math.isfinite, numbers)) and min(numbers[2:]) > 0 and max(numbers) <= 1.5:
        return (numbers[0], numbers[1], numbers[2], numbers[3])
    reader.trap("bbox is not (cx, cy, w, h) in shares of the picture; the sentence is kept without", repr(box))
    return None


def _recognise(root: Path) -> str | None:
    test = names_any("test_951_version.json", "test_24G_version.json")(root)
    if test or not (root / "train.json").is_file():
        return test
    with (root / "train.json").open("rb") as stream:
        head = stream.read(8000)
    return "train.json" if all(key in head for key in (b'"image_id"', b'"caption"', b'"sentences"')) else None


FORMS = (
    Form(
        "geotext1652",
        "GeoText-1652",
        "train.json, test_951_version.json, test_24G_version.json; [images/]{train,test/query(701)}/NNNN/",
        tuple(FILES),
        load_geotext,
        _recognise,
    ),
)
