"""What became of every row of a data set: read, kept, or refused with a reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Rows that could not be used, for one reason."""

    reason: str
    count: int
    examples: tuple[str, ...]
    """The first few: file and row, and what stood there."""


@dataclass(frozen=True)
class Trap:
    """A known oddity of the format that was met and dealt with; the rows were kept."""

    what: str
    count: int
    first: str


@dataclass(frozen=True)
class Report:
    """The account of one reading. `read == kept + refused_count` always holds."""

    dataset: str
    root: str
    split: str
    read: int
    """Rows of the source: lines, JSON entries or picture files, as the format counts them."""
    kept: int
    refused: tuple[Refusal, ...]
    traps: tuple[Trap, ...]
    warnings: tuple[str, ...]
    """What a person should look at before trusting a score."""

    def __post_init__(self) -> None:
        assert self.read == self.kept + self.refused_count, "a row was neither kept nor refused"

    @property
    def refused_count(self) -> int:
        """How many rows were refused, for whatever reason."""
        return sum(refusal.count for refusal in self.refused)

    def reasons(self) -> dict[str, int]:
        """Reason to count."""
        return {refusal.reason: refusal.count for refusal in self.refused}

    def summary(self, most: int = 3) -> str:
        """The refusals in one line, commonest first, each with an example."""
        parts = [f"{r.count} x {r.reason} ({r.examples[0]})" for r in self.refused[:most]]
        more = len(self.refused) - most
        return "; ".join(parts) + (f"; and {more} more reasons" if more > 0 else "")
