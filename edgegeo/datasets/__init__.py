"""Data sets in the forms they are published in: GeoText-1652, CVG-Text, Im2GPS3k, COCO and others, and the planet.

>>> from edgegeo.datasets import open_dataset                                            # doctest: +SKIP
>>> data = open_dataset("cvg-text", "data/cvg", "test", version="NewYork")               # doctest: +SKIP
>>> len(data.queries), data.report.reasons(), data.protocols[0].name                     # doctest: +SKIP

A loader yields frozen rows whose pictures stay paths until they are opened, the protocols the data set is scored by,
and a report of every row that was read, kept or refused. numpy, Pillow and the standard library only.
"""

from edgegeo.datasets.protocol import GpsProtocol, RetrievalProtocol
from edgegeo.datasets.registry import Found, detect, forms, open_dataset
from edgegeo.datasets.report import Refusal, Report, Trap
from edgegeo.datasets.sets import (
    Drawn,
    GpsSample,
    GpsSet,
    Item,
    PositionSet,
    Region,
    RetrievalSet,
    SftRow,
    SftSet,
    open_picture,
)

__all__ = [
    "Drawn",
    "Found",
    "GpsProtocol",
    "GpsSample",
    "GpsSet",
    "Item",
    "PositionSet",
    "Refusal",
    "Region",
    "Report",
    "RetrievalProtocol",
    "RetrievalSet",
    "SftRow",
    "SftSet",
    "Trap",
    "detect",
    "forms",
    "open_dataset",
    "open_picture",
]
