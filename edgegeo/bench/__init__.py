"""Sweeps of latency against accuracy: precision x token budget x batch x threads x job, a process for each."""

from edgegeo.bench.cells import JOBS, SweepSettings
from edgegeo.bench.report import write_reports
from edgegeo.bench.sweep import Subject, run_sweep

__all__ = ["JOBS", "Subject", "SweepSettings", "run_sweep", "write_reports"]
