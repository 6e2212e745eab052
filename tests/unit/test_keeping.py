"""Peers that are kept connected."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import pytest

from router import Node, etf, keeping
from router.cli.common import free_port

from .conftest import new_name, until


async def test_it_waits_for_a_peer_and_takes_it_back(
    loop_kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PAUSE_SECONDS_MIN", 0.01)
    port, name = free_port(), new_name("b")
    async with Node(new_name("a"), cookie="c", epmd="none") as a:
        with caplog.at_level(logging.INFO, "router"):
            kept = a.keep(name, host="127.0.0.1", port=port, pause_max=0.05)
            await until(lambda: kept.failures >= 3)
            assert kept.error is not None and name in kept.error
            for _ in range(2):
                async with Node(name, cookie="c", epmd="none", listen=f"127.0.0.1:{port}"):
                    await until(lambda: name in a.nodes())
                    await until(lambda: kept.failures == 0)
                    assert kept.error is None and repr(kept) == f"<Kept {name}: up>"
                await until(lambda: kept.failures)
        said = [r.getMessage() for r in caplog.records if "kept" in r.getMessage()]
        # One line for each reason, not for each attempt.
        assert 1 <= len(said) <= 6, said
        assert any("connected again" in r.getMessage() for r in caplog.records)
        kept.close()
        failures = kept.failures
        async with Node(name, cookie="c", epmd="none", listen=f"127.0.0.1:{port}") as b:
            await asyncio.sleep(0)
            assert name not in a.nodes() and a.name not in b.nodes()
            assert kept.failures == failures and kept.closed
            again = a.keep(name)
            assert again is not kept
            await until(lambda: name in a.nodes())


async def test_a_wrong_cookie_is_said_and_tried_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PAUSE_SECONDS_MIN", 0.001)
    port, name = free_port(), new_name("b")
    async with (
        Node(name, cookie="c", epmd="none", listen=f"127.0.0.1:{port}"),
        Node(new_name("a"), cookie="other", epmd="none") as a,
    ):
        kept = a.keep(name, host="127.0.0.1", port=port)
        await until(lambda: kept.failures >= 4)
        assert kept.error is not None and "cookie" in kept.error
        a.keep(new_name("c"), host="127.0.0.1", port=free_port())
    # The node has stopped, and so has the keeping; stop did not wait for the pauses.
    assert kept.closed


async def test_one_that_comes_of_its_own_accord_ends_the_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "PAUSE_SECONDS_MIN", 3600.0)
    name = new_name("b")
    async with Node(new_name("a"), cookie="c", epmd="none", listen="127.0.0.1") as a:
        kept = a.keep(name, host="127.0.0.1", port=free_port(), pause_max=3600)
        await until(lambda: kept.failures >= 1)
        async with Node(name, cookie="c", epmd="none", listen=False) as b:
            await b.connect(a.name, host="127.0.0.1", port=a.port)
            await until(lambda: kept.failures == 0)


async def test_a_static_list_makes_a_cluster_and_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """All nodes have the same list and begin at different times; one is cut off, one restarts."""
    monkeypatch.setattr(keeping, "PAUSE_SECONDS_MIN", 0.01)
    names = [new_name(f"n{i}") for i in range(4)]
    group = etf.Atom("g")

    async def begin(stack: AsyncExitStack, name: str) -> Node:
        node = await stack.enter_async_context(Node(name, cookie="c", hidden=False))
        kept = node.keep_all([*names, names[0]], pause_max=0.1)
        assert list(kept) == [other for other in names if other != name]
        node.pg().join(group, node.mailbox(f"member_{name.partition('@')[0]}"))
        return node

    def whole(nodes: list[Node]) -> bool:
        """Everybody sees everybody, once."""
        members = {tuple(sorted(node.pg().members(group))) for node in nodes}
        return all(len(node.nodes()) == len(nodes) - 1 for node in nodes) and (
            len(members) == 1 and len(members.pop()) == len(nodes)
        )

    async with AsyncExitStack() as stack:
        nodes = [await begin(stack, name) for name in names[:3]]
        await until(lambda: whole(nodes))
        async with AsyncExitStack() as late:
            await until(lambda: whole(nodes))
            everyone = [*nodes, await begin(late, names[3])]
            await until(lambda: whole(everyone))
            watcher = nodes[0].mailbox()
            nodes[0].monitor_nodes(watcher)
            for name in names[1:]:
                nodes[0].disconnect(name)
            lost = set()
            while len(lost) < 3:
                event, other = await watcher.receive(10.0)
                if event == "nodedown":
                    lost.add(other)
            await until(lambda: whole(everyone))
        await until(lambda: whole(nodes))
        again = await begin(stack, names[3])
        await until(lambda: whole([*nodes, again]))


async def test_a_static_list_with_a_bad_name_keeps_none() -> None:
    async with Node(new_name("a"), cookie="c", epmd="none") as node:
        with pytest.raises(ValueError, match="not 'nameless'"):
            node.keep_all([new_name("b"), "nameless"])
        assert not node._kept
        with pytest.raises(TypeError, match="not one"):
            node.keep_all(new_name("b"))


@pytest.mark.parametrize(("name", "options"), [
    ("nobody", {}), ("b@127.0.0.1", {"pause_max": 0}), ("b@127.0.0.1", {"pause_max": "1"}),
])  # fmt: skip
async def test_bad_arguments(name: str, options: dict[str, object]) -> None:
    async with Node(new_name("a"), cookie="c", epmd="none") as a:
        with pytest.raises(ValueError, match=r"another node|pause_max"):
            a.keep(name, **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="another node"):
            a.keep(a.name)


def test_without_a_loop_it_says_so() -> None:
    with Node(new_name(), cookie="c", epmd="none") as node, pytest.raises(RuntimeError):
        node.keep("b@127.0.0.1")
