"""How a data set is scored, as data: what counts as a hit, among which items, and which numbers are printed."""

from dataclasses import dataclass
from typing import Literal

from edgegeo.geo import GPS_THRESHOLDS_KM


@dataclass(frozen=True)
class RetrievalProtocol:
    """A way of scoring ranked gallery items. Numbers of different protocols are never to be printed under one name."""

    name: str
    hit: Literal["group", "pair"] = "group"
    """What query and item must share: `Item.group` (the building, the image) or `Item.pair` (the very picture)."""
    ks: tuple[int, ...] = (1, 5, 10)
    """Recall@k: the share of queries with any hit in the top k."""
    pool: Literal["all", "nearest", "given"] = "all"
    """Ranked among the whole gallery, the `nearest` items around the true position, or each query's own candidates."""
    nearest: int = 0
    average_precision: bool = False
    within_km: tuple[float, ...] = ()
    """Shares of queries whose first item lies within these distances of the truth."""
    mean_km: bool = False
    """Mean distance of the first item from the truth."""
    both_ways: bool = False
    """Also scored with queries and gallery exchanged."""
    source: str = ""


@dataclass(frozen=True)
class GpsProtocol:
    """Scores positions answered to pictures by great-circle distance; a picture without an answer is a miss."""

    name: str
    within_km: tuple[float, ...] = GPS_THRESHOLDS_KM
    median_km: bool = True
    source: str = "Im2GPS3k; GeoLocSFT, arXiv 2506.01277, section 4"


BUILDING = RetrievalProtocol(
    "building", both_ways=True, source="GeoText-1652 (ECCV 2024): any of the top k shows or tells of the building"
)
EXACT_IMAGE = RetrievalProtocol("exact image", hit="pair", both_ways=True)
CAPTIONS = RetrievalProtocol("any positive", both_ways=True, source="Karpathy splits of COCO and Flickr30K")
UNIVERSITY = RetrievalProtocol(
    "University-1652", ks=(1, 5, 10), average_precision=True, source="University-1652 (ACM MM 2020): Recall@1 and AP"
)
CVG_ORACLE = RetrievalProtocol(
    "oracle gallery of the 100 nearest",
    pool="nearest",
    nearest=100,
    within_km=(0.05, 0.10, 0.15),
    mean_km=True,
    source="CVG-Text (ICCV 2025): the gallery is chosen by the true position, so these are no open-world numbers",
)
CVG_FULL = RetrievalProtocol("full gallery", within_km=(0.05, 0.10, 0.15), mean_km=True)
CANDIDATES = RetrievalProtocol("given candidates", pool="given", ks=(1,), source="MMEB: the first candidate is right")
FULL_GALLERY = RetrievalProtocol("full gallery")
GPS = GpsProtocol("distance")
