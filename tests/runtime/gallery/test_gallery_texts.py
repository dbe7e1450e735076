from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegeo.errors import InputError
from edgegeo.runtime import Embedder, Model, Reranker
from edgegeo.runtime.gallery.texts import TextGallery, read_texts, rerank_texts
from edgegeo.runtime.weighing import Weighing

TEXTS = ["a green field", "houses with red roofs beside a river", "a river", "no"]


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return Model.open(tiny_bundle, threads=1)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def test_texts_that_fit_a_picture(model: Model) -> None:
    embedder = Embedder(model)
    gallery = TextGallery(TEXTS, embedder)
    vector = embedder.images([picture(1)])
    hits = gallery.search(vector, 3)
    cosines = embedder.texts(TEXTS) @ vector[0]
    assert [hit.row for hit in hits] == np.argsort(-cosines)[:3].tolist()
    assert [hit.text for hit in hits] == [TEXTS[hit.row] for hit in hits]
    assert hits[0].score == pytest.approx(float(cosines.max()), abs=1e-5)
    assert len(gallery) == len(gallery.search(vector, 99)) == 4


def test_texts_are_looked_at_again(model: Model) -> None:
    reranker, gallery = Reranker(model), TextGallery(TEXTS, Embedder(model))
    (seen,) = model.features("vision", model.prepare([picture(2)]))
    hits = gallery.search(Embedder(model).images([picture(2)]), 4)
    weighing = Weighing(10.0, 1.0, -50, 50)  # the second look alone
    looked = rerank_texts(reranker, seen, hits, weighing)
    margins = reranker.text_margins(seen, TEXTS)
    assert [hit.row for hit in looked] == np.argsort(-margins).tolist()
    assert looked[0].rerank_score == pytest.approx(1 / (1 + np.exp(-margins.max())), abs=1e-6)
    assert [hit.row for hit in rerank_texts(reranker, seen, hits, Weighing(weight=0.0))] == [hit.row for hit in hits]


def test_unusable_texts(model: Model, tmp_path: Path) -> None:
    embedder = Embedder(model)
    with pytest.raises(InputError, match="no texts"):
        TextGallery([], embedder)
    with pytest.raises(InputError, match="text 2: the text is empty"):
        TextGallery(["a field", " "], embedder)
    with pytest.raises(InputError, match=r"text 1: .* reads up to"):
        TextGallery(["x " * 80], embedder)
    (tmp_path / "texts").write_text("\n a field \n\n a river\n", encoding="utf-8")
    assert read_texts(tmp_path / "texts") == ["a field", "a river"]
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    for name, words in (("empty", "holds no text"), ("bytes", "can't be read"), ("none", "can't be read")):
        with pytest.raises(InputError, match=words):
            read_texts(tmp_path / name)
