"""Tests how CUDA graphs are made: which functions of torch are called, in which order. A fake replaces torch.cuda."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stand_in import stand_in

from common import graphs
from common.errors import InputError
from common.graphs import BURST, Pace, capture_for, cuda_graph, eagerly, own_stream, torch_graph
from common.loader import DeviceImages
from common.runs import Inputs
from common.training import choose_device

FORBIDDEN = "CUDA error: operation not permitted when stream is capturing"
BROKEN = "CUDA error: operation failed due to a previous error during capture"
DEFAULT = SimpleNamespace(cuda_stream=0)


class FakeCuda:
    """Lists the calls in `calls`. If a capture has been `spoilt`, ending it or the allocator's recording fails."""

    def __init__(self, unwinds: bool) -> None:
        self.calls: list[str] = []
        self.unwinds = unwinds
        """Whether ending a spoilt capture frees the allocator, as in torch 2.12 and later."""
        self.recording: set[int] = set()
        self.pools = 0
        self.spoilt = False
        self.current = SimpleNamespace(cuda_stream=7)

    def handle(self) -> int:
        self.pools += 1
        return self.pools

    def end_recording(self, device: int, pool: int) -> None:
        if pool not in self.recording:
            raise RuntimeError("not currently recording to mempool_id")
        self.calls.append(f"allocator {pool}")
        self.recording.remove(pool)

    @contextmanager
    def stream(self, stream: SimpleNamespace):
        before, self.current = self.current, stream
        yield
        self.current = before


@pytest.fixture(params=[False, True], ids=["2.11", "2.12"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda(request.param)

    class Graph:
        pool: int | None = None

        def capture_begin(self, pool: int, capture_error_mode: str) -> None:
            assert capture_error_mode == "thread_local" and not fake.recording and graphs.CAPTURING.locked()
            assert fake.current is not DEFAULT
            fake.calls.append(f"begin {pool}")
            self.pool = pool
            fake.recording.add(pool)

        def capture_end(self) -> None:
            if self.pool is None:
                raise RuntimeError("not capturing")
            pool, self.pool = self.pool, None
            failed, fake.spoilt = fake.spoilt, False
            if not failed or fake.unwinds:
                fake.recording.remove(pool)
            fake.calls.append("broken" if failed else "end")
            if failed:
                raise RuntimeError(BROKEN)

        def replay(self) -> None:
            fake.calls.append("replay")

        def reset(self) -> None:
            fake.calls.append("reset")

    def release(device: int, pool: int) -> None:
        fake.calls.append(f"release {pool}")

    for name, value in {
        "CUDAGraph": Graph,
        "graph_pool_handle": fake.handle,
        "stream": fake.stream,
        "current_stream": lambda: fake.current,
        "default_stream": lambda: DEFAULT,
        "current_device": lambda: 0,
        "synchronize": lambda: pytest.fail("waits for the whole device"),
        "empty_cache": lambda: pytest.fail("gives the allocator's cache away"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", fake.end_recording)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", release)
    monkeypatch.setattr(graphs, "_little", lambda: fake.calls.append("anchor"))
    monkeypatch.setattr(graphs, "_thread", graphs._ThreadState())
    monkeypatch.setattr(gc, "collect", lambda *generation: pytest.fail("collects garbage"))
    return fake


def failing(cuda: FakeCuda, times: int, message: str) -> Callable[[], None]:
    """Return a body that fails `times` times."""
    left = [times]

    def body() -> None:
        cuda.calls.append("body")
        if left[0]:
            left[0] -= 1
            cuda.spoilt = True
            raise RuntimeError(message)

    return body


def test_a_thread_shares_one_pool_that_an_anchor_keeps(cuda: FakeCuda) -> None:
    collecting: list[bool] = []
    again = cuda_graph(lambda: collecting.append(gc.isenabled()))
    assert cuda.calls == ["begin 1", "anchor", "end", "begin 1", "end"]
    again()
    cuda_graph(lambda: cuda.calls.append("body"))
    assert cuda.calls[5:] == ["replay", "begin 1", "body", "end"]
    assert collecting == [False] and gc.isenabled() and not graphs.CAPTURING.locked()


def test_each_thread_and_each_stream_has_its_own_pool(cuda: FakeCuda) -> None:
    cuda_graph(lambda: None)
    thread = threading.Thread(target=cuda_graph, args=(lambda: None,))
    thread.start()
    thread.join()
    cuda.current = SimpleNamespace(cuda_stream=8)
    cuda_graph(lambda: None)
    assert [call for call in cuda.calls if "begin" in call] == [f"begin {n}" for n in (1, 1, 2, 2, 3, 3)]


def test_the_default_stream_is_left_for_a_capture(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda priority: SimpleNamespace(cuda_stream=9))
    cuda.current = DEFAULT
    cuda_graph(lambda: None)
    assert cuda.current is DEFAULT and list(graphs._thread.pools) == [9]


def test_a_step_that_forbids_its_capture_is_unwound_and_not_tried_again(cuda: FakeCuda) -> None:
    with pytest.raises(RuntimeError, match="not permitted"):
        cuda_graph(failing(cuda, 1, FORBIDDEN))
    by_hand = [] if cuda.unwinds else ["allocator 1", "release 1"]
    assert cuda.calls[3:] == ["begin 1", "body", "broken", *by_hand, "reset"]
    assert not cuda.recording and gc.isenabled() and not graphs.CAPTURING.locked()
    cuda.calls.clear()
    cuda_graph(lambda: None)
    assert cuda.calls == ["begin 2", "anchor", "end", "begin 2", "end"]  # what was left in the old pool is lost


@pytest.mark.parametrize("times", [1, 3, 4])
def test_a_capture_broken_from_outside_is_made_again_three_times(cuda: FakeCuda, times: int) -> None:
    body = failing(cuda, times, BROKEN)
    if times <= 3:
        cuda_graph(body)()
        assert cuda.calls[-1] == "replay"
    else:
        with pytest.raises(RuntimeError, match="previous error"):
            cuda_graph(body)
    assert cuda.calls.count("body") == min(times + 1, 4) and not cuda.recording


def test_a_capture_that_breaks_as_it_ends_is_made_again(cuda: FakeCuda) -> None:
    bodies: list[int] = []

    def body() -> None:
        cuda.spoilt = not bodies  # seen by no call inside
        bodies.append(1)

    cuda_graph(body)
    assert len(bodies) == 2 and not cuda.recording


def test_an_error_of_python_leaves_no_graph(cuda: FakeCuda) -> None:
    with pytest.raises(KeyError):
        cuda_graph(lambda: {}["nothing"])
    assert cuda.calls[-2:] == ["end", "reset"] and not cuda.recording


def test_streams_are_kept_a_thread_and_a_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda priority: SimpleNamespace(priority=priority))
    monkeypatch.setattr(graphs, "_thread", graphs._ThreadState())
    found = [own_stream(), own_stream(), own_stream(high=True)]
    assert found[0] is found[1] is not found[2] and [s.priority for s in found] == [0, 0, -1]
    thread = threading.Thread(target=lambda: found.append(own_stream()))
    thread.start()
    thread.join()
    assert found[3] is not found[0]


def test_how_steps_are_captured_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((4, 32, 32, 3), np.uint8)
    host = DeviceImages(pixels, torch.zeros(4), Inputs(), torch.device("cpu"))
    with stand_in():
        images = DeviceImages(pixels, torch.zeros(4), Inputs(), torch.device("cuda:0"))
        for name, made in (("new", graphs.cuda_graph), ("torch", torch_graph), ("off", None), ("", graphs.cuda_graph)):
            monkeypatch.setenv("REPRO_CAPTURE", name)
            assert capture_for(images) is made and capture_for(host) is None
        with eagerly():
            assert capture_for(images) is None
            others: list[object] = []
            thread = threading.Thread(target=lambda: others.append(capture_for(images)))
            thread.start()
            thread.join()
            assert others == [graphs.cuda_graph]
        assert capture_for(images) is graphs.cuda_graph
    monkeypatch.setenv("REPRO_CAPTURE", "sometimes")
    with pytest.raises(InputError, match="REPRO_CAPTURE=sometimes: choose one of new, torch, off"):
        choose_device("cpu")


def test_launches_run_at_most_three_bursts_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event that is waited for was recorded two bursts before."""
    launched, waited = [0], []

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking
            self.at: int | None = None

        def record(self) -> None:
            self.at = launched[0]

        def synchronize(self) -> None:
            waited.append((launched[0], self.at))

    monkeypatch.setattr(torch.cuda, "Event", Event)
    pace = Pace(torch.device("cuda"))
    for launched[0] in range(1, 5 * BURST + 1):
        pace()
    assert waited == [(n * BURST, (n - 2) * BURST if n > 2 else None) for n in range(1, 6)]
    assert not Pace(torch.device("cpu")).events


def test_cuda_gets_as_many_queues_as_streams() -> None:
    assert int(os.environ["CUDA_DEVICE_MAX_CONNECTIONS"]) > 8
