"""Accuracy in the task's own units, Recall@k and kilometres, measured through the runtime that will be used."""

from edgegeo.evaluate.card import TASKS, Scores, difference, evaluate
from edgegeo.evaluate.scenes import Scene, planet_scenes

__all__ = ["TASKS", "Scene", "Scores", "difference", "evaluate", "planet_scenes"]
