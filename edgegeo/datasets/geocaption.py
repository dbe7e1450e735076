"""The geo-caption of GeoLocSFT (arXiv 2506.01277): a JSON that reasons from what is seen to a position."""

import json
from typing import Any

TEXT = "text"
TEXTS = "texts"
NUMBER = "number"
REASONS = range(3, 6)
"""How many reasons an eliminated region needs."""

SCHEMA: dict[str, Any] = {
    "image_id": TEXT,
    "thinking": {
        "25km_analysis": {"terrain_characteristics": TEXT, "climate_features": TEXT, "regional_development": TEXT},
        "1km_analysis": {
            "road_engineering": {
                "surface_materials": TEXT,
                "line_markings": TEXT,
                "guardrails": TEXT,
                "lighting": TEXT,
                "drainage": TEXT,
            },
            "vegetation": {"tree_species": TEXT, "herbaceous_plants": TEXT, "vegetation_management": TEXT},
        },
        "buildings_infrastructure": {
            "architectural_styles": TEXT,
            "municipal_facilities": TEXT,
            "transportation_facilities": TEXT,
        },
        "vehicles_traffic": {"vehicle_types": TEXT, "traffic_patterns": TEXT},
        "terrain_soil": {"terrain_details": TEXT, "soil_characteristics": TEXT},
        "elimination_similar_regions": [{"eliminated_region": TEXT, "reasons": TEXTS}],
    },
    "answer": {
        "coordinates": {"latitude": NUMBER, "longitude": NUMBER, "region": TEXT},
        "final_location_confirmation": {
            "confirmed_location": TEXT,
            "decisive_features": TEXTS,
            "accuracy_assessment": TEXT,
        },
    },
}
"""Exactly these keys, in this order."""


def caption_faults(caption: object) -> list[str]:
    """Everything that keeps a value from being a geo-caption, each with its place; empty for a right one.

    Ranges of the coordinates are not judged here: `parse_answer` reads them as it reads a model's.
    """
    faults: list[str] = []
    _check(caption, SCHEMA, "", faults)
    return faults


def caption_text(caption: dict[str, Any]) -> str:
    """The caption as the answer of a training row: one line of JSON."""
    return json.dumps(caption, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def _check(value: object, wanted: Any, where: str, faults: list[str]) -> None:
    if isinstance(wanted, dict):
        _check_keys(value, wanted, where, faults)
    elif isinstance(wanted, list):
        if not isinstance(value, list) or not value:
            faults.append(f"{where} is no list of at least one")
            return
        for number, one in enumerate(value):
            _check(one, wanted[0], f"{where}[{number}]", faults)
    elif wanted == TEXTS:
        texts = value if isinstance(value, list) else []
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            faults.append(f"{where} is no list of texts")
        elif where.endswith(".reasons") and len(texts) not in REASONS:
            faults.append(f"{where} has {len(texts)} entries, not {REASONS.start} to {REASONS.stop - 1}")
    elif wanted == TEXT and not (isinstance(value, str) and value.strip()):
        faults.append(f"{where} is no text")
    elif wanted == NUMBER and (isinstance(value, bool) or not isinstance(value, (int, float, str))):
        faults.append(f"{where} is no number")


def _check_keys(value: object, wanted: dict[str, Any], where: str, faults: list[str]) -> None:
    if not isinstance(value, dict):
        faults.append(f"{where or 'the caption'} is no JSON object")
        return
    for key in wanted:
        place = f"{where}.{key}" if where else key
        if key in value:
            _check(value[key], wanted[key], place, faults)
        else:
            faults.append(f"no {place}")
    faults += [f"unknown key {where}.{key}" if where else f"unknown key {key}" for key in value if key not in wanted]
