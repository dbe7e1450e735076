"""The KV cache of the trt dialect on onnxruntime: present is past and new rows joined, new arrays at every run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgegeo.bundle import TrunkSpec
from edgegeo.runtime.trunk import Floats, Ints, Mark, TrunkInput, continuation


class GrowingCache:
    """Does what KVCache does, slower: it is how graphs meant for TensorRT are checked where there is none."""

    def __init__(self, session: Any, spec: TrunkSpec, batch: int, kv_dtype: Any, names: Sequence[str]) -> None:
        self.length = 0
        self.batch = batch
        self._session, self._spec, self._kv_dtype = session, spec, kv_dtype
        self._names = names
        empty = np.empty((batch, spec.kv_heads, 0, spec.head_dim), kv_dtype)
        self._past = [empty] * len(names)
        self.step_embeds = np.zeros((batch, 1, spec.hidden), np.float32)
        """Write the next token's embeddings here (B, 1, H), then call `step`."""
        self._mrope, self._blocks = spec.rope == "mrope", spec.blocks
        self._rope = np.zeros(batch, np.int64)

    def extend(self, prompts: TrunkInput, positions: Ints) -> Floats:
        """Append S positions to every row: positions (B, K) indexes into S; returns (B, K, H) float32."""
        feeds = {"inputs_embeds": prompts.embeds, "positions": positions}
        if prompts.rope is not None:
            feeds["position_ids"] = prompts.rope + self._rope[None, :, None]
        if prompts.blocks is not None:
            feeds["image_blocks"] = prompts.blocks
        hidden = self._run(feeds, prompts.embeds.shape[1])
        if prompts.spans is not None:
            self._rope = self._rope + prompts.spans
        return hidden

    def step(self) -> Floats:
        """Append the one position in `step_embeds`; returns its hidden states (B, 1, H)."""
        feeds: dict[str, Any] = {"inputs_embeds": self.step_embeds, "positions": np.zeros((self.batch, 1), np.int64)}
        if self._mrope:
            feeds["position_ids"] = np.tile(self._rope[None, :, None], (3, 1, 1))
            self._rope = self._rope + 1
        if self._blocks:
            feeds["image_blocks"] = np.zeros((self.batch, 1), np.int64)
        return self._run(feeds, 1)

    def append(self, embeds: Floats, asked: int = 1) -> Floats:
        """Append S text positions to the only row; the hidden states of the last ones (1, asked, H)."""
        fed = continuation(embeds, self._spec)
        return self.extend(fed, np.arange(embeds.shape[1] - asked, embeds.shape[1])[None])

    def expand(self, batch: int) -> "GrowingCache":
        """A new cache of `batch` rows that all say what this one's only row says."""
        wide = GrowingCache(self._session, self._spec, batch, self._kv_dtype, self._names)
        wide.length, wide._rope = self.length, np.repeat(self._rope, batch)
        wide._past = [np.repeat(past, batch, axis=0) for past in self._past]
        return wide

    def reorder(self, rows: Ints, since: int) -> None:
        """Row i goes on from where rows[i] stands."""
        self._past = [past[rows] for past in self._past]
        self._rope = self._rope[rows]

    def mark(self) -> Mark:
        """Where the cache stands, for `rewind`."""
        return Mark(self.length, self._rope)

    def rewind(self, mark: Mark) -> None:
        """Forget what came after `mark`, so that another suffix can follow a shared prefix."""
        self.length, self._rope = mark.length, mark.rope
        self._past = [past[:, :, : mark.length] for past in self._past]

    def _run(self, feeds: dict[str, Any], count: int) -> Floats:
        self.length += count
        feeds["attention_mask"] = np.ones((self.batch, self.length), np.int64)
        past = dict(zip(self._names, self._past, strict=True))
        feeds |= {f"past_key_values.{name}": value for name, value in past.items()}
        hidden: Floats
        hidden, *self._past = self._session.run(["hidden_states", *(f"present.{name}" for name in self._names)], feeds)
        return hidden
