"""sentence-transformers' ONNX path: optimum's export of the decoder as an encoder, last-token pooling."""

from pathlib import Path
from typing import Any


class Peer:
    """precision: "fp32", or "int8" (its own dynamic quantisation for AVX512-VNNI)."""

    MISSING = "embeds texts only; its ONNX path knows no vision-language model and no cache"

    @staticmethod
    def prepare(folder: Path, precision: str) -> None:
        """FOLDER/sentence/onnx/model.onnx and model_qint8_avx512_vnni.onnx."""
        place = folder / "sentence"
        if not (place / "onnx" / "model.onnx").is_file():
            _open(folder / "text", {"export": True}).save_pretrained(str(place))
        if precision == "int8" and not list((place / "onnx").glob("*qint8*")):
            from sentence_transformers import export_dynamic_quantized_onnx_model

            export_dynamic_quantized_onnx_model(_open(place, {}), "avx512_vnni", str(place))

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        import onnxruntime
        import torch

        torch.set_num_threads(threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        (file,) = [one.name for one in (folder / "sentence" / "onnx").glob("*.onnx")
                   if ("qint8" in one.name) == (precision == "int8")]  # fmt: skip
        self._model = _open(folder / "sentence", {"file_name": f"onnx/{file}", "session_options": options})

    def text(self, ids: Any) -> Any:
        """Last hidden states (B, H) of token ids (B, S)."""
        import torch

        rows = torch.from_numpy(ids)
        with torch.inference_mode():
            # The exported decoder asks for positions, which sentence-transformers does not make itself.
            positions = torch.arange(rows.shape[1]).expand_as(rows)
            fed = {"input_ids": rows, "attention_mask": torch.ones_like(rows), "position_ids": positions}
            return self._model.forward(fed)["sentence_embedding"].numpy()


def _open(folder: Path, settings: dict[str, Any]) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    settings = {"provider": "CPUExecutionProvider", **settings}
    words = Transformer(str(folder), backend="onnx", model_kwargs=settings)
    return SentenceTransformer(
        modules=[words, Pooling(words.get_word_embedding_dimension(), "lasttoken")], device="cpu"
    )
