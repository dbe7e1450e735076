"""Checkpoints as torch models: what training makes and export reads. Torch starts here."""
