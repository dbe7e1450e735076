"""Counts against numbers worked out by hand and against transformers' own layers; bounds that can't be beaten."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgegeo.bundle import open_bundle
from edgegeo.errors import BundleError, CheckpointError, DeviceError, InputError
from edgegeo.field.ceilings import _product, cache_mb, measure_here
from edgegeo.field.device import Device, load_device, profiles
from edgegeo.field.finding import Root
from edgegeo.field.plan import Load, Plan, bound, longest_job, make_plan
from edgegeo.field.shape import read_shape
from edgegeo.field.subject import find_subject, planned, subject_of
from edgegeo.field.work import Precisions, Work, head_work, text_work, vision_work
from edgegeo.recipe import TokenBudget, preset

TINY: dict[str, Any] = {
    "model_type": "smolvlm", "scale_factor": 2,
    "vision_config": {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                      "patch_size": 4, "image_size": 8},
    "text_config": {"model_type": "llama", "hidden_size": 6, "intermediate_size": 10, "num_hidden_layers": 3,
                    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 20,
                    "max_position_embeddings": 64},
}  # fmt: skip
INT8 = Precisions("int8", "int8", "int8")
SLOW = Device("slow", "cpu", 1.0, 1e-3, 1e-3, 1e-3, 0.0, 1000.0, 50.0, {})
"""1 GB/s, 1 GOP/s, no cache."""


def checkpoint(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def plan_of(folder: Path, device: Device, load: Load | None = None, **how: Any) -> Plan:
    subject = planned(folder, replace(preset(how.pop("precision", "int8")), image=TokenBudget(**how)))
    return make_plan(subject, device, load or Load(length=longest_job(subject, 32, 10)))


def test_a_tiny_model_by_hand() -> None:
    shape = read_shape(TINY)
    # A vision layer: 4 x 8 x 8 of attention, 2 x 8 x 16 of feed-forward. 4 patches of 3 x 4 x 4, one token of 4 x 8.
    assert shape.tower.weights == 2 * (256 + 256) + 48 * 8 + 32 * 6
    assert (shape.tower.positions(), shape.tower.image_tokens()) == (4, 1)
    seen = vision_work(shape, INT8)
    assert seen.matrix_flops == {"int8": 2 * (384 * 4 + 1024 * 4 + 192)}
    assert seen.attention_flops == 2 * 2 * 8 * 4 * 4 * 2
    assert seen.weight_bytes == 1600
    assert vision_work(shape, INT8, tiles=5).flops == 5 * seen.flops
    # A decoder layer: 6 x (8 + 4 + 4) in, 8 x 6 out, 3 x 6 x 10.
    assert shape.text.weights == 3 * (96 + 48 + 180)
    prefill = text_work(shape, INT8, 5)
    assert prefill.matrix_flops == {"int8": 2 * 972 * 5}
    assert prefill.attention_flops == 2 * 2 * 8 * (1 + 2 + 3 + 4 + 5) * 3
    assert (prefill.weight_bytes, prefill.kv_bytes) == (972, 0)
    step = text_work(shape, INT8, 1, past=5)
    assert step.flops == 2 * 972 + 2 * 2 * 8 * 6 * 3
    assert step.kv_bytes == 2 * 5 * 4 * 3 * 4
    assert shape.kv_values == 2 * 3 * 4
    assert head_work(shape, INT8).flops == 2 * 20 * 6
    assert Precisions("int4", "int4", "int4").size(972, "int4") == 972 / 2 + 972 / 32 * 4
    assert Precisions("fp16", "fp16", "fp16").size(972, "fp16") == 2 * 972


def test_windows_bound_what_a_decoder_compares_and_keeps() -> None:
    text = TINY["text_config"] | {"sliding_window": 3, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}
    shape = read_shape(TINY | {"text_config": text})
    assert shape.windows == (3, 3, 0)
    assert text_work(shape, INT8, 5).attention_flops == 2 * 2 * 8 * (2 * (1 + 2 + 3 + 3 + 3) + 15)
    assert text_work(shape, INT8, 1, past=5).kv_bytes == 2 * 4 * 4 * (2 + 2 + 5)


def test_the_packaged_model_counts_as_its_files(tmp_path: Path) -> None:
    import edgegeo

    shape = read_shape(json.loads((Path(edgegeo.__file__).parent / "pocket" / "config.json").read_text()))
    subject = planned(Path(edgegeo.__file__).parent / "pocket", preset("int8"))
    assert (shape.kv_values, shape.head_weights) == (2 * 6 * 2 * 32, 1024 * 192)
    sizes = {part.name: part.bytes for part in subject.parts}
    # The bundle's own files, less scales, norms and tables: 2,457,088 and 2,598,912 bytes.
    assert sizes["trunk"] == pytest.approx(2_457_088, rel=0.15)
    assert sizes["vision"] == pytest.approx(2_598_912, rel=0.25)


def families() -> list[Any]:
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 128}  # fmt: skip
    mrope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}}
    few = {"vision_config": {"num_hidden_layers": 2}, "text_config": {"num_hidden_layers": 2}}
    return [
        transformers.SmolVLMConfig(text_config=text | {"model_type": "llama"}, vision_config={"num_hidden_layers": 2}),
        transformers.InternVLConfig(text_config=text | {"model_type": "qwen3"}, vision_config={"num_hidden_layers": 2}),
        transformers.InternVLConfig(text_config=text | {"model_type": "qwen2"}),
        transformers.Qwen2_5_VLConfig(text_config=text | mrope, vision_config={"depth": 2, "out_hidden_size": 64}),
        # As published: SigLIP's pooling head is not part of Gemma.
        transformers.Gemma3Config(
            text_config={"num_hidden_layers": 2}, vision_config={"num_hidden_layers": 2, "vision_use_head": False}
        ),
        transformers.CLIPConfig(**few),
        transformers.SiglipConfig(**few),
    ]


@pytest.mark.parametrize("number", range(7))
def test_every_family_counts_as_transformers_lays_it_out(tmp_path: Path, number: int) -> None:
    """From the file that transformers writes, in which what equals a default is left out."""
    torch = pytest.importorskip("torch")
    import transformers

    from edgegeo.models.checkpoint import find_config

    config = families()[number]
    config.save_pretrained(tmp_path)
    family, read = find_config(tmp_path)
    with torch.device("meta"):
        kind = transformers.AutoModel if family.text else transformers.AutoModelForImageTextToText
        parts = family.parts(kind.from_config(read))
    file = json.loads((tmp_path / "config.json").read_text())
    shape = read_shape(_without_defaults(file, type(config)))
    vision = _matrices(parts.vision) + (0 if parts.connector is None else _matrices(parts.connector))
    assert shape.tower.weights == vision
    assert shape.text.weights + shape.text_projection == _matrices(parts.text) + (
        _matrices(parts.head) if shape.dual and parts.head is not None else 0
    )
    if not shape.dual:
        assert shape.head_weights == parts.head.weight.numel()


def _without_defaults(file: dict[str, Any], kind: Any) -> dict[str, Any]:
    """What a published file would hold: nothing that equals the class's own."""
    plain = json.loads(kind().to_json_string(use_diff=False))

    def slim(given: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
        out = {}
        for name, value in given.items():
            if isinstance(value, dict) and isinstance(usual.get(name), dict):
                out[name] = slim(value, usual[name])
            elif name == "model_type" or name not in usual or value != usual[name]:
                out[name] = value
        return out

    slimmed = slim(file, plain)
    same = file["text_config"].get("model_type") == plain["text_config"].get("model_type")
    return slimmed if same else slimmed | {"text_config": file["text_config"]}


def _matrices(module: Any) -> int:
    import torch

    total = 0
    for one in module.modules():
        if isinstance(one, (torch.nn.Linear, torch.nn.Conv2d)):
            total += one.weight.numel()
        elif isinstance(one, torch.nn.Conv3d):  # two equal frames of a still picture are one
            total += one.weight.numel() // one.weight.shape[2]
        elif isinstance(one, torch.nn.MultiheadAttention):
            total += one.in_proj_weight.numel()
        elif type(one).__name__ == "Gemma3MultiModalProjector":
            total += one.mm_input_projection_weight.numel()
    return total


def test_a_bound_is_the_slower_of_arithmetic_and_memory() -> None:
    assert bound(Work({"int8": 2e9}, 0.0, 1e9, 0.0), SLOW) == (2.0, "compute")
    assert bound(Work({"int8": 2e9}, 0.0, 2.5e9, 0.5e9), SLOW) == (3.0, "memory")
    assert bound(Work({"int8": 2e9}, 0.0, 3e9, 0.0), replace(SLOW, cache_mb=4000.0)) == (2.0, "compute")
    # Attention is not done in int8.
    fast = replace(SLOW, kind="gpu", int8_tops=1.0, fp16_tflops=0.5)
    assert bound(Work({"int8": 1e12}, 1e12, 0.0, 0.0), fast) == (3.0, "compute")


def test_bounds_and_needs_grow_with_the_load_and_shrink_with_the_device(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tiny", TINY)
    small = plan_of(folder, SLOW, Load(length=64))
    times = {stage.name: stage.ms for stage in small.stages}
    assert list(times) == ["vision, one picture", "prefill of a GPS prompt", "decoding, one token", "embed a text",
                           "embed a picture", "GPS answer, 10 tokens"]  # fmt: skip
    parts = times["vision, one picture"] + times["prefill of a GPS prompt"] + 9 * times["decoding, one token"]
    assert times["GPS answer, 10 tokens"] > parts
    for other in (
        plan_of(folder, SLOW, Load(batch=3, length=64)),
        plan_of(folder, SLOW, Load(length=64), image_size=16, max_tiles=4),
        plan_of(folder, replace(SLOW, bandwidth_gbs=0.5, int8_tops=5e-4, fp32_tflops=5e-4), Load(length=64)),
    ):
        assert all(more.ms >= less.ms for more, less in zip(other.stages, small.stages, strict=True))
        assert sum(s.ms for s in other.stages) > sum(s.ms for s in small.stages)
    assert plan_of(folder, SLOW, Load(batch=3, length=64)).need.kv == 3 * small.need.kv
    assert small.need.kv == 24 * 64 * 4 / 2**20
    smaller = planned(folder, replace(preset("int8"), kv="int8"))
    assert make_plan(smaller, SLOW, Load(length=64)).need.kv == small.need.kv / 4
    assert plan_of(folder, SLOW, Load(length=64), precision="fp32").need.weights > small.need.weights
    assert small.need.total < plan_of(folder, replace(SLOW, overhead_mb=999.0), Load(length=64)).need.total
    assert small.need.fits
    assert not plan_of(folder, replace(SLOW, memory_mb=50.0), Load(length=64)).need.fits


def test_faster_precisions_on_a_gpu_and_the_memory_to_build_an_engine(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tiny", TINY)
    gpu = load_device("orin-nano-8gb")
    needs = {p: plan_of(folder, gpu, precision=p).need for p in ("fp32", "fp16", "int8")}
    assert needs["fp32"].build > needs["fp16"].build > needs["int8"].build > 0
    once = plan_of(folder, SLOW).need.kv  # in fp32; an engine's cache is fp16, and there twice
    assert [one.kv for one in needs.values()] == [once] * 3
    rates = [gpu.peak(name) for name in ("fp32", "fp16", "int4", "int8")]
    assert rates == sorted(rates)
    assert gpu.peak("int4") == gpu.peak("fp16")


def test_a_length_must_hold_the_longest_job(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tiny", TINY)
    for length in (20, 65):
        with pytest.raises(InputError, match=r"--length .*43 positions.* up to 64"):
            plan_of(folder, SLOW, Load(length=length))


def test_native_resolution_and_dual_encoders(tmp_path: Path) -> None:
    qwen = {"model_type": "qwen2_5_vl", "vision_config": {"depth": 4, "hidden_size": 32, "intermediate_size": 48,
            "num_heads": 2, "fullatt_block_indexes": [3], "out_hidden_size": 64}, "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": 128}  # fmt: skip
    subject = planned(checkpoint(tmp_path / "qwen", qwen), replace(preset("int8"), image=TokenBudget(max_pixels=78400)))
    assert (subject.picture, subject.shape.tower.positions(subject.pixels)) == (100, 400)
    seen = vision_work(subject.shape, INT8, 1, subject.pixels)
    assert seen.attention_flops == 4 * 32 * (400 * 400 + 3 * 400 * 64)  # windows of 8 x 8 patches
    clip = planned(checkpoint(tmp_path / "clip", {"model_type": "clip"}), preset("int8"))
    made = make_plan(clip, SLOW, Load())
    assert (clip.roles, made.need.kv) == (("embed",), 0.0)
    assert [stage.name for stage in made.stages] == ["vision, one picture", "embed a text", "embed a picture"]


def test_refusals(tmp_path: Path, tiny_bundle: Path) -> None:
    for config, words in (
        ({"model_type": "gpt2"}, "type 'gpt2'"),
        (TINY | {"text_config": {"model_type": "mamba"}}, "type 'mamba'"),
        (TINY | {"vision_config": {"num_attention_heads": 0}}, "no model that can be planned"),
        (TINY | {"vision_config": {"hidden_size": "wide"}}, "no model that can be planned"),
    ):
        with pytest.raises(CheckpointError, match=words):
            read_shape(config)
    with pytest.raises(CheckpointError, match="neither"):
        find_subject(tmp_path, preset("int8"))
    bundle = open_bundle(tiny_bundle)
    files = {name: entry for name, entry in bundle.manifest.files.items() if name != "config.json"}
    with pytest.raises(BundleError, match=r"holds no config\.json"):
        subject_of(replace(bundle, manifest=replace(bundle.manifest, files=files)))
    with pytest.raises(InputError, match="leave those flags out"):
        find_subject(tiny_bundle, preset("int4"), explicit=True)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="no configuration"):
        find_subject(tmp_path, preset("int8"))


def test_profiles_are_sound_and_sourced() -> None:
    assert set(profiles()) == {"orin-nano-8gb", "agx-orin-64gb", "thor"}
    for name in profiles():
        device = load_device(name)
        numbers = {key for key, value in vars(device).items() if isinstance(value, float)}
        assert numbers == set(device.source)
        assert device.int8_tops > device.fp16_tflops > device.fp32_tflops
    nano, agx, thor = (load_device(name) for name in ("orin-nano-8gb", "agx-orin-64gb", "thor"))
    assert nano.bandwidth_gbs < agx.bandwidth_gbs < thor.bandwidth_gbs


def test_profiles_with_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="known are this, agx-orin-64gb, orin-nano-8gb, thor"):
        load_device("toaster")
    with pytest.raises(InputError, match="can't be read"):
        load_device(str(tmp_path / "none.toml"))
    text = profiles()["thor"].read_text()
    for old, new, fault in (("273.0", "0.0", "greater than 0"), ('"gpu"', '"tpu"', "cpu or gpu"), ("= 273", "273", "")):
        (tmp_path / "bad.toml").write_text(text.replace(old, new, 1))
        with pytest.raises(InputError, match=rf"bad\.toml.*{fault}"):
            load_device(str(tmp_path / "bad.toml"))


@pytest.mark.parametrize(("operator", "kind"), [("MatMul", np.float32), ("MatMulInteger", np.int8)])
def test_the_product_that_is_timed_is_right(operator: str, kind: Any) -> None:
    ort = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    weight = rng.integers(-100, 100, (24, 40)).astype(kind)
    x = rng.integers(0, 100, (24, 24)).astype(np.float32 if kind == np.float32 else np.uint8)
    session = ort.InferenceSession(_product(operator, 24, weight), providers=["CPUExecutionProvider"])
    expected = x.astype(np.int64) @ weight.astype(np.int64)
    assert np.array_equal(session.run(None, {"x": x})[0], expected)


def test_this_machine_is_measured(tmp_path: Path) -> None:
    device = measure_here(seconds=0.02)
    assert device.kind == "cpu"
    assert all(0 < getattr(device, name) < math.inf for name in ("bandwidth_gbs", "int8_tops", "fp32_tflops"))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 400000 kB\nMemAvailable: 300000 kB\n")
    with pytest.raises(DeviceError, match="293 MB of memory are free"):
        measure_here(root=Root(tmp_path))
    cache = tmp_path / "sys/devices/system/cpu/cpu0/cache"
    for number, size in enumerate(("48K", "2048K", "32M")):
        (cache / f"index{number}").mkdir(parents=True)
        (cache / f"index{number}" / "size").write_text(f"{size}\n")
    assert cache_mb(Root(tmp_path)) == 32.0


def test_bounds_are_below_what_was_measured_at_real_size(tmp_path: Path) -> None:
    """SmolVLM-256M's size on 2 cores that read 20 GB/s and multiply 0.25 TFLOP/s in fp32, 0.8 TOP/s in int8.

    Measured there, the fastest of five runtimes each: a text of 32 tokens 36 ms, the tower 556 ms, decoding 11.3 ms.
    """
    config = {
        "model_type": "smolvlm", "scale_factor": 4,
        "vision_config": {"hidden_size": 768, "num_attention_heads": 12, "patch_size": 16, "image_size": 512},
        "text_config": {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49280,
                        "max_position_embeddings": 8192},
    }  # fmt: skip
    cores = Device("2 cores", "cpu", 20.0, 0.8, 0.25, 0.25, 32.0, 24000.0, 70.0, {})
    made = plan_of(checkpoint(tmp_path / "smolvlm", config), cores, Load(length=512, text_tokens=31))
    least = {stage.name: stage.ms for stage in made.stages}
    assert least["embed a text"] == pytest.approx(8.5, rel=0.02)
    assert least["decoding, one token"] == pytest.approx(6.7, rel=0.05)  # and the keys and values of the prompt
    assert 270 < least["vision, one picture"] < 430
    assert least["embed a text"] < 36
    assert least["decoding, one token"] < 11.3
    assert least["vision, one picture"] < 556
