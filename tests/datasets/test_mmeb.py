from pathlib import Path
from typing import Any

import pytest
from small_files import picture, retrieval, traps, write, write_lines

from edgegeo.errors import InputError


def train(qry: Any, qry_image: Any, pos: Any, pos_image: Any, **neg: Any) -> dict[str, Any]:
    return {"qry": qry, "qry_image_path": qry_image, "pos_text": pos, "pos_image_path": pos_image, **neg}


def test_absent_sides_and_negatives(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "n.jpg"):
        picture(tmp_path / "images" / name)
    rows = [
        train("find it", "-", "-", "a.jpg", neg_text="-", neg_image_path="n.jpg"),
        train("", "b.jpg", "a tower", None, neg_text=["a mast", "a church"], neg_image_path=["", ""]),
        train("find it again", "", "", "a.jpg"),
    ]
    write_lines(tmp_path / "GEO_train.jsonl", rows)
    data = retrieval("mmeb", tmp_path, "train")
    assert [(q.text, q.image and q.image.name) for q in data.queries] == [
        ("find it", None),
        (None, "b.jpg"),
        ("find it again", None),
    ]
    assert [(g.text, g.image and g.image.name) for g in data.gallery] == [
        (None, "a.jpg"),
        (None, "n.jpg"),
        ("a tower", None),
        ("a mast", None),
        ("a church", None),
    ]
    assert data.negatives == ((1,), (3, 4), ())
    assert [data.positives(query) for query in data.queries] == [(0,), (2,), (0,)]
    with pytest.raises(InputError, match="one direction"):
        data.reversed()


def test_test_rows_have_candidates_and_the_first_is_right(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "q.jpg")
    rows = [
        {"qry_text": "<|image_1|>\nWhat is it?", "qry_img_path": "q.jpg", "tgt_text": [*"abc"], "tgt_img_path": [""]},
        {"qry_text": "And this?", "qry_img_path": "", "tgt_text": ["c", "a"], "tgt_img_path": ["", ""]},
    ]  # fmt: skip
    write_lines(tmp_path / "test.jsonl", rows)
    data = retrieval("mmeb", tmp_path)
    assert data.queries[0].text == "What is it?"
    assert traps(data) == {"picture mark of another model in the text; removed": 1}
    assert data.protocols[0].pool == "given"
    assert [data.gallery[k].text for k in data.pool(1, data.protocols[0])] == ["c", "a"]  # type: ignore[union-attr]
    assert [data.gallery[k].text for k in data.positives(data.queries[1])] == ["c"]
    assert data.pool(1, data.protocols[1]) is None


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (train("-", "-", "x", ""), "neither text nor picture on one side"),
        (train("x", "", "-", None), "neither text nor picture on one side"),
        (train("x", "gone.jpg", "y", ""), "missing picture"),
        (train("x", "../q.jpg", "y", ""), "picture path leaves the data set's folder"),
        (train(3, "", "y", ""), "text is no text"),
        ({"qry": "x"}, "no key 'qry_image_path'"),
        ("{not json", "the line is not JSON"),
        ("[1]", "the row is no JSON object"),
        ({"qry_text": "x", "qry_img_path": "", "tgt_text": ["a", "b"], "tgt_img_path": ["", "", ""]},
         "target texts and pictures differ in number"),
    ],
)  # fmt: skip
def test_a_broken_row_is_counted_and_named(tmp_path: Path, broken: Any, reason: str) -> None:
    write_lines(tmp_path / "rows.jsonl", [train("x", "", "y", ""), broken])
    data = retrieval("mmeb", tmp_path, "train")
    assert data.report.reasons() == {reason: 1}
    assert data.report.refused[0].examples[0].startswith("rows.jsonl:2")
    assert len(data.queries) == 1


def test_which_file(tmp_path: Path) -> None:
    row = train("x", "", "y", "")
    for subset in ("MSCOCO_t2i", "MSCOCO_i2t"):
        write(tmp_path / f"{subset}.json", [row])
    with pytest.raises(InputError, match="found MSCOCO_i2t, MSCOCO_t2i; name it: subset="):
        retrieval("mmeb", tmp_path)
    assert len(retrieval("mmeb", tmp_path, subset="MSCOCO_i2t").queries) == 1
    (tmp_path / "parquet" / "NIGHTS").mkdir(parents=True)
    (tmp_path / "parquet" / "NIGHTS" / "test-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="to_json"):
        retrieval("mmeb", tmp_path / "parquet")
