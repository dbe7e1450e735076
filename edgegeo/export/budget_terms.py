"""An accuracy budget, what a mix of precisions was scored with, and what a search found, as plain values."""

from dataclasses import dataclass, field, replace

from edgegeo.calibration.sensitivity import Effect, Group
from edgegeo.errors import InputError
from edgegeo.evaluate.bootstrap import Metric
from edgegeo.measure import Latency
from edgegeo.recipe import Recipe


@dataclass(frozen=True)
class Budget:
    """What may be lost, and how it is measured."""

    max_drop: float
    """Percentage points of every metric of the judge."""
    places: int = 1000
    """Validation places to search on, and as many others to confirm on."""
    proven: bool = False
    """Whether the whole 95 % interval must lie within the budget, not only the measured drop."""
    agreement: bool = False
    """Whether the drop is counted in queries that find another first tile than with fp32 graphs, for models that don't
    know the demonstration planet."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 100:
            raise InputError(f"--max-drop is in percentage points, from 0 to below 100, not {self.max_drop:g}")
        if self.places < 2:
            raise InputError(f"a budget is judged on at least 2 places, not {self.places}")

    def check(self, recipe: Recipe) -> None:
        """InputError for a recipe that it says nothing about."""
        if recipe.exact:
            raise InputError(f"{recipe.name} rounds nothing, so there is no drop to bound; leave --max-drop out")
        if recipe.target != "cpu":
            raise InputError(
                f"a budget is searched with the operators of onnxruntime's CPU, not for {recipe.target}: find the "
                "layers with --target cpu, then name them in a recipe, [layers]"
            )


@dataclass(frozen=True)
class Change:
    """One metric with the quantised graphs and with the fp32 ones, over the same places."""

    metric: str
    after: Metric
    before: Metric
    change: Metric
    """after less before, with the interval of matched pairs."""
    won: int
    lost: int
    """Places that only the quantised, or only the fp32 graphs get right."""

    def within(self, budget: Budget) -> bool:
        """Whether the budget is kept."""
        drop = self.change.low if budget.proven else self.change.value
        return bool(-100 * drop <= budget.max_drop + 1e-9)


@dataclass(frozen=True)
class Trial:
    """One mix, scored."""

    name: str
    steps: int
    places: int
    mix: dict[str, str]
    changes: tuple[Change, ...]
    matrix_bytes: int
    """Of the judged components' matrices."""

    @property
    def drop(self) -> float:
        """The largest drop of a metric in points; negative for a gain."""
        return max(-100 * one.change.value for one in self.changes)

    def within(self, budget: Budget) -> bool:
        """Whether every metric keeps to the budget."""
        return all(one.within(budget) for one in self.changes)


@dataclass(frozen=True)
class Found:
    """A mix that keeps to its budget, and how it was found."""

    budget: Budget
    judge: str
    role: str
    recipe: Recipe
    """The recipe asked for, with the layers of the mix."""
    groups: tuple[Group, ...]
    effects: tuple[Effect, ...]
    worst: dict[str, tuple[Change, ...]]
    """Group -> what it alone costs the task at its recipe's precision."""
    trials: tuple[Trial, ...]
    """The curve, from the smallest."""
    chosen: Trial
    """On the search places."""
    confirmed: Trial
    """On the other places."""
    latency: dict[str, dict[str, Latency]] = field(default_factory=dict)
    """Name of a trial -> job -> milliseconds."""
    threads: int = 1

    @property
    def proven(self) -> bool:
        """Whether even the unfavourable end of the confirmation's interval keeps to the budget."""
        return self.confirmed.within(replace(self.budget, proven=True))
