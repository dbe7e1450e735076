"""The tiny bundle with a grammar, and other phrasings of its question."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tiny import HIDDEN, _tokenizer

from edgegeo.bundle import Bundle, Roles, Segment, open_bundle, publish, staging


class Head:
    """The tiny head as a torch Linear: what `write_grammar` reads."""

    def __init__(self, vocab: int) -> None:
        import torch

        # The first draw of tests/tiny.py, whose head is tied to its table.
        table = np.random.default_rng(0).normal(0, 1, (vocab, HIDDEN)).astype(np.float32)
        self.weight = torch.from_numpy(table)
        self.bias = None


def add_grammar(source: Path, target: Path, form: Any = None, **role: Any) -> Bundle:
    """A copy of the tiny bundle with grammar.npz; `role` changes fields of the generate role."""
    from edgegeo.export.grammar import write_grammar
    from edgegeo.models.checkpoint import AnswerForm

    opened = open_bundle(source)
    generate = opened.manifest.roles.generate
    assert generate is not None
    tokenizer = _tokenizer()
    with staging(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        name = write_grammar(tokenizer, Head(opened.decoder.vocab), form or AnswerForm(), folder)
        words = [(Segment(ids=(1,)), Segment(image=0), Segment(ids=tuple(tokenizer.encode(text).ids)))
                 for text in (" beside", " houses with")]  # fmt: skip
        changed = {"grammar": name, "max_new_tokens": 40, "phrasings": tuple(words)} | role
        roles = Roles(opened.manifest.roles.embed, opened.manifest.roles.rerank, replace(generate, **changed))
        return publish(folder, replace(opened.manifest, roles=roles), target)
