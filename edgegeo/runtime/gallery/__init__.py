"""Galleries in folders: tiles taken in, kept in segments under a manifest, searched, edited and compacted."""
