"""Engines on a simulated GPU against onnxruntime: sessions, batches beyond the engine's, the KV cache on the device."""

import ctypes
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from engine_simulator import simulated_tensorrt
from tiny_decoders import HIDDEN, Runner, make_decoder

from edgegeo.bundle import TrunkSpec
from edgegeo.errors import DeviceError, EngineError, InputError
from edgegeo.export.graph import Graph
from edgegeo.export.linear import Storage
from edgegeo.export.trunk import build_trunk
from edgegeo.runtime.engines import driver as driver_module
from edgegeo.runtime.engines.building import Settings, build_plan
from edgegeo.runtime.engines.cache import EngineCache
from edgegeo.runtime.engines.driver import Driver, find_driver
from edgegeo.runtime.engines.library import Library, find_library
from edgegeo.runtime.engines.session import EngineSession
from edgegeo.runtime.engines.shapes import Profile, Span
from edgegeo.runtime.trunk import Head, Trunk, TrunkInput, continuation

PROMPT, ROOM = 6, 24
pytestmark = pytest.mark.usefixtures("simulated_gpu")


def trunk_profiles(rows: int = 3) -> tuple[Profile, ...]:
    step = {"batch": Span(1, 1, rows), "sequence": Span(1, 1, 1), "asked": Span(1, 1, 1),
            "past": Span(0, 4, ROOM), "total": Span(1, 5, ROOM + 1)}  # fmt: skip
    prompt = {"batch": Span(1, 1, 2), "sequence": Span(1, 8, ROOM), "asked": Span(1, 1, ROOM),
              "past": Span(0, 0, ROOM), "total": Span(1, 8, 2 * ROOM)}  # fmt: skip
    return step, prompt


def opened(graph: Graph, folder: Path, profiles: tuple[Profile, ...]) -> EngineSession:
    graph.save(folder / "one.onnx")
    library = find_library()
    built = build_plan(library, folder / "one.onnx", profiles, Settings())
    return EngineSession(library, find_driver(), built.plan, built.dims, profiles)


@pytest.fixture(params=["llama", "qwen2_5_vl", "gemma3"])
def trunks(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Trunk]:
    """The same decoder in fp16 on onnxruntime and on the simulated GPU."""
    graph = build_trunk(make_decoder(request.param), Storage("fp16"), "trt")
    runner = Runner(graph)
    spec = TrunkSpec(
        len(runner.keys) // 2, runner.kv_heads, runner.head_dim, HIDDEN, 96, 160,
        rope="mrope" if "position_ids" in runner.names else "plain", blocks="image_blocks" in runner.names,
    )  # fmt: skip
    engine = opened(graph, tmp_path, trunk_profiles())
    return {"ort": Trunk(runner.session, spec, "trt"), "engine": Trunk(engine, spec, "trt")}


def embeds(count: int, seed: int = 0, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, count, HIDDEN)).astype(np.float32)


def picture(trunk: Trunk) -> TrunkInput:
    fed = continuation(embeds(PROMPT), trunk.spec)
    if fed.rope is not None:
        rope = np.array([[[0, 1, 1, 1, 1, 3]], [[0, 1, 1, 2, 2, 3]], [[0, 1, 2, 1, 2, 3]]])
        return TrunkInput(fed.embeds, fed.lengths, rope, np.array([4]))
    blocks = np.array([[0, 1, 1, 1, 1, 0]]) if fed.blocks is not None else None
    return TrunkInput(fed.embeds, fed.lengths, None, None, blocks)


def story(trunk: Trunk) -> np.ndarray:
    """Everything that the runtime does with a cache, one after the other: the hidden states it gave."""
    cache, said = trunk.cache(1, ROOM), []
    said.append(cache.extend(picture(trunk), np.array([[PROMPT - 1]])))
    mark = cache.mark()
    said.append(cache.append(embeds(4, 1), 4))
    cache.rewind(cache.mark().before(2))
    said.append(cache.append(embeds(3, 2)))
    cache.rewind(mark)
    cache.step_embeds[:] = embeds(1, 3)
    said.append(cache.step().copy())
    wide = cache.expand(3)
    for seed in (4, 5):
        wide.step_embeds[:] = embeds(1, seed, 3)
        said.append(wide.step().reshape(1, 3, -1).copy())
    wide.reorder(np.array([2, 2, 0]), PROMPT)
    wide.step_embeds[:] = embeds(1, 6, 3)
    said.append(wide.step().reshape(1, 3, -1).copy())
    cache.step_embeds[:] = embeds(1, 7)
    said.append(cache.step().copy())
    return np.concatenate(said, axis=1)


def test_the_cache_on_the_device_equals_the_one_on_the_host(trunks: dict[str, Trunk]) -> None:
    assert isinstance(trunks["engine"].cache(1, ROOM), EngineCache)
    assert trunks["engine"].kv_dtype == np.float16
    np.testing.assert_array_equal(story(trunks["engine"]), story(trunks["ort"]))


def test_embedding_without_a_cache_splits_batches(trunks: dict[str, Trunk]) -> None:
    """Five rows where the engine takes two at once: M-RoPE has its rows on the second axis."""
    rows = embeds(7, 3, 5)
    fed = {name: TrunkInput(rows, np.array([7, 6, 5, 4, 3])) for name in trunks}
    for name, trunk in trunks.items():
        spec = trunk.spec
        rope = np.tile(np.arange(7), (3, 5, 1)) if spec.rope == "mrope" else None
        blocks = np.zeros((5, 7), np.int64) if spec.blocks else None
        fed[name] = TrunkInput(rows, np.array([7, 6, 5, 4, 3]), rope, None, blocks)
    positions = np.array([[6], [5], [4], [3], [2]])
    got = {name: trunk.hidden(fed[name], positions) for name, trunk in trunks.items()}
    np.testing.assert_allclose(got["engine"], got["ort"], atol=2e-3)


def test_memory_is_given_back(simulated_gpu: Path, tmp_path: Path) -> None:
    graph = build_trunk(make_decoder("llama"), Storage("fp16"), "trt")
    runner = Runner(graph)
    spec = TrunkSpec(len(runner.keys) // 2, runner.kv_heads, runner.head_dim, HIDDEN, 96, 160)
    live = ctypes.CDLL(str(simulated_gpu)).sim_live
    gc.collect()
    before = live()
    session = opened(graph, tmp_path, trunk_profiles())
    story(Trunk(session, spec, "trt"))
    assert live() > before
    del session
    gc.collect()
    assert live() == before


@pytest.fixture
def head(tmp_path: Path) -> EngineSession:
    import torch

    from edgegeo.export.head import build_head

    torch.manual_seed(1)
    graph = build_head(torch.nn.Linear(HIDDEN, 20, bias=False), Storage("fp32"), "trt")
    return opened(graph, tmp_path, ({"batch": Span(1, 1, 4), "asked": Span(1, 1, 2)},))


def test_a_session_looks_like_one_of_onnxruntime(head: EngineSession) -> None:
    (one,), (out,) = head.get_inputs(), head.get_outputs()
    assert (one.name, one.type, one.shape) == ("hidden_states", "tensor(float)", ("batch", "asked", HIDDEN))
    assert (out.name, out.type, out.shape) == ("logits", "tensor(float)", (None, None, 20))
    assert head.get_providers() == ["TensorRT"]
    states = embeds(1, 2, 11)
    (logits,) = head.run(None, {"hidden_states": states})
    assert logits.shape == (11, 1, 20)  # in three runs
    bound = Head(head, 3, HIDDEN, 20)
    np.testing.assert_array_equal(bound.run(states[:3]), logits[:3, 0])
    np.testing.assert_array_equal(bound.run(states[3:6]), logits[3:6, 0])


def test_bad_calls(head: EngineSession) -> None:
    with pytest.raises(InputError, match=r"not compiled for asked 9 \(it takes 1 to 2\).*larger --batch or --length"):
        head.run(None, {"hidden_states": embeds(9)})
    with pytest.raises(InputError, match="the input hidden_states, which has no value"):
        head.run(None, {})
    with pytest.raises(InputError, match="no output nothing"):
        head.run(["nothing"], {"hidden_states": embeds(1)})
    with pytest.raises(InputError, match="must be float32, not float64"):
        head.run(None, {"hidden_states": embeds(1).astype(np.float64)})
    with pytest.raises(InputError, match=r"shape \(1, 1, 5\), where 64 is 64"):
        head.run(None, {"hidden_states": np.zeros((1, 1, 5), np.float32)})
    with pytest.raises(InputError, match="has 2 axes, the engine takes 3"):
        head.run(None, {"hidden_states": np.zeros((1, HIDDEN), np.float32)})


def test_a_cache_that_is_full(trunks: dict[str, Trunk]) -> None:
    cache = trunks["engine"].cache(1, 4)
    with pytest.raises(InputError, match="room for 4 positions, not 5"):
        cache.append(embeds(5))


def test_a_graph_that_is_refused_names_the_node(tmp_path: Path) -> None:
    graph = build_trunk(make_decoder("llama"), Storage())
    graph.save(tmp_path / "ort.onnx")
    with pytest.raises(EngineError, match=r"TensorRT 10\.3\.0\.30 refuses ort\.onnx \(node layers\.0\.\S+ \(\w+\)"):
        build_plan(find_library(), tmp_path / "ort.onnx", (), Settings())


def test_plans_that_are_refused(head: EngineSession, tmp_path: Path) -> None:
    library = find_library()
    built = build_plan(library, tmp_path / "one.onnx", (), Settings())
    other = Library("tensorrt", "10.3.1", simulated_tensorrt("10.3.1"), library.logger, library.errors)
    with pytest.raises(EngineError, match=r"refuses the engine \(Version mismatch: 10\.3\.0\.30, expected 10\.3\.1"):
        EngineSession(other, find_driver(), built.plan, built.dims, ())
    with pytest.raises(EngineError, match="not the one its record describes"):
        EngineSession(library, find_driver(), built.plan, {}, ())


def test_settings_reach_the_builder(head: EngineSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import engine_simulator

    made: list[Any] = []
    real = engine_simulator.BuilderConfig

    def watched() -> Any:
        made.append(real())
        return made[-1]

    monkeypatch.setattr(engine_simulator, "BuilderConfig", watched)
    timings = tmp_path / "timings.bin"
    timings.write_bytes(b"of another version")
    profile: Profile = {"batch": Span(1, 2, 4), "asked": Span(1, 1, 2)}
    build_plan(find_library(), tmp_path / "one.onnx", (profile,), Settings(512, 5), timings)
    assert (made[0].workspace, made[0].builder_optimization_level) == (512 * 2**20, 5)
    assert made[0].profiles[0].shapes == {"hidden_states": [[1, 1, 64], [2, 1, 64], [4, 2, 64]]}
    assert timings.read_bytes() == b"measured"
    with pytest.raises(EngineError, match=r"hidden_states has free axes without a range \(asked\)"):
        build_plan(find_library(), tmp_path / "one.onnx", ({"batch": Span(1, 1, 1)},), Settings())


def test_the_driver(simulated_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chip = find_driver().chip()
    assert (chip.name, chip.capability, chip.processors, chip.shared_memory) == ("Simulated Orin", "8.7", 8, True)
    assert str(chip) == "Simulated Orin, sm_87, 8 SMs"
    device = Driver()
    here, there = device.allocate(64), device.allocate(64)
    rows = np.arange(12, dtype=np.int32).reshape(3, 4)
    device.upload(rows, here)
    device.copy_rows(here, there, 3, 8, (16, 8))
    out = np.empty((3, 2), np.int32)
    device.download(there, out)
    device.synchronize()
    np.testing.assert_array_equal(out, rows[:, :2])
    raw = ctypes.CDLL(str(simulated_gpu))
    raw.sim_room(ctypes.c_size_t(1024))
    try:
        with pytest.raises(DeviceError, match=r"'out of memory' \(cuMemAlloc_v2\); stop other programs"):
            device.allocate(4096)
    finally:
        raw.sim_room(ctypes.c_size_t(2**40))
    raw.sim_devices(0)
    try:
        with pytest.raises(DeviceError, match="finds no GPU"):
            Driver()
    finally:
        raw.sim_devices(1)
    monkeypatch.setattr(driver_module, "LIBRARIES", ("libcuda-of-no-machine.so",))
    with pytest.raises(DeviceError, match="no NVIDIA driver on this machine"):
        find_driver()


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    assert find_library().name == "TensorRT 10.3.0.30"
    monkeypatch.setitem(sys.modules, "tensorrt", simulated_tensorrt("8.6.1"))
    with pytest.raises(DeviceError, match=r"TensorRT 8\.6\.1 is too old; install 10\.3 or newer"):
        find_library()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DeviceError, match="TensorRT is not installed; on a Jetson it comes with JetPack"):
        find_library("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(DeviceError, match="TensorRT is not installed"):
        find_library()
    with pytest.raises(DeviceError, match="unknown library 'openvino'"):
        find_library("openvino")
