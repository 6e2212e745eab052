"""Elixir makes structs and judges what comes back of them; what Python makes is shown there."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import zoneinfo
from typing import Any

import numpy as np
import pytest

from interop.erlang import ElixirNode, Nodes
from router import etf
from router.etf import Codec, Structs

MODULES = """
defmodule Nx.Tensor do
  defstruct [:data, :type, :shape, :names, vectorized_axes: []]
end
defmodule Nx.BinaryBackend do
  defstruct [:state]
end
defmodule Decimal do
  defstruct sign: 1, coef: 0, exp: 0
end
defmodule Shop.Order do
  defstruct [:id, items: [], paid: false]
end
:ok
"""

# As a string of code, for Elixir is asked for the same values twice.
VALUES = """
[
  ~D[2026-02-28], ~D[9999-12-31], ~D[-0001-01-01], ~D[0000-12-31],
  ~T[23:59:59], ~T[01:02:03.120], ~T[01:02:03.000000],
  ~N[2026-01-02 03:04:05], ~N[2026-01-02 03:04:05.5], ~U[2026-01-02 03:04:05.678901Z],
  %{~U[2026-07-02 03:04:05Z] | time_zone: "Europe/Berlin", zone_abbr: "CEST", utc_offset: 3600,
    std_offset: 3600},
  %{~U[2026-07-02 03:04:05Z] | time_zone: "Mars/Olympus", zone_abbr: "MMT", utc_offset: 17},
  %Decimal{sign: -1, coef: 12340, exp: -3}, %Decimal{coef: :NaN}, %Decimal{sign: -1, coef: :inf},
  MapSet.new(), MapSet.new([1, :two, "three", [4], %{five: 5}, {6, ~D[2026-01-01]}]),
  MapSet.new([~D[2026-01-01], 1..3, MapSet.new([1])]), MapSet.new([1, 1.0]),
  1..10, 10..1//-3, 5..1//1, Map.delete(1..2, :step),
  Version.parse!("1.2.3"), Version.parse!("1.2.3-rc.1+20260101"),
  %Shop.Order{id: 1, items: ["tea", nil], paid: true},
  %Nx.Tensor{data: %Nx.BinaryBackend{state: <<1.0::float-native-32, 2.0::float-native-32>>},
    type: {:f, 32}, shape: {2, 1}, names: [nil, nil]},
  %Nx.Tensor{data: %Nx.BinaryBackend{state: <<1>>}, type: {:u, 8}, shape: {1}, names: [:batch]},
  %{~D[2026-01-01] => [~T[00:00:00]]}, {1..2, [MapSet.new([~D[2026-01-01]])]},
  DateTime.utc_now(), Time.utc_now(), NaiveDateTime.utc_now(), Date.utc_today()
]
"""


@dataclasses.dataclass
class Order:
    id: int
    items: list[Any]
    paid: bool


def codec(**policies: Any) -> Codec:
    structs = Structs(tensors=True)
    structs.register(Order, module="Shop.Order")
    return Codec(structs=structs, **policies)


@pytest.mark.parametrize(
    "policies",
    [{}, {"binaries": "str"}, {"binaries": "memoryview"}, {"none": "undefined"}, {"compressed": 6}],
    ids=str,
)
def test_elixirs_structs_come_back_the_same(elixir: Nodes, policies: dict[str, Any]) -> None:
    node = elixir("phoenix")
    assert isinstance(node, ElixirNode)
    assert node.elixir(MODULES) == "ok"
    chosen = codec(**policies)
    # They are kept there, for some of them are of now.
    data = node.elixir(
        f"values = {VALUES}; :persistent_term.put(:values, values); :erlang.term_to_binary(values)"
    )
    found = chosen.decode(data)
    wrong = node.elixir(
        "back = :erlang.binary_to_term(data);"
        " for {a, b} <- Enum.zip(:persistent_term.get(:values), back), a !== b,"
        " do: inspect({a, b})",
        Data=chosen.encode(found),
    )
    assert wrong == []
    maps = [value for value in found if isinstance(value, dict)]
    # Two dates, a zone nobody knows, a set that Python cannot hold, a range without a step, the
    # named tensor, and the map that is none of them.
    assert len(maps) == 7


def test_pythons_values_are_elixirs(elixir: Nodes) -> None:
    node = elixir("phoenix")
    assert isinstance(node, ElixirNode)
    assert node.elixir(MODULES) == "ok"
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    shown = {
        dt.date(2026, 2, 28): "~D[2026-02-28]",
        dt.time(1, 2, 3): "~T[01:02:03]",
        dt.time(1, 2, 3, 40): "~T[01:02:03.000040]",
        dt.datetime(2026, 1, 2, 3, 4, 5): "~N[2026-01-02 03:04:05]",
        dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC): "~U[2026-01-02 03:04:05.000006Z]",
        dt.datetime(2026, 7, 2, 3, 4, tzinfo=berlin):
            "#DateTime<2026-07-02 03:04:00+02:00 CEST Europe/Berlin>",
        range(1, 10, 2): "1..9//2",
        range(3): "0..2",
        frozenset({1}): "MapSet.new([1])",
    }  # fmt: skip
    texts = node.elixir(
        "Enum.map(:erlang.binary_to_term(data), &inspect/1)", Data=codec().encode(list(shown))
    )
    texts = [text.decode().replace("#MapSet<[1]>", "MapSet.new([1])") for text in texts]
    assert texts == list(shown.values())
    # What is equal there is equal to what Elixir itself makes, and its functions take it.
    right = node.elixir(
        "[date, set, order, tensor, price, version] = :erlang.binary_to_term(data);"
        " [Date.add(date, 1) == ~D[2026-03-01],"
        "  MapSet.equal?(MapSet.put(set, 2), MapSet.new(1..2)),"
        "  order == %Shop.Order{id: 7, items: [1], paid: true},"
        "  tensor.data.state == <<1::native-16, 2::native-16>> and tensor.shape == {2},"
        "  price == %Decimal{sign: -1, coef: 150, exp: -2},"
        '  version == Version.parse!("1.2.3-rc.1+b")]',
        Data=codec().encode(
            [
                dt.date(2026, 2, 28),
                {1},
                Order(7, [1], True),
                np.array([1, 2], "u2"),
                decimal.Decimal("-1.50"),
                etf.Version(1, 2, 3, ("rc", 1), "b"),
            ]
        ),
    )
    assert right == [True] * 6
