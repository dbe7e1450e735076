"""One file per model family; each ends in FAMILY (edgegeo/models/family.py)."""
