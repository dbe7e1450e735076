"""The KV cache of an engine, in device memory from the first position to the last.

The graphs of the trt dialect join the past with the new rows, so a run reads one half of the memory and writes the
other, and the halves change places. Nothing of the cache crosses to the host.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from edgegeo.bundle import TrunkSpec
from edgegeo.errors import InputError
from edgegeo.runtime.engines.driver import ALIGNMENT
from edgegeo.runtime.engines.session import EngineSession, Place
from edgegeo.runtime.growing import GrowingCache
from edgegeo.runtime.trunk import Floats, Ints, Mark


class EngineCache(GrowingCache):
    """What GrowingCache does, with keys and values (B, kv, P, hd) of every layer on the device."""

    def __init__(
        self, session: EngineSession, spec: TrunkSpec, batch: int, capacity: int, kv_dtype: Any, names: Sequence[str]
    ) -> None:
        super().__init__(session, spec, batch, kv_dtype, names)
        self.capacity = capacity
        self._driver = session.driver
        self._row: int = spec.head_dim * np.dtype(kv_dtype).itemsize
        # Every tensor has room for `capacity` positions and begins where kernels may assume that it does.
        size = batch * spec.kv_heads * capacity * self._row
        self._stride: int = -(-size // ALIGNMENT) * ALIGNMENT
        self._halves: list[int] = [session.driver.allocate(self._stride * len(names)) for _ in range(2)]

    def __del__(self) -> None:
        with suppress(Exception):  # while the interpreter ends, there may be no driver any more
            for address in self._halves:
                self._driver.free(address)

    def expand(self, batch: int) -> "EngineCache":
        """A new cache of `batch` rows that all say what this one's only row says."""
        wide = EngineCache(self._session, self._spec, batch, self.capacity, self._kv_dtype, self._names)
        wide.length, wide._rope = self.length, np.repeat(self._rope, batch)
        self._driver.enter()
        size = self._size(1)
        for number in range(len(self._names)):
            for row in range(batch):
                self._driver.copy(self._at(0, number), wide._at(0, number) + row * size, size)
        self._driver.synchronize()
        return wide

    def reorder(self, rows: Ints, since: int) -> None:
        """Row i goes on from where rows[i] stands."""
        self._driver.enter()
        size = self._size(1)
        for number in range(len(self._names)):
            for row, source in enumerate(rows):
                self._driver.copy(self._at(0, number) + int(source) * size, self._at(1, number) + row * size, size)
        self._swap()
        self._rope = self._rope[rows]

    def rewind(self, mark: Mark) -> None:
        """Forget what came after `mark`: the heads' rows move together."""
        if mark.length < self.length:
            self._driver.enter()
            heads = self.batch * self._spec.kv_heads
            pitches = (self.length * self._row, mark.length * self._row)
            for number in range(len(self._names)):
                self._driver.copy_rows(self._at(0, number), self._at(1, number), heads, pitches[1], pitches)
            self._swap()
        self.length, self._rope = mark.length, mark.rope

    def _run(self, feeds: dict[str, Any], count: int) -> Floats:
        if self.length + count > self.capacity:
            raise InputError(f"the cache has room for {self.capacity} positions, not {self.length + count}")
        past = (self.batch, self._spec.kv_heads, self.length, self._spec.head_dim)
        self.length += count
        feeds["attention_mask"] = np.ones((self.batch, self.length), np.int64)
        targets = {}
        for number, name in enumerate(self._names):
            feeds[f"past_key_values.{name}"] = Place(self._at(0, number), past)
            targets[f"present.{name}"] = self._at(1, number)
        hidden: Floats = self._session.execute(["hidden_states"], feeds, targets)[0]
        self._halves.reverse()
        return hidden

    def _at(self, half: int, number: int) -> int:
        """Address of a tensor: half 0 holds the past, 1 is written next."""
        return self._halves[half] + number * self._stride

    def _size(self, rows: int) -> int:
        """Bytes of some rows of one tensor at the present length."""
        return rows * self._spec.kv_heads * self.length * self._row

    def _swap(self) -> None:
        self._driver.synchronize()
        self._halves.reverse()
