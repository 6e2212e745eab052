"""For tests of nodes without Erlang: coroutine tests with a time limit, pairs of nodes."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import inspect
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvloop

from fault.peer import close_sockets
from router import Node, _core
from router.cli.common import free_port

TEST_SECONDS_MAX = 60.0
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
_numbers = itertools.count(1)

Pair = Callable[..., AbstractAsyncContextManager[tuple[Node, Node]]]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs `async def test_...` on a loop of its own (the `loop_kind` fixture's, if it asks)."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {n: pyfuncitem.funcargs[n] for n in pyfuncitem._fixtureinfo.argnames}

    async def bounded() -> None:
        async with asyncio.timeout(TEST_SECONDS_MAX):
            await pyfuncitem.obj(**arguments)

    kind = pyfuncitem.funcargs.get("loop_kind", "asyncio")
    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(bounded())
    return True


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """For what nobody announces: looks again and again until it is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)  # between two looks; the loop ends by what it sees


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """A test that blocks its thread shows where, and ends the run."""
    faulthandler.dump_traceback_later(TEST_SECONDS_MAX * 2, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _no_socket_left() -> Iterator[None]:
    yield
    close_sockets()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_kind(request: pytest.FixtureRequest) -> str:
    return request.param


URING = _core.poller_missing(_core.POLLERS["io_uring"]) is None


@pytest.fixture(params=["auto", "thread", "threads", *["io_uring"] * URING, "inline"])
def engine(request: pytest.FixtureRequest) -> str:
    """Who drives: see run_by."""
    return request.param


def run_by(engine: str) -> dict[str, Any]:
    """The arguments of a node that is driven so: "threads" are several, "io_uring" too."""
    if engine == "threads":
        return {"engine": "thread", "threads": 3}
    if engine == "io_uring":
        return {"engine": "thread", "threads": 2, "poller": "io_uring"}
    return {"engine": engine}


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def new_name(part: str = "n") -> str:
    return f"{part}{next(_numbers)}@127.0.0.1"


@pytest.fixture
def options() -> dict[str, Any]:
    """A cookie and a port mapper's port of this test alone."""
    return {"cookie": "secret", "epmd_port": free_port()}


@pytest.fixture
def bare() -> dict[str, Any]:
    """Options of nodes that know each other by address alone."""
    return {"cookie": "secret", "epmd": "none"}


@pytest.fixture
def pair(options: dict[str, Any]) -> Pair:
    """`async with pair(**options) as (a, b)`: two running nodes."""

    @asynccontextmanager
    async def make(**more: Any) -> AsyncIterator[tuple[Node, Node]]:
        merged = {**options, **more}
        async with Node(new_name("a"), **merged) as a, Node(new_name("b"), **merged) as b:
            yield a, b

    return make
