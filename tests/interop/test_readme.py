"""The examples of the README and of docs/elixir.md, run as they stand there."""

from __future__ import annotations

import re
import shlex
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO

from interop.erlang import ROOT, ElixirNode, Epmd, Nodes, Otp, child_environment, installed
from router import etf

PATIENCE = 60.0


@cache
def blocks(section: str) -> dict[str, str]:
    """The code blocks of a section by language; what is indented is `text`."""
    text = (ROOT / "README.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = dict(re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL))
    indented = re.findall(r"\n\n    (\S.*)\n\n", text)
    return found | {"text": "\n".join(indented)}


class Program:
    """A program whose output is read line by line as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._timer = threading.Timer(PATIENCE, process.kill)
        self._timer.start()
        self.seen = ""

    def say(self, text: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(text)
        stdin.flush()

    def until(self, text: str) -> str:
        """Reads until `text` was seen; all that came."""
        stdout: IO[str] | None = self._process.stdout
        assert stdout is not None
        while text not in self.seen:
            more = stdout.read(1)
            assert more, f"ended without {text!r}:\n{self.seen}"
            self.seen += more
        return self.seen

    def ends(self) -> str:
        assert self._process.stdout is not None
        self.seen += self._process.stdout.read()
        assert self._process.wait(PATIENCE) == 0, self.seen
        return self.seen

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)

    def close(self) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.communicate()


@contextmanager
def running(
    arguments: list[str], environment: dict[str, str], source: str = ""
) -> Iterator[Program]:
    process = subprocess.Popen(
        arguments,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    program = Program(process)
    try:
        program.say(source)
        yield program
    finally:
        program.close()


@contextmanager
def python(source: str) -> Iterator[Program]:
    with running([sys.executable, "-u", "-c", source], child_environment()) as program:
        yield program


def test_with_erlang(otp: Otp, epmd: Epmd) -> None:
    code = blocks("With Erlang")
    prompt, *command = shlex.split(code["text"])
    assert (prompt, command[0]) == ("$", "erl")
    # What a shell is told is what follows its prompt.
    said = re.findall(r"^\d+> (.*)$", code["erlang"], re.MULTILINE)
    answer = re.findall(r"^[^\d].*$", code["erlang"], re.MULTILINE)
    assert len(said) == 2 and answer == ["{reserved,42}"]
    with running(otp.program("erl") + command[1:], otp.environment()) as shell:
        shell.say("node().\n")
        shell.until("'shop@127.0.0.1'")
        with python(code["python"]) as service:
            service.until("[Atom('py@127.0.0.1')]")
            assert "my pid: #Pid<py@127.0.0.1." in service.seen
            shell.say(said[0] + "\n")
            shell.until(answer[0])
            shell.say(said[1] + "\n")
            service.ends()


def test_with_elixir(elixir: object, epmd: Epmd) -> None:
    code = blocks("With Elixir")
    comment, module = code["elixir"].split("\n", 1)
    command = shlex.split(comment.removeprefix("# "))
    system = next(otp for otp in installed() if not otp.beside)
    assert command[0] == "iex"
    with running(command, system.environment() | {"TERM": "dumb"}, module) as shell:
        shell.until("{:ok, #PID")
        with python(code["python"]) as service:
            lines = service.ends().splitlines()
    assert lines[0] == "3"
    assert "nobody" in lines[1]


def test_being_called(elixir: object, epmd: Epmd) -> None:
    code = blocks("Being called")
    comment, calls = code["elixir"].split("\n", 1)
    system = next(otp for otp in installed() if not otp.beside)
    environment = system.environment() | {"TERM": "dumb"}
    with python(code["python"]) as service:
        service.until("serving")
        with running(shlex.split(comment.removeprefix("# ")), environment, calls) as shell:
            shell.until("{:ok, 6.0}")
            assert service.ends().splitlines()[1] == "ended: normal"


def guide(section: str, language: str) -> list[str]:
    """The code of a section of docs/elixir.md."""
    text = (ROOT / "docs" / "elixir.md").read_text().split(f"\n## {section}\n")[1]
    return re.findall(rf"```{language}\n(.*?)```", text.split("\n## ")[0], re.DOTALL)


def web(elixir: Nodes) -> ElixirNode:
    node = elixir("web", cookie="secret")
    assert isinstance(node, ElixirNode)
    return node


def test_a_model_is_asked_under_a_timeout(elixir: Nodes, epmd: Epmd) -> None:
    section = "Elixir asks a model in Python, under a timeout"
    (service,) = guide(section, "python")
    module, calls = guide(section, "elixir")
    node = web(elixir)
    node.elixir(module + ":ok")
    assert node.elixir("Web.Predictor.predict([1])") == ("error", "down")
    with python(service) as model:
        model.until("serving")
        # A slow answer is under way while the others are asked for.
        slow = node.submit("'Elixir.Web.Predictor':predict(lists:seq(1, 400), 20000)")
        assert node.elixir(calls + ":right") == "right"
        assert etf.decode(slow.result(PATIENCE)) == ("ok", 200.5)
        model.kill()
        start = time.monotonic()
        assert node.elixir("Web.Predictor.predict([1], 60_000)") == ("error", "down")
        assert time.monotonic() - start < PATIENCE / 2


def test_prices_are_published(elixir: Nodes, epmd: Epmd) -> None:
    section = "Python publishes to Elixir's processes"
    (publisher,) = guide(section, "python")
    (module,) = guide(section, "elixir")
    node = web(elixir)
    # What the module starts is linked to who starts it, and so needs one that stays.
    node.elixir(
        "me = self(); spawn(fn -> Code.eval_string(code); send(me, :up);"
        " Process.sleep(:infinity) end); receive do :up -> :ok end",
        Code=module.encode(),
    )
    told = node.submit(
        "{ok, _} = 'Elixir.Web.PubSub':subscribe(<<\"prices\">>), register(waiting, self()),"
        ' [receive {<<"prices">>, M} -> M after 20000 -> none end || _ <- [1, 2]]'
    )
    while node.text("whereis(waiting)") == "undefined":
        pass
    with python(publisher) as program:
        assert program.ends().splitlines()[-1] == "told 1"
    got = etf.decode(told.result(PATIENCE))
    assert sorted(got, key=repr) == [{b"apple": 3}, {b"pear": 4}]


def test_structs_are_objects(elixir: Nodes, epmd: Epmd) -> None:
    orders, money, _ = guide("Structs", "python")
    (module,) = guide("Structs", "elixir")
    node = web(elixir)
    node.elixir(
        "me = self(); spawn(fn -> Code.eval_string(code); send(me, :up);"
        " Process.sleep(:infinity) end); receive do :up -> :ok end",
        Code=module.encode(),
    )
    with python(orders) as program:
        assert program.ends().splitlines() == [
            "Order(id=7, due=datetime.date(2026, 12, 24), tags=frozenset({'gift'}))",
            "late: True",
        ]
    with python(money) as program:
        shown, back = program.ends().splitlines()
        assert "whole => 19" in shown and "'Elixir.Shop.Money'" in shown
        assert back == "1999"


def test_a_tensor_is_answered_with_a_tensor(elixir: Nodes, epmd: Epmd) -> None:
    *_, digits = guide("Structs", "python")
    node = web(elixir)
    with python(digits) as model:
        model.until("serving")
        # The struct is written out, for Nx is not needed to send it.
        state = node.elixir("""
            tensor = %{__struct__: Nx.Tensor, type: {:u, 8}, shape: {2, 2, 2},
              names: [nil, nil, nil], vectorized_axes: [],
              data: %{__struct__: Nx.BinaryBackend, state: <<1, 2, 3, 4, 5::32>>}}
            {:ok, %{type: {:f, 64}, shape: {2}, data: %{state: state}}} =
              GenServer.call({:digits, :"digits@127.0.0.1"}, {:predict, tensor})
            state
        """)
    assert struct.unpack("=2d", state) == (2.5, 1.25)
