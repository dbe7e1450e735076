"""The text decoder: hidden states of asked positions, and decoding with KV buffers that never move."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import TrunkSpec
from edgegeo.errors import InputError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Trunk:
    """A decoder graph: `inputs_embeds` and a KV cache in, hidden states after the final norm out.

    Rows are padded on the right, because GroupQueryAttention counts valid positions from the left.
    """

    def __init__(self, session: Any, spec: TrunkSpec) -> None:
        self.session = session
        self.spec = spec
        kinds = {i.name: i.type for i in session.get_inputs()}
        self.kv_dtype = np.float16 if kinds.get("past_key_values.0.key") == "tensor(float16)" else np.float32
        self._names = [f"{i}.{part}" for i in range(spec.layers) for part in ("key", "value")]

    def hidden(self, embeds: Floats, lengths: Sequence[int] | Ints, positions: Ints) -> Floats:
        """Hidden states without a cache, for embedding.

        embeds (B, S, H) right-padded, lengths (B,) valid positions of each row, positions (B, K) indexes into S;
        returns (B, K, H) float32.
        """
        batch, length, _ = embeds.shape
        self.check_length(length)
        mask = (np.arange(length) < np.asarray(lengths)[:, None]).astype(np.int64)
        feeds: dict[str, Any] = {"inputs_embeds": embeds, "attention_mask": mask, "positions": positions}
        empty = np.empty((batch, self.spec.kv_heads, 0, self.spec.head_dim), self.kv_dtype)
        for name in self._names:
            feeds[f"past_key_values.{name}"] = empty
        out: Floats = self.session.run(["hidden_states"], feeds)[0]
        return out

    def cache(self, batch: int, capacity: int) -> "KVCache":
        """KV buffers for `batch` rows of up to `capacity` positions each."""
        self.check_length(capacity)
        return KVCache(self.session, self.spec, batch, capacity, self.kv_dtype, self._names)

    def check_length(self, length: int) -> None:
        """InputError if the model has no room for `length` positions."""
        if length > self.spec.max_positions:
            raise InputError(
                f"the prompt has {length} positions, the model reads up to {self.spec.max_positions}; shorten the text"
            )


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
        self._session = session
        self._binding = session.io_binding()
        # All-ones masks of any length are prefixes of this one array: no mask is built during decoding.
        self._ones = np.ones(batch * capacity, np.int64)
        device = "cuda" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        shape = (batch, spec.kv_heads, capacity, spec.head_dim)
        self._buffers = []
        for name in names:
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

    def extend(self, embeds: Floats, positions: Ints) -> Floats:
        """Append S positions: embeds (B, S, H), positions (B, K) indexes into S; returns (B, K, H) float32."""
        count = embeds.shape[1]
        out = np.empty((self.batch, positions.shape[1], embeds.shape[2]), np.float32)
        self._step_bound = False
        self._bind(np.ascontiguousarray(embeds), np.ascontiguousarray(positions), out)
        self._run(self.length + count)
        return out

    def step(self) -> Floats:
        """Append the one position in `step_embeds`; returns `step_hidden` (B, 1, H)."""
        if not self._step_bound:
            self._bind(self.step_embeds, self._zero, self.step_hidden)
            self._step_bound = True
        self._run(self.length + 1)
        return self.step_hidden

    def rewind(self, length: int) -> None:
        """Forget the positions from `length` on, so that another suffix can follow a shared prefix."""
        self.length = length

    def _bind(self, embeds: Floats, positions: Ints, out: Floats) -> None:
        self._binding.bind_cpu_input("inputs_embeds", embeds)
        self._binding.bind_cpu_input("positions", positions)
        self._binding.bind_output("hidden_states", "cpu", 0, np.float32, out.shape, out.ctypes.data)
        self._held = (embeds, positions, out)  # the binding keeps addresses only

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
