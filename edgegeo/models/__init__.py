"""Checkpoints as torch models: what training makes and export reads. The only room, with train and export, with torch."""
