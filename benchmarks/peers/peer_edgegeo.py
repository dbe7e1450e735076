"""edgegeo itself: a bundle as `edgegeo export` makes it, through the runtime's own trunk, cache and decoder."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from worker import Refused


class Peer:
    """precision: fp32, int8 or int4; with "-grammar" behind it answers are held to the grammar and its forced tokens,
    with "-drafts" they are drafted too, right as often as the packaged model's are."""

    MISSING = "not asked of this way of decoding"

    @staticmethod
    def prepare(folder: Path, precision: str) -> None:
        """Export the bundle, verified against transformers, unless it stands already."""
        stored = precision.partition("-")[0]
        if not (folder / stored / "edgegeo.json").is_file():
            from edgegeo.export import export
            from edgegeo.recipe import TokenBudget, preset, with_budget

            # One square a picture, as every peer gets it; SmolVLM's own processor would cut it into 17.
            recipe = with_budget(preset(stored), TokenBudget(max_tiles=1))
            export(folder / "vlm", recipe, folder / stored, places=0)

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        from edgegeo.runtime import Generator, Model

        stored, _, self.way = precision.partition("-")
        self.model = Model.open(folder / stored, threads)
        self.generator = Generator(self.model)
        role = self.generator.role
        self.trunk = self.model.trunk(role.trunk)
        components = [role.vision, role.trunk, role.head]
        self.model.load(components[1:] if self.way else components)
        self._benches: dict[tuple[int, ...], Any] = {}

    def text(self, ids: Any) -> Any:
        """Last hidden states (B, H) of token ids (B, S)."""
        self._plain()
        fed = self.model.assemble([[row] for row in ids])
        return self.trunk.hidden(fed, fed.lengths[:, None] - 1)[:, 0]

    def vision(self, pixels: Any) -> Any:
        """Image tokens (1, T, H) of pixels (1, 3, side, side)."""
        self._plain()
        return self._tokens(pixels).rows[None]

    def picture(self, pixels: Any, before: Any, after: Any) -> Any:
        """Last hidden state (1, H) of words, a picture and words."""
        self._plain()
        fed = self.model.assemble([[before[0], 0, after[0]]], [[self._tokens(pixels)]])
        return self.trunk.hidden(fed, fed.lengths[:, None] - 1)[:, 0]

    def answer(self, prompt: Any, tokens: Any) -> Any:
        """Logits (V,) behind a prompt (1, S) and given tokens (N,): the head and its largest at every step.

        Under the grammar the tokens are written by the decoder itself, and returned.
        """
        from edgegeo.runtime.trunk import Head

        if self.way:
            return self._written(prompt, tokens)
        spec = self.model.bundle.decoder
        head = Head(self.model.session(self.generator.role.head), 1, spec.hidden, spec.vocab)
        fed = self.model.assemble([[prompt[0]]])
        cache = self.trunk.cache(1, len(prompt[0]) + len(tokens))
        hidden = cache.extend(fed, fed.lengths[:, None] - 1)
        for token in tokens:
            int(head.run(hidden).argmax())
            cache.step_embeds[0, 0] = self.model.table[token]
            hidden = cache.step()
        return head.run(hidden)[0]

    def _written(self, prompt: Any, tokens: Any) -> Any:
        sys.path.append(str(Path(__file__).parents[1]))
        from given_answers import BROKEN_DRAFTS, Bench

        if tuple(tokens) not in self._benches:
            try:
                bench = Bench(self.generator, None, tokens.tolist(), [prompt[0]])
            except (AssertionError, KeyError, IndexError):
                raise Refused("the grammar writes positions; these tokens are none") from None
            self._benches[tuple(tokens)] = bench
        bench = self._benches[tuple(tokens)]
        wrong = bench.path.broken(BROKEN_DRAFTS) if self.way == "drafts" else None
        return np.array(bench.answer(bench.decoder(True, wrong=wrong)).tokens)

    def pairs_shared(self, prefix: Any, suffixes: Any) -> Any:
        """Last hidden states (N, H) of a prefix and each suffix; the prefix is read once."""
        from edgegeo.runtime.pictures import ImageTokens
        from edgegeo.runtime.shared_prompt import SharedPrompt

        self._plain()
        shown = [[ImageTokens(self.model.rows(row), (len(row),), None)] for row in suffixes]
        return SharedPrompt(self.model, self.generator.role.trunk, [prefix[0], 0], []).last(shown)

    def pairs(self, prefix: Any, suffixes: Any) -> Any:
        """The same, every pair read in full."""
        return self.text(np.concatenate([np.repeat(prefix, len(suffixes), axis=0), suffixes], axis=1))

    def _tokens(self, pixels: Any) -> Any:
        from edgegeo.runtime.pictures import Picture

        layout = (self.model.bundle.manifest.image.tokens,)
        (found,) = self.model.features(self.generator.role.vision, [Picture({"pixel_values": pixels}, layout)])
        return found

    def _plain(self) -> None:
        if self.way:
            raise Refused(self.MISSING)
