"""Resolvers that are coroutines: whatever becomes of them, an attempt to connect has an end."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from router import Node, NodeDown, _core

from .conftest import new_name

PEER = "peer@127.0.0.1"


class Asked:
    """A resolver that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.cancelled = 0
        self.answers: list[asyncio.Future[tuple[str, int]]] = []

    async def __call__(self, name: str) -> tuple[str, int]:
        self.asked += 1
        self.answers.append(asyncio.get_running_loop().create_future())
        try:
            return await self.answers[-1]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def turns(until: Any) -> None:
    async with asyncio.timeout(5):
        while not until():
            await asyncio.sleep(0)


async def test_disconnecting_ends_it(bare: dict[str, Any]) -> None:
    """The attempt stood until the resolver answered, and connected then."""
    resolver = Asked()
    async with Node(new_name(), resolver=resolver, **bare) as node:
        attempt = asyncio.create_task(node.connect(PEER, 20))
        await turns(lambda: resolver.asked)
        node.disconnect(PEER)
        with pytest.raises(NodeDown, match="disconnected"):
            await attempt
        await turns(lambda: resolver.cancelled)
        assert node.stats()["up"].tolist() == [False] and not node._resolving
        again = asyncio.create_task(node.connect(PEER, 20))  # and there is another
        await turns(lambda: resolver.asked == 2)
        resolver.answers[1].set_result(("127.0.0.1", 1))
        with pytest.raises(NodeDown, match="refused"):
            await again


async def test_one_that_does_not_answer(bare: dict[str, Any]) -> None:
    """There was no limit: what was sent waited as long as the node lived."""
    async with Node(new_name(), resolver=Asked(), limits={"connect_ms": 100}, **bare) as node:
        node.send(("box", PEER), 1)
        with pytest.raises(NodeDown, match="resolver failed: TimeoutError"):
            await node.connect(PEER, 20)
        assert node.stats()["dropped_out"].tolist() == [1]


async def test_stopping_ends_it(bare: dict[str, Any]) -> None:
    resolver = Asked()
    async with Node(new_name(), resolver=resolver, **bare) as node:
        node.send(("box", PEER), 1)
        await turns(lambda: resolver.asked)
    await turns(lambda: resolver.cancelled)


@pytest.mark.parametrize("end", ["stopped", "closed"])
def test_a_loop_that_runs_no_more(bare: dict[str, Any], end: str) -> None:
    """Nobody ever heard of the attempt again; later ones waited for it in vain."""
    resolver = Asked()
    with Node(new_name(), resolver=resolver, **bare) as node:
        loop = asyncio.new_event_loop()

        async def begin() -> None:
            node.send(("box", PEER), 1)
            await turns(lambda: resolver.asked)

        loop.run_until_complete(begin())
        if end == "closed":
            loop.close()
        with pytest.raises(NodeDown, match="running event loop"):
            node.connect_sync(PEER, 20)  # asks anew, and there is no loop for that

        async def other() -> None:
            attempt = asyncio.create_task(node.connect(PEER, 20))
            await turns(lambda: resolver.asked == 2)
            resolver.answers[1].set_result(("127.0.0.1", 1))
            with pytest.raises(NodeDown, match="refused"):
                await attempt

        asyncio.run(other())
        if end == "stopped":
            loop.run_until_complete(turns(lambda: resolver.cancelled))
            loop.close()


def test_a_loop_that_is_closed_leaves_the_attempt_to_the_next(bare: dict[str, Any]) -> None:
    resolver = Asked()
    with Node(new_name(), resolver=resolver, **bare) as node:
        loop = asyncio.new_event_loop()

        async def begin() -> None:
            box = node.mailbox()
            with pytest.raises(TimeoutError):
                await box.receive(0.001)  # the loop is one of the node's
            node.send(("box", PEER), 1)
            await turns(lambda: resolver.asked)

        loop.run_until_complete(begin())
        loop.close()

        async def other() -> None:
            with pytest.raises(TimeoutError):
                await node.mailbox().receive(0.001)
            await turns(lambda: resolver.asked == 2)
            resolver.answers[1].set_exception(LookupError("no such peer"))
            await turns(lambda: node.stats()["dropped_out"][0])

        asyncio.run(other())


def test_an_answer_from_another_thread_after_disconnect(bare: dict[str, Any]) -> None:
    """A plain resolver answers after the attempt was given up: nothing is dialled."""
    asked, let = threading.Event(), threading.Event()

    def resolver(name: str) -> tuple[str, int]:
        asked.set()
        assert let.wait(10)
        return "127.0.0.1", 1

    with Node(new_name(), resolver=resolver, **bare) as node:
        sender = threading.Thread(target=node.send, args=(("box", PEER), 1))
        sender.start()
        assert asked.wait(10)
        node.disconnect(PEER)
        deadline = time.monotonic() + 10
        while not node.stats()["failures"][0]:
            assert time.monotonic() < deadline
            node._drive()
        let.set()
        sender.join()
        node._drive()
        (row,) = node.stats()
        assert (row["failures"], row["dropped_out"]) == (1, 1)


async def test_the_end_of_an_earlier_attempt_is_not_this_ones(
    bare: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told late, it failed whoever waited for the attempt that had begun meanwhile."""
    resolver = Asked()
    async with Node(new_name(), resolver=resolver, **bare) as node:
        attempt = asyncio.create_task(node.connect(PEER, 20))
        await turns(lambda: resolver.asked)
        with monkeypatch.context() as patch:
            late = (_core.EVENT_FAILED, PEER, -1, 0, 0, "an earlier attempt")
            patch.setattr(node, "_take_events", lambda: [late], raising=False)
            node._handle_events()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not attempt.done() and not resolver.cancelled
        resolver.answers[0].set_result(("127.0.0.1", 1))
        with pytest.raises(NodeDown, match="refused"):
            await attempt
