"""What the tests of running nodes have in common; the other half is erl/talk.erl."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from interop.erlang import ErlangNode
from router import Atom, Mailbox, Node, etf

PATIENCE = 20.0


def quoted(name: str) -> str:
    """An atom in Erlang's notation."""
    return f"'{name}'"


async def answer(submitted: Future[bytes]) -> Any:
    """What an evaluation that was begun with `submit` came to."""
    return etf.decode(await asyncio.wrap_future(submitted))


async def down(box: Mailbox, name: str) -> None:
    """Waits in a box that monitors nodes until `name` is down."""
    while await box.receive(PATIENCE) != ("nodedown", name):
        pass


@asynccontextmanager
async def separated(node: Node, erl: ErlangNode) -> AsyncIterator[None]:
    """What is done inside ends the connection; afterwards both sides know of it."""
    assert erl.name in node.nodes()
    with node.mailbox() as box:
        node.monitor_nodes(box)
        gone = erl.submit("talk:gone(Node, 20000)", Node=Atom(node.name))
        # The answer to a second question comes after the first is under way.
        await erl.aeval("erlang:monitor_node(Node, true)", Node=Atom(node.name))
        yield
        await down(box, erl.name)
        assert await answer(gone) == "ok"


async def both_ways(node: Node, erl: ErlangNode) -> None:
    """A message each way, by pid."""
    with node.mailbox() as box:
        asked = erl.submit(
            "Box ! {self(), hello},"
            " receive Answer -> Answer =:= <<\"hello back\">> after 20000 -> nothing end",
            Box=box.pid,
        )
        pid, hello = await box.receive(PATIENCE)
        assert hello == "hello"
        node.send(pid, b"hello back")
        assert await answer(asked) is True


async def flags(erl: ErlangNode, node: Node) -> Any:
    """Whether the real node counts this one as `hidden`, `visible` or not connected (None)."""
    return await erl.aeval(
        "case {lists:member(N, nodes()), lists:member(N, nodes(hidden))} of"
        " {true, false} -> visible; {false, true} -> hidden; {false, false} -> nil end",
        N=Atom(node.name),
    )
