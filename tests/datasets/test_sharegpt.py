import copy
import json
from pathlib import Path
from typing import Any

import pytest
from small_files import picture, traps, write, write_lines

from edgegeo.datasets import Drawn, SftRow, SftSet, open_dataset
from edgegeo.datasets.geocaption import caption_faults
from edgegeo.datasets.sharegpt import write_sharegpt
from edgegeo.errors import InputError
from edgegeo.geo import Position

CAPTION: dict[str, Any] = {
    "image_id": "a.jpg",
    "thinking": {
        "25km_analysis": {"terrain_characteristics": "t", "climate_features": "c", "regional_development": "r"},
        "1km_analysis": {
            "road_engineering": dict.fromkeys(
                ("surface_materials", "line_markings", "guardrails", "lighting", "drainage"), "x"
            ),
            "vegetation": dict.fromkeys(("tree_species", "herbaceous_plants", "vegetation_management"), "x"),
        },
        "buildings_infrastructure": dict.fromkeys(
            ("architectural_styles", "municipal_facilities", "transportation_facilities"), "x"
        ),
        "vehicles_traffic": {"vehicle_types": "x", "traffic_patterns": "x"},
        "terrain_soil": {"terrain_details": "x", "soil_characteristics": "x"},
        "elimination_similar_regions": [{"eliminated_region": "there", "reasons": ["1", "2", "3"]}],
    },
    "answer": {
        "coordinates": {"latitude": -12.5, "longitude": 30.25, "region": "here"},
        "final_location_confirmation": {
            "confirmed_location": "here",
            "decisive_features": ["x"],
            "accuracy_assessment": "sure",
        },
    },
}
ASK = "<image>\n\nWhere was this taken?"
SCHEMA = "the caption does not follow the schema"
TAG = "<answer> lat: -12.34567 lon: 45.67890 </answer>"


def caption(*path: str, to: Any = ...) -> str:
    """The caption as text, with one value changed, or taken out."""
    changed = copy.deepcopy(CAPTION)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if path and to is ...:
        del inner[path[-1]]
    elif path:
        inner[path[-1]] = to
    return json.dumps(changed)


def row(answer: str, images: Any = ("a.jpg",), prompt: str = ASK) -> dict[str, Any]:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"images": list(images) if isinstance(images, tuple) else images, "conversations": turns}


def ruled_out(reasons: int) -> dict[str, Any]:
    return {"eliminated_region": "r", "reasons": [str(k) for k in range(reasons)]}


def sft(*args: Any, **options: Any) -> SftSet:
    found = open_dataset("sharegpt", *args, **options)
    assert isinstance(found, SftSet)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "images" / name)
    return tmp_path


def test_both_answer_forms(root: Path) -> None:
    write(root / "train.json", [row(caption()), row(TAG, ("b.jpg",)), row("<answer>1.5, 2.5</answer>", ("b.jpg",))])
    data = sft(root)
    assert [r.position for r in data.rows] == [Position(-12.5, 30.25), Position(-12.34567, 45.6789), Position(1.5, 2.5)]
    assert data.rows[0].caption == CAPTION
    assert data.rows[1].caption is None
    assert data.rows[0].images == (root / "images/a.jpg",)
    assert data.report.traps == ()
    assert len(sft(root, answers="tag").rows) == 2
    assert sft(root, answers="caption").report.reasons() == {"the answer is no caption": 2}


@pytest.mark.parametrize(
    ("broken", "reason", "detail"),
    [
        (row(caption("thinking")), "the caption has no thinking", ""),
        (row(caption("answer")), "the caption has no answer", ""),
        (row(caption("image_id")), SCHEMA, "no image_id"),
        (row(caption("thinking", "vehicles_traffic", "vehicle_types")), SCHEMA,
         "no thinking.vehicles_traffic.vehicle_types"),
        (row(caption("thinking", "mood", to="x")), SCHEMA, "unknown key thinking.mood"),
        (row(caption("thinking", "terrain_soil", to="x")), SCHEMA, "no JSON object"),
        (row(caption("thinking", "elimination_similar_regions", to=[])), SCHEMA,
         "no list of at least one"),
        (row(caption("thinking", "elimination_similar_regions", to=[ruled_out(2)])),
         SCHEMA, "2 entries, not 3 to 5"),
        (row(caption("thinking", "elimination_similar_regions", to=[ruled_out(6)])),
         SCHEMA, "6 entries, not 3 to 5"),
        (row(caption("answer", "coordinates", "latitude", to=91)), "the answer holds no position", ""),
        (row(caption("answer", "coordinates", "latitude", to="north")), "the answer holds no position", ""),
        (row(caption("answer", "coordinates", "latitude", to=True)), SCHEMA, "no number"),
        (row("<answer> lat: 91 lon: 0 </answer>"), "the answer holds no position", ""),
        (row("<answer> somewhere </answer>"), "the answer holds no position", ""),
        (row("somewhere"), "the answer is neither an <answer> tag nor JSON", ""),
        (row("[1]"), "the answer is no JSON object", ""),
        (row(TAG, ("gone.jpg",)), "missing picture", "gone.jpg"),
        (row(TAG, ("../x.jpg",)), "picture path leaves the data set's folder", ""),
        (row(TAG, ()), "no picture named", ""),
        (row(TAG, prompt="no mark"), "as many <image> marks as pictures are needed", "0 and 1"),
        (row(TAG, ("a.jpg", "b.jpg")), "as many <image> marks as pictures are needed", "1 and 2"),
        ({"images": ["a.jpg"]}, "no key 'conversations'", ""),
        ({"images": ["a.jpg"], "conversations": []}, "not one question and one answer", ""),
        ({"images": ["a.jpg"], "conversations": [{"role": "robot", "content": "x"}]}, "a turn has no known role", ""),
        (row(""), "empty assistant turn", ""),
        (row("<answer>1.5, 2.5</answer>"), "duplicate row", ""),
    ],
)  # fmt: skip
def test_a_broken_row_is_refused_with_its_reason(root: Path, broken: Any, reason: str, detail: str) -> None:
    write(root / "train.json", [row("<answer>1.5, 2.5</answer>"), broken])
    data = sft(root)
    assert data.report.reasons() == {reason: 1}
    assert detail in data.report.refused[0].examples[0]
    assert len(data.rows) == 1


def test_dialects_that_are_read(root: Path) -> None:
    old = [{"from": "human", "value": ASK}, {"from": "gpt", "value": TAG}]
    fenced = row(f"```json\n{caption()}\n```")
    fenced["conversations"].insert(0, {"role": "system", "content": "You are a geographer."})
    other = row(caption("image_id", to="z.jpg"))
    rows = [{"images": "b.jpg", "conversations": old}, fenced, other]
    write_lines(root / "train.jsonl", rows)
    data = sft(root)
    assert data.rows[1].answer == caption()
    assert traps(data) == {
        "turns say from and value instead of role and content": 2,
        "system turn; left out": 1,
        "answer stands in a code fence; taken out": 1,
        "image_id in the caption is not the picture's": 1,
    }


def test_written_rows_read_back_the_same(root: Path, tmp_path: Path) -> None:
    write(root / "train.json", [row(caption()), row(TAG, ("b.jpg",))])
    first = sft(root)
    assert write_sharegpt(root / "copy.json", first.rows) == 2
    plain = json.loads((root / "copy.json").read_text())
    assert plain[1] == {**row(TAG), "images": ["images/b.jpg"]}
    again = sft(root / "copy.json", strict=True)
    assert [(r.images, r.prompt, r.answer) for r in again.rows] == [(r.images, r.prompt, r.answer) for r in first.rows]
    with pytest.raises(InputError, match="does not lie below"):
        write_sharegpt(root / "deep.json", first.rows, root=root / "elsewhere")
    drawn = SftRow("x", (Drawn(1, 0, 0, "ground", 32),), ASK, TAG, Position(0, 0))
    with pytest.raises(InputError, match="save it first"):
        write_sharegpt(root / "drawn.json", [drawn])


def test_all_faults_of_a_caption_are_told_at_once() -> None:
    assert caption_faults(CAPTION) == []
    broken = copy.deepcopy(CAPTION)
    broken["thinking"]["25km_analysis"]["climate_features"] = " "
    broken["answer"]["final_location_confirmation"]["decisive_features"] = []
    broken["extra"] = 1
    assert caption_faults(broken) == [
        "thinking.25km_analysis.climate_features is no text",
        "answer.final_location_confirmation.decisive_features is no list of texts",
        "unknown key extra",
    ]
    assert caption_faults([]) == ["the caption is no JSON object"]
