"""Retrieval sets in their true forms, scored by a subject that can be worked out by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import Colours, paint, turned, unit

from edgegeo.datasets import Item, RetrievalProtocol, RetrievalSet, open_dataset
from edgegeo.datasets.protocol import EXACT_IMAGE
from edgegeo.datasets.report import Report
from edgegeo.errors import InputError, VerificationError
from edgegeo.evaluate.score_dataset import Sampling, as_scored, score_dataset
from edgegeo.evaluate.score_retrieval import score_retrieval
from edgegeo.evaluate.section import Section
from edgegeo.evaluate.stream import stream


def opened(*args: Any, **options: Any) -> RetrievalSet:
    found = open_dataset(*args, **options)
    assert isinstance(found, RetrievalSet)
    return found


def values(section: Section, name: str) -> list[float]:
    return next(o.values for o in section.outcomes if o.name == name).tolist()


def karpathy(root: Path, *captions: list[str]) -> RetrievalSet:
    """Pictures red, green, blue with five captions each, in a Karpathy split file."""
    images = []
    for number, told in enumerate(captions):
        colour = [0, 0, 0]
        colour[number] = 200
        paint(root / "images" / f"{number}.png", *colour)
        sentences = [{"raw": text} for text in told]
        images.append({"filename": f"{number}.png", "split": "test", "sentences": sentences})
    (root / "dataset_coco.json").write_text(json.dumps({"images": images}))
    return opened("coco", root)


def test_five_captions_and_any_positive(tmp_path: Path) -> None:
    """Red's captions: three say red, two say green. Green's: four say green, one blue. Blue's: all of them red."""
    red, green, blue = "9 1 0", "1 9 0", "0 1 9"
    data = karpathy(tmp_path, [red] * 3 + [green] * 2, [green] * 4 + [blue], ["8 0 2"] * 5)
    to_image, to_text = score_retrieval(Colours(), data).sections
    assert (to_image.direction, to_text.direction) == ("text to image", "image to text")
    assert (to_image.queries, to_image.gallery, to_text.queries, to_text.gallery) == (15, 3, 3, 15)
    assert values(to_image, "recall_at_1") == [1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert values(to_image, "recall_at_5") == [1] * 15  # of three pictures
    # A picture hits with any of its five. Green's best four are tied with red's two wrong ones, which go first.
    assert [row["rank_of_first_hit"] for row in to_text.details()] == [1, 3, 2]
    assert values(to_text, "recall_at_1") == [1, 0, 0]
    assert values(to_text, "recall_at_5") == [1, 1, 1]
    assert to_image.metrics["recall_at_1"].value == pytest.approx(7 / 15)
    # Captions of one picture stand together: three groups, not fifteen queries.
    assert to_image.metrics["recall_at_1"].low == 0
    assert to_image.to_dict()["groups"] == 3


def cvg(root: Path) -> RetrievalSet:
    """Places every 0.0003 degrees (33 m) up a meridian; the text of every other place tells the next one's colour, or
    the one's after it."""
    names = [f"{40 + 0.0003 * i:.6f},-74.000000_x.png" for i in range(120)]
    told = {}
    for number, name in enumerate(names):
        paint(root / "NewYork-satellite" / name, *(round(float(v) * 2) for v in turned(0.7 * number).split()))
        shown = min(number + (0, 1, 0, 2)[number % 4], 119)
        told[name] = turned(0.7 * shown)
    (root / "NewYork").mkdir()
    (root / "NewYork" / "test.json").write_text(json.dumps(told))
    return opened("cvg-text", root)


def test_oracle_gallery_and_full_gallery_are_never_one(tmp_path: Path) -> None:
    oracle, full = score_retrieval(Colours(), cvg(tmp_path)).sections
    assert (oracle.protocol, full.protocol) == ("oracle gallery of the 100 nearest", "full gallery")
    assert oracle.facts["ranked_among"] == {"least": 100, "most": 100}
    assert "ranked_among" not in full.facts
    km = np.array(values(full, "mean_km"))
    first = np.array(values(full, "recall_at_1"))
    assert first[::2].mean() > 0.9
    assert first[1:-1:2].mean() < 0.1
    # The neighbours are 33.4 and 66.7 m away: no hits, but the first is within 50 m of the truth, both within 100.
    assert np.median(km[1::4]) == pytest.approx(0.0334, abs=1e-3)
    assert np.median(km[3::4]) == pytest.approx(0.0667, abs=1e-3)
    assert np.mean(values(full, "l_at_50_m")[1::4]) > 0.9
    assert np.mean(values(full, "l_at_50_m")[3:-1:4]) == 0
    assert np.mean(values(full, "l_at_100_m")) > 0.9
    assert full.metrics["mean_km"].value == pytest.approx(km.mean())
    with pytest.raises(InputError, match="different queries"):
        oracle.change(full)


def test_drawn_queries_keep_their_own_pool(tmp_path: Path) -> None:
    data = cvg(tmp_path)
    whole = {row["query"]: row for row in score_retrieval(Colours(), data).sections[0].details()}
    part = list(score_dataset([Colours()], data, Sampling(limit=20))[0].sections[0].details())
    assert len(part) == 20
    assert part == [whole[row["query"]] for row in part]


def test_a_hit_is_the_building(tmp_path: Path) -> None:
    """GeoText-1652: the text tells of a building's first picture and finds its second: a hit, but not the picture."""
    rows = []
    for name, red, told in (("0839/a.png", 10, "9 4 0"), ("0839/b.png", 200, "9 4 0"), ("0842/c.png", 60, "1 9 0")):
        paint(tmp_path / "test" / name, red, 90)
        rows.append({"image_id": name, "image": f"test/{name}", "caption": [told], "sentences": [], "bboxes": []})
    (tmp_path / "test_951_version.json").write_text(json.dumps(rows))
    found = {(s.protocol, s.direction): s for s in score_retrieval(Colours(), opened("geotext1652", tmp_path)).sections}
    assert len(found) == 4
    assert values(found["building", "text to image"], "recall_at_1") == [1, 1, 0]
    assert values(found["exact image", "text to image"], "recall_at_1") == [0, 1, 0]
    assert values(found["building", "image to text"], "recall_at_1") == [0, 1, 1]


def test_a_change_resamples_the_captions_of_an_image_together(tmp_path: Path) -> None:
    data = karpathy(tmp_path, ["9 1 0"] * 5, ["1 9 0"] * 5, ["0 1 9"] * 5)
    blind = Colours()
    blind.texts = lambda texts: unit([[1, 1, 1]] * len(texts))  # type: ignore[method-assign]
    after, before = (score_retrieval(one, data).sections[0] for one in (Colours(), blind))
    change = after.change(before)["recall_at_1"]
    assert (change.value, change.low, change.high) == (1, 1, 1)
    some = karpathy(tmp_path / "some", ["9 1 0"] * 5, ["9 0 1"] * 5, ["9 1 1"] * 5)
    after, before = (score_retrieval(one, some).sections[0] for one in (Colours(), blind))
    change = after.change(before)["recall_at_1"]
    assert change.value == pytest.approx(1 / 3)
    assert (change.low, change.high) == (0, 1)  # of three images; fifteen captions would say 0.13 to 0.6


def test_drone_to_satellite(tmp_path: Path) -> None:
    """Building 1's drone pictures find it first and second; average precision of one hit at rank 2 is 1/4."""
    paint(tmp_path / "test/query_drone/0001/a.png", 200, 10)
    paint(tmp_path / "test/query_drone/0001/b.png", 90, 110)
    paint(tmp_path / "test/gallery_satellite/0001/s.png", 200, 0)
    paint(tmp_path / "test/gallery_satellite/0002/s.png", 0, 200)
    section = score_retrieval(Colours(), opened("university1652", tmp_path)).sections[0]
    assert (section.protocol, section.direction) == ("University-1652", "image to image")
    assert values(section, "recall_at_1") == [1, 0]
    assert values(section, "average_precision") == [1, 0.25]


def test_given_candidates(tmp_path: Path) -> None:
    rows = [
        {"qry_text": "9 1 0", "qry_img_path": "", "tgt_text": ["8 1 1", "0 9 0"], "tgt_img_path": [""]},
        {"qry_text": "0 0 9", "qry_img_path": "", "tgt_text": ["0 9 0", "9 0 0"], "tgt_img_path": [""]},
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given, full = score_retrieval(Colours(), opened("mmeb", tmp_path)).sections
    # The second has nothing to choose by: its candidates are equally wrong, which is a miss, not a lucky first.
    assert values(given, "recall_at_1") == [1, 0]
    assert given.facts["ranked_among"] == {"least": 2, "most": 2}
    assert full.gallery == 3
    assert "average_precision" not in given.metrics


def test_items_with_text_and_picture(tmp_path: Path) -> None:
    paint(tmp_path / "images" / "q.png", 200, 0, 0)
    row = {"qry_text": "0 9 0", "qry_img_path": "q.png", "tgt_text": ["9 8 0", "9 0 0"], "tgt_img_path": [""]}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    data = opened("mmeb", tmp_path)
    with pytest.raises(InputError, match=r"1 items have a text and a picture.*--joint"):
        score_retrieval(Colours(), data)
    hits = {how: score_retrieval(Colours(), data, joint=how).sections[0] for how in ("text", "image", "mean")}  # type: ignore[arg-type]
    assert {how: values(s, "recall_at_1")[0] for how, s in hits.items()} == {"text": 1, "image": 0, "mean": 1}
    assert hits["mean"].direction == "text + image to text"
    with pytest.raises(InputError, match="one of refuse, text, image, mean"):
        score_retrieval(Colours(), data, joint="sum")  # type: ignore[arg-type]


def test_what_can_not_be_read_is_a_named_miss(tmp_path: Path) -> None:
    data = karpathy(tmp_path, ["9 0 0"] * 4 + ["9 0 0 and far too many words for this one"], ["0 9 0"] * 5)
    (tmp_path / "images" / "1.png").write_bytes(b"junk")
    result = score_retrieval(Colours(most_words=5), data)
    to_image, to_text = result.sections
    assert values(to_image, "recall_at_5") == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert values(to_text, "recall_at_5") == [1, 0]
    assert (result.unusable[0].side, result.unusable[0].why) == ("query", "more than 5 words")
    assert result.unusable[1].side == "gallery"
    assert "1.png" in result.unusable[1].id
    assert (to_image.facts["unread_queries"], to_image.facts["unread_gallery"]) == (1, 1)
    assert [row["unusable"] for row in to_image.details()][4] == "more than 5 words"


def test_embeddings_that_are_no_unit_vectors(tmp_path: Path) -> None:
    data = karpathy(tmp_path, ["9 0 0"] * 5)
    for bad in (np.nan, 0.0, 3.0):
        subject = Colours()
        subject.texts = lambda texts, bad=bad: np.full((len(texts), 3), bad, np.float32)  # type: ignore[method-assign, misc]
        with pytest.raises(VerificationError, match="colours gave 5 embeddings that are no unit vectors"):
            score_retrieval(subject, data)


def test_a_protocol_that_needs_positions() -> None:
    item = Item("a", "a", "a", text="1 0 0")
    report = Report("mine", "", "test", 1, 1, (), (), ())
    protocol = RetrievalProtocol("near", within_km=(0.05,))
    data = RetrievalSet((item,), (item,), (protocol,), report)
    with pytest.raises(InputError, match="mine lacks the position of 1 of 1 queries, for instance a"):
        score_retrieval(Colours(), data)


def test_a_limit_keeps_the_gallery_whole_and_one_direction(tmp_path: Path) -> None:
    data = karpathy(tmp_path, ["9 1 0"] * 5, ["1 9 0"] * 5, ["0 1 9"] * 5)
    sections = score_dataset([Colours()], data, Sampling(limit=4))[0].sections
    assert [(s.direction, s.queries, s.gallery) for s in sections] == [("text to image", 4, 3)]
    assert sections[0].metrics["recall_at_1"].value == 1


def test_directions_of_one_kind_have_two_names(tmp_path: Path) -> None:
    item = Item("a", "a", "a", image=paint(tmp_path / "a.png", 200))
    report = Report("mine", "", "test", 1, 1, (), (), ())
    data = RetrievalSet((item,), (item,), (EXACT_IMAGE,), report)
    sections = score_retrieval(Colours(), data).sections
    assert [s.direction for s in sections] == ["image to image", "image to image, exchanged"]


def test_two_batches_of_pictures_are_held_at_most(tmp_path: Path) -> None:
    picture, opened = paint(tmp_path / "a.png", 9), []
    batches = stream([picture] * 50, opened.append, 4)
    for taken, batch in enumerate(batches, 1):
        assert batch.size == (4 if taken < 13 else 2)
        assert len(opened) <= 4 * (taken + 1)
    assert len(opened) == 50


def test_pictures_go_through_in_batches(tmp_path: Path) -> None:
    data = karpathy(tmp_path, *(["9 0 0"] for _ in range(3)))
    gallery = tuple(data.gallery[0] for _ in range(20))
    subject, stages = Colours(), []
    whole = RetrievalSet(data.queries, gallery, data.protocols, data.report)
    score_retrieval(subject, whole, progress=lambda *told: stages.append(told))
    assert subject.called == [3] * 6 + [2]
    assert ("embed the pictures of the gallery", 20, 20) in stages


def test_bare_positions_have_nothing_to_score(tmp_path: Path) -> None:
    (tmp_path / "gallery.csv").write_text("LAT,LON\n1,2\n")
    with pytest.raises(InputError, match="nothing to score"):
        as_scored(open_dataset("gps-gallery", tmp_path))
