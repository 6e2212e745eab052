"""For tests of a running node against real ones: coroutine tests and a name for each node."""

from __future__ import annotations

import asyncio
import inspect
import itertools

import pytest

from interop.erlang import Epmd, ErlangNode

TEST_SECONDS_MAX = 60.0
SLOW_SECONDS_MAX = 300.0

_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs `async def test_...` on a loop of its own, for a bounded time."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    slow = pyfuncitem.get_closest_marker("slow") is not None

    async def bounded() -> None:
        async with asyncio.timeout(SLOW_SECONDS_MAX if slow else TEST_SECONDS_MAX):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


@pytest.fixture
def name() -> str:
    """A node name no other test uses."""
    return f"py{next(_numbers)}@127.0.0.1"


@pytest.fixture
def talker(session_peer: ErlangNode, epmd: Epmd) -> ErlangNode:
    """The session's real node with tests/interop/erl/talk.erl loaded."""
    if session_peer.text("erlang:module_loaded(talk)") == "false":
        session_peer.load("talk.erl")
    return session_peer
