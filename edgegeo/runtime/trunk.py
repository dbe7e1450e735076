"""The text decoder: hidden states of asked positions, and decoding with KV buffers that never move."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import TrunkSpec
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.runtime.growing import GrowingCache

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

KV_DTYPES: dict[str, Any] = {"tensor(float16)": np.float16, "tensor(int8)": np.int8}
"""What a graph's KV cache is stored in, where it is not float32."""


@dataclass(frozen=True)
class TrunkInput:
    """What the decoder is fed for B prompts of up to S positions, padded on the right."""

    embeds: Floats
    """(B, S, hidden) float32."""
    lengths: Ints
    """(B,) valid positions of each row."""
    rope: Ints | None = None
    """(3, B, S) time, row and column of each position, where the trunk's rope is "mrope"; counted from 0."""
    spans: Ints | None = None
    """(B,) rotary positions that each row takes up, with `rope`: the next prompt piece starts there."""
    blocks: Ints | None = None
    """(B, S) number of the picture at each position, 0 for text, where pictures see themselves both ways."""

    def rows(self, start: int, end: int) -> "TrunkInput":
        """Some of the prompts, as wide as all of them."""
        some = slice(start, end)
        return TrunkInput(
            self.embeds[some],
            self.lengths[some],
            None if self.rope is None else self.rope[:, some],
            None if self.spans is None else self.spans[some],
            None if self.blocks is None else self.blocks[some],
        )


def continuation(embeds: Floats, spec: TrunkSpec) -> TrunkInput:
    """Text (1, S, H) behind what a cache holds."""
    count = embeds.shape[1]
    lengths = np.array([count], np.int64)
    mrope = spec.rope == "mrope"
    rope = np.broadcast_to(np.arange(count), (3, 1, count)) if mrope else None
    blocks = np.zeros((1, count), np.int64) if spec.blocks else None
    return TrunkInput(embeds, lengths, rope, lengths if mrope else None, blocks)


class Trunk:
    """A decoder graph: `inputs_embeds` and a KV cache in, hidden states after the final norm out.

    Rows are padded on the right, because GroupQueryAttention counts valid positions from the left.
    """

    def __init__(self, session: Any, spec: TrunkSpec, dialect: str = "ort") -> None:
        self.session = session
        self.spec = spec
        self.dialect = dialect
        kinds = {i.name: i.type for i in session.get_inputs()}
        self.kv_dtype: Any = KV_DTYPES.get(kinds.get("past_key_values.0.key", ""), np.float32)
        self._names = [f"{i}.{part}" for i in range(spec.layers) for part in ("key", "value")]

    def hidden(self, prompts: TrunkInput, positions: Ints) -> Floats:
        """Hidden states without a cache, for embedding: positions (B, K) indexes into S; returns (B, K, H) float32."""
        out: Floats = self.session.run(["hidden_states"], self.feeds(prompts, positions))[0]
        return out

    def feeds(self, prompts: TrunkInput, positions: Ints) -> dict[str, Any]:
        """The graph's inputs for prompts without a past; InputError for one that is too long."""
        batch, length, _ = prompts.embeds.shape
        self.check_length(length)
        mask = (np.arange(length) < prompts.lengths[:, None]).astype(np.int64)
        feeds: dict[str, Any] = {"inputs_embeds": prompts.embeds, "attention_mask": mask, "positions": positions}
        if prompts.rope is not None:
            feeds["position_ids"] = prompts.rope
        if prompts.blocks is not None:
            feeds["image_blocks"] = prompts.blocks
        empty = np.empty((batch, self.spec.kv_heads, 0, self.spec.head_dim), self.kv_dtype)
        return feeds | {f"past_key_values.{name}": empty for name in self._names}

    def cache(self, batch: int, capacity: int) -> "KVCache | GrowingCache":
        """KV buffers for `batch` rows of up to `capacity` positions each."""
        self.check_length(capacity)
        if self.dialect != "ort":
            from edgegeo.runtime.engines.cache import EngineCache
            from edgegeo.runtime.engines.session import EngineSession
            from edgegeo.runtime.growing import GrowingCache

            if isinstance(self.session, EngineSession):
                return EngineCache(self.session, self.spec, batch, capacity, self.kv_dtype, self._names)
            return GrowingCache(self.session, self.spec, batch, self.kv_dtype, self._names)
        return KVCache(self.session, self.spec, batch, capacity, self.kv_dtype, self._names)

    def check_length(self, length: int) -> None:
        """InputError if the model has no room for `length` positions."""
        if length > self.spec.max_positions:
            raise InputError(
                f"the prompt has {length} positions, the model reads up to {self.spec.max_positions}; shorten the text"
            )


@dataclass(frozen=True)
class Mark:
    """A point in a KVCache to go back to."""

    length: int
    rope: Ints

    def before(self, count: int) -> "Mark":
        """The point `count` text positions earlier."""
        return Mark(self.length - count, self.rope - count)


class KVCache:
    """One max-length buffer per layer bound as past and as present: attention writes in place, nothing is copied.

    All rows have the same length. ONNX Runtime refuses several rows at once with a past and more than one new
    position, so after the first call either rows or new positions must be 1.
    """

    def __init__(
        self, session: Any, spec: TrunkSpec, batch: int, capacity: int, kv_dtype: Any, names: Sequence[str]
    ) -> None:
        import onnxruntime

        self.length = 0
        self.batch = batch
        self.capacity = capacity
        self._session, self._spec, self._kv_dtype, self._names = session, spec, kv_dtype, tuple(names)
        self._binding = session.io_binding()
        # All-ones masks of any length are prefixes of this one array: no mask is built during decoding.
        self._ones = np.ones(batch * capacity, np.int64)
        device = "cuda" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        shape = (batch, spec.kv_heads, capacity, spec.head_dim)
        self._buffers = []
        # On the CPU the buffers are one array, so that rows are copied at once and the system gives it large pages:
        # ten rows of SmolVLM-256M are written in a third of the time that an array a layer takes.
        self._arrays = np.zeros((len(names), *shape), kv_dtype) if device == "cpu" else None
        for index, name in enumerate(names):
            if self._arrays is not None:
                value = onnxruntime.OrtValue.ortvalue_from_numpy(self._arrays[index])
            else:
                value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kv_dtype, device, 0)
            self._buffers.append(value)
            self._binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            self._binding.bind_ortvalue_output(f"present.{name}", value)
        self.step_embeds = np.zeros((batch, 1, spec.hidden), np.float32)
        """Write the next token's embeddings here (B, 1, H), then call `step`."""
        self.step_hidden = np.zeros((batch, 1, spec.hidden), np.float32)
        """Where `step` leaves the hidden states (B, 1, H)."""
        self._zero = np.zeros((batch, 1), np.int64)
        self._step_bound = False
        self._step_rope: Ints | None = None
        self._held: tuple[Any, ...] = ()
        self._mrope, self._blocks = spec.rope == "mrope", spec.blocks
        self._rope = np.zeros(batch, np.int64)  # next rotary position of each row, with M-RoPE

    def extend(self, prompts: TrunkInput, positions: Ints) -> Floats:
        """Append S positions to every row: positions (B, K) indexes into S; returns (B, K, H) float32."""
        count, hidden = prompts.embeds.shape[1:]
        out = np.empty((self.batch, positions.shape[1], hidden), np.float32)
        self._step_bound = False
        rope = None if prompts.rope is None else prompts.rope + self._rope[None, :, None]
        self._bind(prompts.embeds, positions, out, rope, prompts.blocks)
        self._run(self.length + count)
        if prompts.spans is not None:
            self._rope = self._rope + prompts.spans
        return out

    def step(self) -> Floats:
        """Append the one position in `step_embeds`; returns `step_hidden` (B, 1, H)."""
        if not self._step_bound:
            self._step_rope = np.zeros((3, self.batch, 1), np.int64) if self._mrope else None
            blocks = np.zeros((self.batch, 1), np.int64) if self._blocks else None
            self._bind(self.step_embeds, self._zero, self.step_hidden, self._step_rope, blocks)
            self._step_bound = True
        if self._step_rope is not None:
            self._step_rope[:] = self._rope[None, :, None]
            self._rope = self._rope + 1
        self._run(self.length + 1)
        return self.step_hidden

    def append(self, embeds: Floats, asked: int = 1) -> Floats:
        """Append S text positions to the only row: embeds (1, S, H).

        Returns the hidden states of the last `asked` positions (1, asked, H).
        """
        count = embeds.shape[1]
        if count == 1:
            self.step_embeds[:] = embeds
            return self.step()
        fed = continuation(embeds, self._spec)
        return self.extend(fed, np.arange(count - asked, count)[None])

    def expand(self, batch: int) -> "KVCache":
        """A new cache of `batch` rows that all say what this one's only row says."""
        wide = KVCache(self._session, self._spec, batch, self.capacity, self._kv_dtype, self._names)
        wide.length, wide._rope = self.length, np.repeat(self._rope, batch)
        if self._arrays is not None and wide._arrays is not None:
            wide._arrays[:, :, :, : self.length] = self._arrays[:, :, :, : self.length]
        else:
            for mine, its in zip(self._buffers, wide._buffers, strict=True):
                its.update_inplace(np.repeat(mine.numpy(), batch, axis=0))
        return wide

    def reorder(self, rows: Ints, since: int) -> None:
        """Row i goes on from where rows[i] stands; what came before position `since` is the same in all of them."""
        if np.array_equal(rows, np.arange(self.batch)):
            return
        if self._arrays is not None:
            self._arrays[:, :, :, since : self.length] = self._arrays[:, rows, :, since : self.length]
        else:
            for value in self._buffers:
                value.update_inplace(value.numpy()[rows])
        self._rope = self._rope[rows]

    def mark(self) -> "Mark":
        """Where the cache stands, for `rewind`."""
        return Mark(self.length, self._rope)

    def rewind(self, mark: "Mark") -> None:
        """Forget what came after `mark`, so that another suffix can follow a shared prefix."""
        self.length, self._rope = mark.length, mark.rope

    def _bind(self, embeds: Floats, positions: Ints, out: Floats, rope: Ints | None, blocks: Ints | None) -> None:
        given = {"inputs_embeds": embeds, "positions": positions, "position_ids": rope, "image_blocks": blocks}
        # A contiguous array stays the same one, so that `step` may write into what it bound.
        fed = {name: np.ascontiguousarray(array) for name, array in given.items() if array is not None}
        for name, array in fed.items():
            self._binding.bind_cpu_input(name, array)
        self._binding.bind_output("hidden_states", "cpu", 0, np.float32, out.shape, out.ctypes.data)
        self._held = (fed, out)  # the binding keeps addresses only

    def _run(self, total: int) -> None:
        mask = self._ones[: self.batch * total].reshape(self.batch, total)
        self._binding.bind_cpu_input("attention_mask", mask)
        self._session.run_with_iobinding(self._binding)
        self.length = total


class Head:
    """The LM head: hidden states to logits, into a buffer that is reused."""

    def __init__(self, session: Any, batch: int, hidden: int, vocab: int) -> None:
        self._session = session
        self._binding = session.io_binding()
        self.logits = np.empty((batch, 1, vocab), np.float32)
        """Where `run` leaves the logits (B, 1, V)."""
        self._held: Floats | None = None
        self._binding.bind_output("logits", "cpu", 0, np.float32, self.logits.shape, self.logits.ctypes.data)

    def run(self, hidden: Floats) -> Floats:
        """Logits (B, V) of hidden states (B, 1, H); the same array every time."""
        if hidden is not self._held:
            self._binding.bind_cpu_input("hidden_states", hidden)
            self._held = hidden
        self._session.run_with_iobinding(self._binding)
        return self.logits[:, 0]
