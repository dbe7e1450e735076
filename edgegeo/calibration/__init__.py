"""What quantised ranges are calibrated on, and how: real samples with their hashes, never random data. Torch-free."""

from edgegeo.calibration.ranges import record_ranges
from edgegeo.calibration.samples import (
    SampleManifest,
    check_samples,
    describe_samples,
    read_manifest,
    readable,
    write_manifest,
)

__all__ = [
    "SampleManifest",
    "check_samples",
    "describe_samples",
    "read_manifest",
    "readable",
    "record_ranges",
    "write_manifest",
]
