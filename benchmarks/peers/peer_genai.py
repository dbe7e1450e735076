"""onnxruntime-genai: its own builder's graph of the decoder, its own generator."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


class Peer:
    """precision: "fp32" or "int4", as its builder calls them."""

    MISSING = "its builder has no vision part for SmolVLM"

    @staticmethod
    def prepare(folder: Path, precision: str) -> None:
        """Build under FOLDER/genai-PRECISION; hidden states are asked for beside the logits."""
        place = folder / f"genai-{precision}"
        if not (place / "genai_config.json").is_file():
            words = [
                sys.executable,
                "-m",
                "onnxruntime_genai.models.builder",
                "-i",
                str(folder / "text"),
                "-o",
                str(place),
            ]
            words += ["-p", precision, "-e", "cpu", "-c", str(folder / "genai-cache")]
            subprocess.run([*words, "--extra_options", "include_hidden_states=true"], check=True)

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        import onnxruntime_genai

        config = onnxruntime_genai.Config(str(folder / f"genai-{precision}"))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self._genai, self._model = onnxruntime_genai, onnxruntime_genai.Model(config)

    def text(self, ids: Any) -> Any:
        """Last hidden states (B, H) of token ids (B, S)."""
        generator = self._generator(len(ids), ids.shape[1] + 1)
        generator.append_tokens(ids.astype(np.int32))
        return generator.get_output("hidden_states")[:, -1]

    def answer(self, prompt: Any, tokens: Any) -> Any:
        """Logits (V,) behind a prompt (1, S) and given tokens (N,): the head and its largest at every step."""
        generator = self._generator(1, prompt.shape[1] + len(tokens) + 1)
        generator.append_tokens(prompt.astype(np.int32))
        for token in tokens:
            int(generator.get_logits().argmax())
            generator.append_tokens(np.array([[token]], np.int32))
        return generator.get_logits().reshape(-1)

    def pairs(self, prefix: Any, suffixes: Any) -> Any:
        """Last hidden states (N, H), every pair read in full, all in one batch."""
        return self.text(np.concatenate([np.repeat(prefix, len(suffixes), axis=0), suffixes], axis=1))

    def pairs_shared(self, prefix: Any, suffixes: Any) -> Any:
        """The same; the prefix is read once, and every suffix rewinds to it."""
        generator = self._generator(1, prefix.shape[1] + suffixes.shape[1] + 1)
        generator.append_tokens(prefix.astype(np.int32))
        out = []
        for suffix in suffixes.astype(np.int32):
            generator.rewind_to(prefix.shape[1])
            generator.append_tokens(suffix[None])
            out.append(np.array(generator.get_output("hidden_states")[0, -1]))
        return np.stack(out)

    def _generator(self, batch: int, length: int) -> Any:
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(max_length=length, batch_size=batch)
        return self._genai.Generator(self._model, params)
