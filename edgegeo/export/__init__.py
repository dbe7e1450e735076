"""Checkpoint to bundle: graphs, quantisation, verification, packing. Needs the `export` extra."""
