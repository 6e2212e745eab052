"""Every form of sending and of receiving alone, on a node that talks to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import router
from bench.local import BATCH, EVENT, SIZE
from bench.peers.control import payload

TERMS = [(EVENT, i, payload(SIZE)) for i in range(BATCH)]


class Node:
    """A node on a loop that only runs while something is measured."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.node = router.Node("bench_forms@127.0.0.1", cookie="b", listen=False, epmd="none")
        self.runner.run(self.node.start())
        self.box = self.node.mailbox()

    def close(self) -> None:
        self.runner.run(self.node.stop())
        self.runner.close()

    def fill(self) -> None:
        self.node.send_many(self.box.pid, TERMS)

    def empty(self) -> None:
        while self.box.waiting:
            self.box.get_many()


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.close()


def send_singly(node: Node) -> None:
    for term in TERMS:
        node.node.send(node.box.pid, term)


def send_many(node: Node) -> None:
    node.fill()


@pytest.mark.parametrize("send", [send_singly, send_many])
def test_send(benchmark: Any, node: Node, send: Any) -> None:
    benchmark.group = f"send {BATCH}"
    benchmark.pedantic(
        send, args=(node,), setup=node.empty, rounds=200, warmup_rounds=10, iterations=1
    )
    assert node.box.get_many(BATCH) == TERMS


async def by_receive(box: router.Mailbox) -> list[Any]:
    return [await box.receive() for _ in range(BATCH)]


async def by_receive_many(box: router.Mailbox) -> list[Any]:
    return await box.receive_many(BATCH)


async def by_iteration(box: router.Mailbox) -> list[Any]:
    terms = []
    async for term in box:
        terms.append(term)
        if len(terms) == BATCH:
            break
    return terms


async def by_callback(box: router.Mailbox) -> list[Any]:
    done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    box.on_messages(done.set_result)
    terms = await done
    box.on_messages(None)
    return terms


async def by_get(box: router.Mailbox) -> list[Any]:
    return [box.get() for _ in range(BATCH)]


async def by_get_many(box: router.Mailbox) -> list[Any]:
    return box.get_many(BATCH)


FORMS = [by_receive, by_receive_many, by_iteration, by_callback, by_get, by_get_many]


@pytest.mark.parametrize("form", FORMS)
def test_receive(benchmark: Any, node: Node, form: Any) -> None:
    """Everything is there already: what is measured is taking it."""
    benchmark.group = f"receive {BATCH}"
    found = benchmark.pedantic(
        lambda: node.runner.run(form(node.box)),
        setup=node.fill,
        rounds=200,
        warmup_rounds=10,
        iterations=1,
    )
    assert found == TERMS
