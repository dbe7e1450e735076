"""What quantised models are calibrated on, and what was seen: samples with their hashes, statistics of every layer.

Never random data, unless asked for, and then everything made from it says so. Torch-free.
"""

from edgegeo.calibration.samples import (
    SampleManifest,
    check_samples,
    describe_samples,
    read_manifest,
    readable,
    write_manifest,
)
from edgegeo.calibration.statistics import Calibration, LayerStatistics, Statistics, open_calibration

__all__ = [
    "Calibration",
    "LayerStatistics",
    "SampleManifest",
    "Statistics",
    "check_samples",
    "describe_samples",
    "open_calibration",
    "read_manifest",
    "readable",
    "write_manifest",
]
