"""Erlang makes terms and judges what comes back; nothing may be lost.

The oracle is a plain `erl` without a node, spoken to over its standard input
and output. Seeds are fixed, so that a failure can be repeated; the long run takes others
and more terms, and a failure names its seed.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from router import etf
from router.etf import Atom

HERE = Path(__file__).parent
LONG = os.environ.get("ROUTER_TEST_LONG", "") not in ("", "0")
FIRST_SEED = random.randrange(2**32) if LONG else 0
MANY = 2_000 if LONG else 100  # times 500 terms: a million, or fifty thousand


class Oracle:
    def __init__(self, beam: Path) -> None:
        self.process = subprocess.Popen(
            ["erl", "-noinput", "-pa", str(beam), "-eval", "etf_oracle:main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask_raw(self, *request: object) -> bytes:
        data = etf.encode(request if len(request) > 1 else request[0])
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(struct.pack(">I", len(data)) + data)
        self.process.stdin.flush()
        head = self.process.stdout.read(4)
        assert len(head) == 4, "erl ended early"
        (size,) = struct.unpack(">I", head)
        return self.process.stdout.read(size)

    def ask(self, *request: object) -> Any:
        return etf.decode(self.ask_raw(*request))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    if shutil.which("erl") is None or shutil.which("erlc") is None:
        if os.environ.get("CI"):
            pytest.fail("Erlang is not installed")
        pytest.skip("Erlang is not installed: terms are not checked against it")
    beam = tmp_path_factory.mktemp("beam")
    subprocess.run(["erlc", "-o", str(beam), str(HERE / "erl" / "etf_oracle.erl")], check=True)
    judge = Oracle(beam)
    yield judge
    judge.close()


def test_terms_of_erlang_come_back_the_same(oracle: Oracle) -> None:
    for seed in range(FIRST_SEED, FIRST_SEED + MANY):
        terms = oracle.ask(Atom("make"), seed, 500)
        assert len(terms) == 500
        wrong = oracle.ask(Atom("same"), [etf.encode(t) for t in terms])
        assert not wrong, (seed, [terms[i] for i in wrong[:3]])


@pytest.mark.parametrize("seed", range(100, 103))
@pytest.mark.parametrize(
    "codec",
    [
        etf.Codec(binaries="str"),
        etf.Codec(binaries="memoryview"),
        etf.Codec(none="undefined"),
        etf.Codec(compressed=6),
    ],
    ids=["str", "memoryview", "undefined", "compressed"],
)
def test_every_policy_that_keeps_terms_exact_does(
    oracle: Oracle, codec: etf.Codec, seed: int
) -> None:
    terms = codec.decode(oracle.ask_raw(Atom("make"), seed, 300))
    wrong = oracle.ask(Atom("same"), [codec.encode(t) for t in terms])
    assert not wrong, [terms[i] for i in wrong[:3]]


def test_bytes_are_those_of_erlang_where_the_format_leaves_no_choice(oracle: Oracle) -> None:
    terms = [
        0, 255, 256, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**64), 2**2039,
        2**2040, 1.5, -0.0, b"", b"abc", [], [1, 2, 3], [1, 256], [255] * 65535, [1] * 65536,
        (), (1,), tuple(range(255)), tuple(range(256)), {}, {1: 2}, etf.BitString(b"\xa0", 3),
        etf.ImproperList([1, 2], 3), "héllo",
    ]  # fmt: skip
    data = [etf.encode(t) for t in terms]
    echoed = oracle.ask(Atom("echo"), data)
    for term, mine, theirs in zip(terms, data, echoed, strict=True):
        assert mine == theirs, term


def test_bytes_are_those_of_erlang_for_random_terms(oracle: Oracle) -> None:
    """But for funs, which stay as they came, ports, which older releases tag otherwise, and the
    order of a map's pairs."""
    compared = exact = 0
    for seed in range(300, 306):
        terms = oracle.ask(Atom("make"), seed, 500)
        for term, theirs in zip(terms, oracle.ask(Atom("written")), strict=True):
            shown = repr(term)
            if "#Fun<" in shown or "#Port<" in shown:
                continue
            mine = etf.encode(term)
            assert sorted(mine) == sorted(theirs), term
            if "{" not in shown and "Map(" not in shown:
                assert mine == theirs, term
                exact += 1
            compared += 1
    assert compared > exact > 1000


class Maker:
    """Random Python terms."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def leaf(self) -> Any:
        r = self.rng
        node = r.choice(["a@b", "shop@127.0.0.1", "é@π"])
        return r.choice(
            [
                lambda: r.randint(-300, 300),
                lambda: r.choice([-1, 1]) * r.getrandbits(r.choice([31, 32, 63, 64, 2040, 2100])),
                lambda: r.uniform(-1e300, 1e300),
                lambda: r.randbytes(r.randrange(20)),
                lambda: "".join(r.choice("aé€😀") for _ in range(r.randrange(9))),
                lambda: Atom("".join(r.choice("aZ_ é😀") for _ in range(r.randrange(9)))),
                lambda: r.choice([True, False, None]),
                lambda: [r.randrange(256) for _ in range(r.randrange(9))],
                lambda: etf.Pid(node, r.getrandbits(28), r.getrandbits(13), r.getrandbits(32) | 1),
                lambda: etf.Reference(
                    node,
                    r.getrandbits(32) | 1,
                    [r.getrandbits(18)] + [r.getrandbits(32) for _ in range(r.randrange(5))],
                ),
                lambda: etf.Port(node, r.getrandbits(r.choice([28, 60])), r.getrandbits(32) | 1),
                lambda: etf.Export("m", "f", r.randrange(256)),
                lambda: etf.BitString(r.randbytes(1 + r.randrange(5)), r.randrange(1, 8)),
            ]
        )()

    def key(self, depth: int) -> Any:
        if depth and self.rng.random() < 0.2:
            return tuple(self.key(depth - 1) for _ in range(self.rng.randrange(4)))
        if depth and self.rng.random() < 0.1:
            return etf.FrozenList([self.key(depth - 1) for _ in range(self.rng.randrange(4))])
        while isinstance(leaf := self.leaf(), (list, str)):
            pass
        return leaf

    def term(self, depth: int) -> Any:
        r = self.rng
        if not depth or r.random() < 0.4:
            return self.leaf()
        many = [self.term(depth - 1) for _ in range(r.choice([0, 1, 2, 3, 6]))]
        kind = r.randrange(4)
        if kind == 0:
            return tuple(many)
        if kind == 1:
            return many
        if kind == 2 and many:
            return etf.ImproperList(many, Atom("tail"))
        return {self.key(2): value for value in many}


def test_terms_of_python_survive_a_visit_to_erlang(oracle: Oracle) -> None:
    for seed in range(FIRST_SEED, FIRST_SEED + MANY // 4):
        maker = Maker(seed)
        terms = [maker.term(4) for _ in range(400)]
        data = [etf.encode(t) for t in terms]
        echoed = oracle.ask(Atom("echo"), data)
        for term, mine, theirs in zip(terms, data, echoed, strict=True):
            assert theirs != Atom("error"), (seed, term)
            # Erlang may order the pairs of a map otherwise, so objects are compared.
            assert etf.decode(theirs) == etf.decode(mine), (seed, term)


@pytest.mark.parametrize("seed", range(200, 206))
def test_order_is_that_of_erlang(oracle: Oracle, seed: int) -> None:
    terms = oracle.ask(Atom("make"), seed, 400)
    theirs = oracle.ask(Atom("order"), terms)
    mine = [etf.compare(a, b) for a, b in pairwise(terms)]
    wrong = [i for i, (x, y) in enumerate(zip(mine, theirs, strict=True)) if x != y]
    assert not wrong, [(terms[i], terms[i + 1], mine[i], theirs[i]) for i in wrong[:3]]


@pytest.mark.parametrize("kind", ["pid", "reference", "port"])
def test_identifiers_are_ordered_as_in_erlang(oracle: Oracle, kind: str) -> None:
    rng = random.Random(kind)
    make = {
        "pid": lambda n, c: etf.Pid(n, rng.randrange(4), rng.randrange(3), c),
        "port": lambda n, c: etf.Port(n, rng.randrange(4), c),
        "reference": lambda n, c: etf.Reference(
            n, c, [rng.randrange(3) for _ in range(rng.choice([3, 3, 3, 5]))]
        ),
    }[kind]
    terms = [make(rng.choice(["a@b", "aa@b", "b@a"]), rng.randrange(1, 3)) for _ in range(600)]
    theirs = oracle.ask(Atom("order"), terms)
    mine = [etf.compare(a, b) for a, b in pairwise(terms)]
    wrong = [i for i, (x, y) in enumerate(zip(mine, theirs, strict=True)) if x != y]
    assert not wrong, [(terms[i], terms[i + 1], mine[i], theirs[i]) for i in wrong[:3]]


def test_damaged_bytes_are_refused_where_erlang_refuses_them(oracle: Oracle) -> None:
    """One byte changed: whatever Erlang accepts is accepted, and the reverse.

    Left out are tags 72 to 76, with which Erlang refers to its own memory and
    which it reads without complaint.
    """
    rng = random.Random(7)
    samples = [
        {1: [2.5, b"abc"], (1, 2): "é"},
        [1, [2**70, -(2**70)], etf.ImproperList([1], 2)],
        (Atom("ok"), Atom("é"), [], {}, etf.BitString(b"ab", 3)),
        {Atom("k"): etf.Export("m", "f", 2), 7: [etf.FrozenList([1]), 300], b"": ((), -1)},
    ]
    damaged = []
    for sample in samples:
        data = etf.encode(sample)
        for at in range(1, len(data)):
            values = rng.sample([*range(72), *range(77, 256)], 40)
            damaged.extend(data[:at] + bytes([value]) + data[at + 1 :] for value in values)
    theirs = oracle.ask(Atom("accepts"), damaged)
    differ = []
    for data, accepted in zip(damaged, theirs, strict=True):
        try:
            etf.decode_prefix(data)
            mine = True
        except etf.DecodeError:
            mine = False
        if mine != accepted:
            differ.append((data, accepted))
    assert not differ, differ[:5]
