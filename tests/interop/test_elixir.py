"""Elixir: a GenServer called from Python, and Python reached from Elixir code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from interop.erlang import ElixirNode, Nodes
from interop.talk import PATIENCE, answer, both_ways
from router import Atom, Export, Node, NoProcess, Pid, RemoteError, etf

SHOP = """
defmodule Order do
  defstruct [:id, items: [], paid: false]
end

defmodule Shop do
  use GenServer
  def init(stock), do: {:ok, stock}
  def handle_call({:reserve, item, n}, _from, stock) do
    case stock do
      %{^item => have} when have >= n -> {:reply, {:ok, have - n}, %{stock | item => have - n}}
      _ -> {:reply, {:error, :out_of_stock}, stock}
    end
  end
  def handle_call(:boom, _from, _stock), do: raise "no more"
  def handle_call({:judge, order}, _from, stock) do
    {:reply, order == %Order{id: 7, items: ["tea", "é"], paid: true}, stock}
  end
  def handle_call(:order, _from, stock), do: {:reply, %Order{id: 1}, stock}
  def handle_cast({:restock, item, n}, stock), do: {:noreply, Map.update(stock, item, n, &(&1 + n))}
end

{:ok, _} = GenServer.start(Shop, %{"tea" => 3}, name: Shop)
:ok
"""


@pytest.fixture
def iex(elixir: Nodes) -> ElixirNode:
    node = elixir("phoenix")
    assert isinstance(node, ElixirNode)
    assert node.elixir(SHOP) == "ok"
    return node


async def elixir(node: ElixirNode, source: str, **bindings: Any) -> Any:
    return await asyncio.to_thread(node.elixir, source, **bindings)


async def test_a_genserver_is_called(iex: ElixirNode, name: str) -> None:
    async with Node(name) as node:
        shop = ("Elixir.Shop", iex.name)
        reserve = Atom("reserve")
        assert await node.call(shop, (reserve, "tea", 2)) == ("ok", 1)
        assert await node.call(shop, (reserve, "tea", 2)) == ("error", "out_of_stock")
        node.cast(shop, (Atom("restock"), "tea", 5))
        while await node.call(shop, (reserve, "tea", 2)) != ("ok", 4):
            pass
        with pytest.raises(RemoteError) as caught:
            await node.call(shop, Atom("boom"))
        (error, _stack) = caught.value.reason
        assert error[Atom("__struct__")] == "Elixir.RuntimeError"
        assert error[Atom("message")] == b"no more"
        with pytest.raises(NoProcess):
            await node.call(shop, Atom("boom"))
        assert await node.rpc(iex.name, "Elixir.String", "upcase", ["été"]) == "ÉTÉ".encode()


async def test_structs_are_maps(iex: ElixirNode, name: str) -> None:
    async with Node(name, codec=etf.Codec(binaries="str")) as node:
        shop = ("Elixir.Shop", iex.name)
        order = await node.call(shop, Atom("order"))
        assert order == {
            Atom("__struct__"): "Elixir.Order",
            Atom("id"): 1,
            Atom("items"): [],
            Atom("paid"): False,
        }
        order |= {Atom("id"): 7, Atom("items"): ["tea", "é"], Atom("paid"): True}
        assert await node.call(shop, (Atom("judge"), order)) is True
        order[Atom("paid")] = None
        assert await node.call(shop, (Atom("judge"), order)) is False


async def test_a_mailbox_is_reached(iex: ElixirNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox("orders")
        assert await elixir(iex, f'Node.ping(:"{name}")') == "pong"
        await elixir(
            iex,
            'send({:orders, node}, {:order, "tea", 42, ~c"abc", ~D[2024-02-29], 1..3,'
            " [a: 1], nil, &String.length/1})",
            Node=Atom(name),
        )
        match await box.receive(PATIENCE):
            case ("order", b"tea", 42, [97, 98, 99], date, span, [("a", 1)], None, export):
                assert date[Atom("__struct__")] == "Elixir.Date"
                assert (date[Atom("year")], date[Atom("day")]) == (2024, 29)
                assert (span[Atom("first")], span[Atom("last")]) == (1, 3)
                assert export == Export("Elixir.String", "length", 1)
            case other:
                pytest.fail(repr(other))
        await both_ways(node, iex)


async def test_elixir_calls_a_mailbox(iex: ElixirNode, name: str) -> None:
    async with Node(name) as node:
        box = node.mailbox("orders")
        asked = asyncio.create_task(
            elixir(iex, "GenServer.call({:orders, node}, {:price, \"tea\"}, 20_000)",
                   Node=Atom(name))
        )  # fmt: skip
        match await box.receive(PATIENCE):
            case ("$gen_call", (Pid() as pid, tag), ("price", b"tea")):
                node.send(pid, (tag, (Atom("ok"), 2.5)))
        assert await asked == ("ok", 2.5)


async def test_elixir_watches_a_mailbox(iex: ElixirNode, name: str) -> None:
    async with Node(name) as node:
        box, judge = node.mailbox("orders"), node.mailbox()
        waiting = iex.submit(
            "element(1, 'Elixir.Code':eval_string(Source, [{node, Node}, {judge, Judge}]))",
            Node=Atom(name), Judge=judge.pid, Source=b"""
              ref = Process.monitor({:orders, node})
              send(judge, :watching)
              receive do
                {:DOWN, ^ref, :process, {:orders, ^node}, reason} -> reason
              after 20_000 -> nil
              end""",
        )  # fmt: skip
        assert await judge.receive(PATIENCE) == "watching"
        box.close((Atom("shutdown"), "closed for today"))
        assert await answer(waiting) == ("shutdown", b"closed for today")
