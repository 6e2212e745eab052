"""What the tests of running nodes have in common; the other half is erl/talk.erl."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from interop.erlang import Epmd, ErlangNode
from router import Atom, Mailbox, Node, etf

PATIENCE = 20.0


def quoted(name: str) -> str:
    """An atom in Erlang's notation."""
    return f"'{name}'"


def port_of(erl: ErlangNode) -> int:
    """Where a real node listens."""
    short = erl.name.partition("@")[0]
    found = erl.text(f'{{port, P, _}} = erl_epmd:port_please("{short}", {{127,0,0,1}}), P')
    return int(found)


def names(port: int) -> dict[str, int]:
    """What a port mapper answers to NAMES_REQ: names and ports. {} when there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as epmd:
            epmd.sendall(b"\x00\x01n")
            said = b"".join(iter(lambda: epmd.recv(4096), b""))[4:].decode()
    except ConnectionError:
        return {}
    lines = [line.split() for line in said.splitlines()]
    return {words[1]: int(words[4]) for words in lines}


async def eventually(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """For what nobody announces: looks again and again until it is so."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.01)


@contextmanager
def registered(epmd: Epmd, name: str, port: int) -> Iterator[None]:
    """Has the port mapper send those who look for a name to another port."""
    body = struct.pack(">BHBBHHH", 120, port, 77, 0, 6, 6, len(name)) + name.encode()
    body += b"\x00\x00"
    with socket.create_connection(("127.0.0.1", epmd.port), timeout=PATIENCE) as connection:
        connection.sendall(struct.pack(">H", len(body)) + body)
        assert connection.recv(2) in (b"\x76\x00", b"\x79\x00")
        yield


async def answer(submitted: Future[bytes]) -> Any:
    """What an evaluation that was begun with `submit` came to."""
    return etf.decode(await asyncio.wrap_future(submitted))


async def down(box: Mailbox, name: str) -> None:
    """Waits in a box that monitors nodes until `name` is down."""
    while await box.receive(PATIENCE) != ("nodedown", name):
        pass


async def watch(erl: ErlangNode, name: str) -> Callable[[], Awaitable[None]]:
    """`erl` watches its connection to `name` from here on; what this gives waits for its end."""
    pid = await erl.aeval("talk:watch(Node, 20000)", Node=Atom(name))

    async def gone() -> None:
        assert await erl.aeval("talk:watched(Pid)", Pid=pid) == "ok"

    return gone


@asynccontextmanager
async def separated(node: Node, erl: ErlangNode) -> AsyncIterator[None]:
    """What is done inside ends the connection; afterwards both sides know of it."""
    assert erl.name in node.nodes()
    with node.mailbox() as box:
        node.monitor_nodes(box)
        gone = await watch(erl, node.name)
        yield
        await down(box, erl.name)
        await gone()


async def both_ways(node: Node, erl: ErlangNode) -> None:
    """A message each way, by pid."""
    with node.mailbox() as box:
        asked = erl.submit(
            "Box ! {self(), hello},"
            ' receive Answer -> Answer =:= <<"hello back">> after 20000 -> nothing end',
            Box=box.pid,
        )
        pid, hello = await box.receive(PATIENCE)
        assert hello == "hello"
        node.send(pid, b"hello back")
        assert await answer(asked) is True


async def flags(erl: ErlangNode, node: Node) -> Any:
    """Whether the real node counts this one as `hidden`, `visible` or not connected (None)."""
    if erl.name in node.nodes():
        # Who connects is through before the real node has noted it; a ping comes after that.
        assert await node.ping(erl.name)
    return await erl.aeval(
        "case {lists:member(N, nodes()), lists:member(N, nodes(hidden))} of"
        " {true, false} -> visible; {false, true} -> hidden; {false, false} -> nil end",
        N=Atom(node.name),
    )


def blob(seed: int, size: int) -> bytes:
    """Bytes that tell which blob they are and where each stands; talk.erl makes the same."""
    unit = b"".join(struct.pack(">I", seed + i * 7919 & 0xFFFFFFFF) for i in range(1, 252))
    return (unit * (size // len(unit) + 1))[:size]


def echo(node: Node, name: str) -> Mailbox:
    """A process that answers {Pid, I, Term} with {I, Term}."""
    box = node.mailbox(name)

    def answer_all(terms: list[Any]) -> None:
        for pid, number, term in terms:
            node.send(pid, (number, term))

    box.on_messages(answer_all)
    return box
