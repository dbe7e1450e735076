"""llama.cpp through llama-cpp-python's low-level calls, on a GGUF file made here from the decoder's weights."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

SEQUENCES, ROOM = 32, 256
FTYPES = {"q8": 7, "q4": 2}
"""llama_ftype: MOSTLY_Q8_0, MOSTLY_Q4_0 (K-quants need widths divisible by 256)."""


class Peer:
    """precision: "fp32", "q8" (Q8_0) or "q4" (Q4_0)."""

    MISSING = "its projector file needs llama.cpp's own converter, which no package holds"

    @staticmethod
    def prepare(folder: Path, precision: str) -> None:
        """FOLDER/llama-PRECISION.gguf; the float32 one is written first."""
        import llama_cpp

        whole, small = folder / "llama-fp32.gguf", folder / f"llama-{precision}.gguf"
        if not whole.is_file():
            write_gguf(folder / "text", whole)
        if not small.is_file():
            params = llama_cpp.llama_model_quantize_default_params()
            params.ftype = FTYPES[precision]
            failed = llama_cpp.llama_model_quantize(str(whole).encode(), str(small).encode(), ctypes.byref(params))
            if failed:
                raise SystemExit(f"llama.cpp could not quantise to {precision}")

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        import llama_cpp

        self._cpp = llama_cpp
        llama_cpp.llama_backend_init()
        file = str(folder / f"llama-{precision}.gguf").encode()
        self._model = llama_cpp.llama_model_load_from_file(file, llama_cpp.llama_model_default_params())
        if not self._model:
            raise SystemExit(f"llama.cpp can't load {file.decode()}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = SEQUENCES * ROOM, SEQUENCES
        params.n_batch = params.n_ubatch = 4096
        params.n_threads = params.n_threads_batch = threads
        params.embeddings, params.pooling_type = True, llama_cpp.LLAMA_POOLING_TYPE_NONE
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(4096, 0, 1)
        self._hidden = llama_cpp.llama_model_n_embd(self._model)
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def text(self, ids: Any) -> Any:
        """Last hidden states (B, H) of token ids (B, S): B sequences in one batch."""
        self._start(True)
        self._decode(ids, 0)
        length = ids.shape[1]
        return np.stack([self._states(row * length + length - 1) for row in range(len(ids))])

    def answer(self, prompt: Any, tokens: Any) -> Any:
        """Logits (V,) behind a prompt (1, S) and given tokens (N,): the head and its largest at every step."""
        self._start(False)
        self._decode(prompt, 0)
        for at, token in enumerate(tokens):
            int(self._logits().argmax())
            self._decode(np.array([[token]]), prompt.shape[1] + at)
        return self._logits().copy()

    def pairs(self, prefix: Any, suffixes: Any) -> Any:
        """Last hidden states (N, H), every pair read in full, all in one batch."""
        return self.text(np.concatenate([np.repeat(prefix, len(suffixes), axis=0), suffixes], axis=1))

    def pairs_shared(self, prefix: Any, suffixes: Any) -> Any:
        """The same; the prefix is read once, and every suffix takes the place of the one before."""
        self._start(True)
        shared, out = prefix.shape[1], []
        self._decode(prefix, 0)
        for suffix in suffixes:
            self._cpp.llama_memory_seq_rm(self._memory, 0, shared, -1)
            self._decode(suffix[None], shared)
            out.append(self._states(len(suffix) - 1))
        return np.stack(out)

    def _start(self, embeddings: bool) -> None:
        self._cpp.llama_memory_clear(self._memory, False)
        self._cpp.llama_set_embeddings(self._context, embeddings)

    def _decode(self, ids: Any, past: int) -> None:
        """Read ids (B, S), one sequence a row, behind `past` positions; only the last of each row gives output."""
        batch, length = self._batch, ids.shape[1]
        batch.n_tokens = ids.size
        for at, token in enumerate(ids.ravel().tolist()):
            batch.token[at], batch.pos[at] = token, past + at % length
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, at // length
            batch.logits[at] = at % length == length - 1
        if self._cpp.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")

    def _states(self, at: int) -> Any:
        found = self._cpp.llama_get_embeddings_ith(self._context, at)
        return np.array(np.ctypeslib.as_array(found, (self._hidden,)))

    def _logits(self) -> Any:
        return np.ctypeslib.as_array(self._cpp.llama_get_logits_ith(self._context, -1), (self._vocab,))


def write_gguf(checkpoint: Path, file: Path) -> None:
    """A Llama checkpoint (tied embeddings) as a float32 GGUF file without a tokenizer."""
    import gguf
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32")
    config = model.config
    heads, kv, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    names = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    for layer in range(config.num_hidden_layers):
        for theirs, its in names.items():
            weight = weights[f"model.layers.{layer}.{theirs}.weight"]
            if its in ("attn_q", "attn_k"):  # llama.cpp rotates neighbouring numbers, transformers both halves
                count = heads if its == "attn_q" else kv
                weight = weight.reshape(count, 2, width // 2, -1).swapaxes(1, 2).reshape(weight.shape)
            writer.add_tensor(f"blk.{layer}.{its}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
