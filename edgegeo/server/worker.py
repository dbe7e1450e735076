"""How many requests are in hand."""


class Admission:
    """Counts the requests in hand; bounded, so that memory and waiting are bounded too. For one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._in_hand = 0

    @property
    def in_hand(self) -> int:
        """Requests admitted and not yet answered."""
        return self._in_hand

    def enter(self) -> bool:
        """Take a place; False when none is left."""
        if self._in_hand >= self.limit:
            return False
        self._in_hand += 1
        return True

    def leave(self) -> None:
        """Give the place back."""
        self._in_hand -= 1
