"""Sweeps that settle arguments: time, memory, energy and accuracy of every setting, and what to make of them.

definition.py says what a sweep is (benchmarks/sweeps/*.toml), sweep.py runs it, a process for each round of each cell
(worker.py, jobs.py); ledger.py keeps the rounds, rows.py puts them together; report.py, changes.py and choice.py read
them. Nothing is imported here, so that a worker's memory and cold start hold the runtime and little else.
"""
