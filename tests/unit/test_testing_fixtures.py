"""The fixtures that users get: real nodes, private, stopped afterwards."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


def test_nodes_of_one_test_reach_each_other(router_nodes):
    node, other = router_nodes("service"), router_nodes("client")
    box = node.mailbox("orders")
    other.send(("orders", node.name), ("reserve", 42))
    assert box.get(timeout=5) == (b"reserve", 42)


async def _roundtrip(node, other):
    box = node.mailbox("echo")
    other.send(("echo", node.name), 7)
    return await box.receive(timeout=5)


def test_they_work_with_a_loop(router_nodes):
    import asyncio

    assert asyncio.run(_roundtrip(router_nodes("a"), router_nodes("b"))) == 7


def test_they_are_stopped_afterwards(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        kept = []

        def test_one(router_nodes):
            kept.append(router_nodes("one"))
            assert kept[0].running

        def test_two():
            assert not kept[0].running
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
