"""The port mapper: as a server for clients that behave badly, and as a client of one that lies."""

from __future__ import annotations

import contextlib
import re
import resource
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from fault.conftest import Host, LogLines, Start, open_sockets
from fault.peer import OPENED, PATIENCE_S, Link, Peer, Wire, short, wait_for_ends
from fault.test_handshake_silence import many_descriptors
from router import Atom, HandshakeError, NameTaken, Node, NodeDown, RouterError, _life

ALIVE2, PORT2, NAMES, DUMP, KILL, STOP = 120, 122, 110, 100, 107, 115


def alive2(name: bytes, port: int = 4000, extra: bytes = b"", highest: int = 6) -> bytes:
    head = struct.pack(">BHBBHHH", ALIVE2, port, 77, 0, highest, 5, len(name))
    return short(head + name + struct.pack(">H", len(extra)) + extra)


def port2(name: bytes) -> bytes:
    return short(bytes([PORT2]) + name)


class Client(Wire):
    """One who talks to the port mapper of the host under test."""

    def __init__(self, port: int) -> None:
        super().__init__(socket.create_connection(("127.0.0.1", port), PATIENCE_S))

    def everything(self) -> bytes:
        """All that is said until the connection is closed."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while part := self.socket.recv(1 << 16):
                data += part
        return data


@pytest.fixture
def serving(start: Start, epmd_port: int) -> Host:
    """A node that serves the port mapper; `names_max` is 20."""
    limits = {"names_max": 20, "connect_ms": 400, "handshake_step_ms": 400}
    return start("first@127.0.0.1", epmd="auto", limits=limits)


def names(port: int) -> dict[str, int]:
    client = Client(port)
    client.send(short(bytes([NAMES])))
    answer = client.everything()
    assert struct.unpack(">I", answer[:4])[0] == port
    lines = re.findall(r"name (\S+) at port (\d+)\n", answer[4:].decode())
    return {name: int(at) for name, at in lines}


# Serving


def test_a_registration_and_its_end(serving: Host, epmd_port: int) -> None:
    client = Client(epmd_port)
    client.send(alive2(b"one", 4001, b"extra"))
    code, result, creation = struct.unpack(">BBI", client.exactly(6))
    assert (code, result) == (118, 0) and creation > 3
    assert names(epmd_port) == {"first": serving.port, "one": 4001}
    asker = Client(epmd_port)
    asker.send(port2(b"one"))
    answer = asker.everything()
    assert struct.unpack(">BBHBBHH", answer[:10]) == (119, 0, 4001, 77, 0, 6, 5)
    assert answer[10:] == b"\0\3one\0\5extra"
    client.close()
    while "one" in names(epmd_port):
        pass
    assert serving.log.lines[0].endswith("serving the port mapper of this host")


def test_a_name_that_is_taken(serving: Host, epmd_port: int) -> None:
    for name in (b"first", b"first"):
        client = Client(epmd_port)
        client.send(alive2(name))
        assert client.everything()[:2] == bytes([118, 1])
    holder = Client(epmd_port)
    holder.send(alive2(b"two"))
    assert holder.exactly(6)[:2] == bytes([118, 0])
    late = Client(epmd_port)
    late.send(alive2(b"two", highest=5))
    assert late.everything()[:2] == bytes([121, 1])
    assert names(epmd_port).keys() == {"first", "two"}


RUBBISH = {
    "nothing": short(b""),
    "an unknown request": short(b"\xff"),
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "the longest length": b"\xff\xff" + bytes(100),
    "a registration cut": short(alive2(b"one")[2:-3]),
    "a registration without a name": alive2(b""),
    "a name with a line break": alive2(b"a\nname b at port 1"),
    "a name with a blank": alive2(b"a b"),
    "a name with a host": alive2(b"a@b"),
    "a name that is not UTF-8": alive2(b"\xff\xfe"),
    "a name of 256 characters": alive2(b"x" * 256),
    "more extra than there may be": alive2(b"one", extra=bytes(1025)),
    "a question for no name": port2(b""),
    "a request to stop": short(bytes([STOP]) + b"first"),
}


@pytest.mark.parametrize("what", RUBBISH)
def test_rubbish(serving: Host, epmd_port: int, what: str) -> None:
    client = Client(epmd_port)
    client.send(RUBBISH[what])
    assert client.everything() == b""
    assert names(epmd_port) == {"first": serving.port}


def test_nobody_ends_it_from_outside(serving: Host, epmd_port: int) -> None:
    client = Client(epmd_port)
    client.send(short(bytes([KILL])))
    assert client.everything() == b"NO"
    assert names(epmd_port) == {"first": serving.port}


def test_what_a_registered_node_says_more_is_ignored(serving: Host, epmd_port: int) -> None:
    client = Client(epmd_port)
    client.send(alive2(b"one") + alive2(b"two") + b"\xff" * 1000)
    assert client.exactly(6)[:2] == bytes([118, 0])
    client.send(b"\xff" * 10_000)
    assert names(epmd_port).keys() == {"first", "one"}


def test_a_request_byte_by_byte(serving: Host, epmd_port: int) -> None:
    client = Client(epmd_port)
    client.send_bytewise(alive2(b"one"))
    assert client.exactly(6)[:2] == bytes([118, 0])


def test_half_requests_are_closed_in_time(serving: Host, epmd_port: int) -> None:
    whole = alive2(b"one")
    before = open_sockets()
    clients = [Client(epmd_port) for _ in whole]
    for at, client in enumerate(clients):
        client.send(whole[:at])
    wait_for_ends(clients)
    for client in clients:
        client.close()
    assert open_sockets() == before
    assert names(epmd_port) == {"first": serving.port}


def test_a_registered_node_may_stay_silent(serving: Host, epmd_port: int) -> None:
    """The time for asking is not for those that are registered."""
    client = Client(epmd_port)
    client.send(alive2(b"one"))
    client.exactly(6)
    wait_for_ends([Client(epmd_port), Client(epmd_port)])
    assert names(epmd_port).keys() == {"first", "one"}


@pytest.fixture
def many_names(start: Start, epmd_port: int) -> Host:
    """A list of more bytes than a socket takes for one who does not read."""
    many_descriptors(8192)
    host = start("first@127.0.0.1", epmd="auto", limits={"connect_ms": 1000})
    for i in range(2700):
        client = Client(epmd_port)
        client.send(alive2(b"%04d" % i + "\U0001d11e".encode() * 250))
        client.exactly(6)
    return host


def lazy_client(port: int) -> Wire:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    return Wire(sock)


def test_a_client_that_reads_slowly(many_names: Host, epmd_port: int) -> None:
    """What it does not take is not kept for ever, and others are served meanwhile."""
    lazy = lazy_client(epmd_port)
    lazy.send(short(bytes([NAMES])))
    assert len(names(epmd_port)) == 2701
    wait_for_ends([Client(epmd_port)])
    assert len(names(epmd_port)) == 2701
    many_names.connected(Peer())


def test_one_answer_to_a_client(many_names: Host, epmd_port: int) -> None:
    """Or three bytes, said over and over, would cost the length of the list each time."""
    lazy = lazy_client(epmd_port)
    lazy.send(short(bytes([NAMES])) * 1000)
    assert len(names(epmd_port)) == 2701
    said = b"".join(iter(lambda: lazy.socket.recv(1 << 20), b""))
    assert said.count(b"name first at") == 1


def test_a_thousand_clients(start: Start, epmd_port: int) -> None:
    many_descriptors(4096)
    start("first@127.0.0.1", epmd="auto")
    clients = [Client(epmd_port) for _ in range(1000)]
    for client in clients:
        client.send(port2(b"first"))
    for client in reversed(clients):
        assert client.exactly(2) == bytes([119, 0])
        assert client.end() == "closed"


def test_more_clients_than_there_may_be(start: Start, epmd_port: int) -> None:
    host = start("first@127.0.0.1", epmd="auto", limits={"handshakes_max": 10, "connect_ms": 300})
    for i in range(15):  # those that are registered do not count
        holder = Client(epmd_port)
        holder.send(alive2(b"n%d" % i))
        holder.exactly(6)
    silent = [Client(epmd_port) for _ in range(10)]
    late = Client(epmd_port)
    assert late.end() in ("closed", "reset")
    host.logged("refused a connection .*port mapper.*handshakes_max")
    wait_for_ends(silent)
    assert len(names(epmd_port)) == 16


def test_as_many_names_as_there_may_be(serving: Host, epmd_port: int) -> None:
    holders = []
    for i in range(19):
        holders.append(Client(epmd_port))
        holders[-1].send(alive2(b"n%d" % i))
        assert holders[-1].exactly(6)[:2] == bytes([118, 0])
    late = Client(epmd_port)
    late.send(alive2(b"late"))
    assert late.everything()[:2] == bytes([118, 1])
    assert len(names(epmd_port)) == 20
    holders.pop().close()
    while len(names(epmd_port)) == 20:
        pass
    again = Client(epmd_port)
    again.send(alive2(b"late"))
    assert again.exactly(6)[:2] == bytes([118, 0])


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = socket.socket()
    free = lowest_free.fileno()
    lowest_free.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)


def test_out_of_descriptors(serving: Host, epmd_port: int) -> None:
    """Who comes meanwhile waits in the kernel; the node does not spin, and takes him in later."""
    socks = [socket.socket(), socket.socket()]
    OPENED.extend(socks)
    for sock in socks:
        sock.settimeout(PATIENCE_S)
    with no_descriptors_left():
        socks[0].connect(("127.0.0.1", epmd_port))
        socks[1].connect(("127.0.0.1", serving.port))
        socks[0].sendall(port2(b"first"))
        serving.logged("cannot accept connections: Too many open files")
        assert select.select(socks, [], [], 0.3)[0] == []
        assert serving.count("cannot accept") <= 4  # each listener tries once a second
    assert Wire(socks[0]).exactly(2) == bytes([119, 0])
    late = Link(Peer(), socks[1])
    late.join()


# Asking a port mapper that is not what it should be


class FakeMapper:
    """Listens where the port mapper should, and does with each connection what it is told."""

    def __init__(self, port: int, behave: Callable[[socket.socket, int], None]) -> None:
        self.behave = behave
        self.socket = socket.create_server(("127.0.0.1", port))
        self.count = 0
        self.kept: list[socket.socket] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            self.kept.append(sock)
            sock.settimeout(PATIENCE_S)
            with contextlib.suppress(OSError):
                self.behave(sock, self.count)
            self.count += 1

    def stop(self) -> None:
        if not self.thread.is_alive():
            return
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()
        for sock in self.kept:
            sock.close()


Mapper = Callable[[Callable[[socket.socket, int], None]], FakeMapper]


@pytest.fixture
def mapper(epmd_port: int) -> Iterator[Mapper]:
    made: list[FakeMapper] = []

    def begin(behave: Callable[[socket.socket, int], None]) -> FakeMapper:
        made.append(FakeMapper(epmd_port, behave))
        return made[-1]

    yield begin
    for fake in made:
        fake.stop()


def request(sock: socket.socket) -> bytes:
    head = sock.recv(2, socket.MSG_WAITALL)
    if len(head) < 2:  # the node has stopped
        raise ConnectionError("no request")
    return sock.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)


def answers(answer: bytes, *, close: bool = False) -> Callable[[socket.socket, int], None]:
    def behave(sock: socket.socket, number: int) -> None:
        request(sock)
        sock.sendall(answer)
        if close:
            sock.close()

    return behave


REGISTERED = struct.pack(">BBI", 118, 0, 99)


@pytest.mark.parametrize(
    "refusal", [struct.pack(">BBI", 118, 1, 0), struct.pack(">BBH", 121, 1, 99)]
)
def test_a_registration_refused(mapper: Mapper, log: LogLines, refusal: bytes) -> None:
    mapper(answers(refusal, close=True))
    node = Node("taken@127.0.0.1", cookie="secret")
    with pytest.raises(NameTaken, match="taken"):
        node.start_sync()
    assert not node.running


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="rubbish"),
        pytest.param(answers(b"", close=True), id="closes"),
        pytest.param(answers(b"\x76", close=True), id="closes half way"),
        pytest.param(answers(struct.pack(">BBI", 118, 0, 0)), id="creation 0"),
        pytest.param(lambda sock, number: sock.close(), id="closes at once"),
        pytest.param(lambda sock, number: None, id="says nothing"),
        pytest.param(answers(b"\x76"), id="says half"),
    ],
)
def test_a_port_mapper_that_does_not_work(
    mapper: Mapper, monkeypatch: pytest.MonkeyPatch, behave: Callable[[socket.socket, int], None]
) -> None:
    monkeypatch.setattr(_life, "_START_SECONDS", 0.3)
    mapper(behave)
    node = Node("node@127.0.0.1", cookie="secret")
    with pytest.raises(RouterError, match="port mapper does not answer"):
        node.start_sync()
    assert not node.running


def test_a_port_mapper_that_comes_to_its_senses(mapper: Mapper, start: Start) -> None:
    """The node tries again, and starts."""

    def behave(sock: socket.socket, number: int) -> None:
        body = request(sock)
        if number == 0:
            sock.sendall(b"rubbish")
        elif number == 1:
            sock.close()
        else:
            assert body[0] == ALIVE2
            sock.sendall(REGISTERED)

    mapper(behave)
    host = start(epmd="auto")
    assert host.node.creation == 99
    host.connected(Peer())


def test_a_port_mapper_that_says_more_than_it_should(mapper: Mapper, start: Start) -> None:
    mapper(answers(REGISTERED + b"more" * 1000))
    host = start(epmd="auto")
    assert host.node.creation == 99
    host.flows(host.connected(Peer()))


def test_a_port_mapper_with_the_old_answer(mapper: Mapper, start: Start) -> None:
    mapper(answers(struct.pack(">BBH", 121, 0, 3)))
    assert start(epmd="auto").node.creation == 3


def liar(answer: bytes, *, close: bool = True) -> Callable[[socket.socket, int], None]:
    """Registers whoever asks, and answers every question so."""

    def behave(sock: socket.socket, number: int) -> None:
        body = request(sock)
        sock.sendall(REGISTERED if body[0] == ALIVE2 else answer)
        if body[0] != ALIVE2 and close:
            sock.close()

    return behave


def found(port: int, name: bytes = b"peer") -> bytes:
    return struct.pack(">BBHBBHHH", 119, 0, port, 77, 0, 6, 5, len(name)) + name + b"\0\0"


LIES = {
    "no such node": (struct.pack(">BB", 119, 1), "knows no node of that name"),
    "port 0": (found(0), "knows no node of that name"),
    "rubbish": (b"rubbish", "no port mapper at"),
    "nothing": (b"", "no port mapper at"),
    "half an answer": (found(4000)[:7], "no port mapper at"),
    "an endless answer": (found(4000)[:10] + b"\xff\xff" + bytes(70_000), "no port mapper at"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_lookup_that_fails(mapper: Mapper, start: Start, what: str) -> None:
    answer, says = LIES[what]
    mapper(liar(answer))
    host = start(epmd="auto")
    with pytest.raises(NodeDown, match=says):
        host.node.connect_sync("peer@127.0.0.1")
    host.flows(host.connected(Peer()))


def test_a_lookup_that_is_never_answered(mapper: Mapper, start: Start) -> None:
    mapper(liar(b"", close=False))
    host = start(epmd="auto", limits={"connect_ms": 200})
    with pytest.raises(NodeDown, match="no port mapper at"):
        host.node.connect_sync("peer@127.0.0.1")


def test_a_port_where_nobody_listens(mapper: Mapper, start: Start) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        mapper(liar(found(unused.getsockname()[1])))
        host = start(epmd="auto")
        with pytest.raises(NodeDown, match="refused"):
            host.node.connect_sync("peer@127.0.0.1")


def test_the_port_of_another_node(mapper: Mapper, start: Start) -> None:
    """Messages for one node must not reach another."""
    other = start("other@127.0.0.1")
    mapper(liar(found(other.port)))
    host = start(epmd="auto")
    with pytest.raises(HandshakeError, match="another name"):
        host.node.connect_sync("peer@127.0.0.1")
    assert host.node.nodes() == [] == other.node.nodes()


def test_our_own_port(mapper: Mapper, start: Start) -> None:
    ports: list[int] = []

    def behave(sock: socket.socket, number: int) -> None:
        body = request(sock)
        sock.sendall(REGISTERED if body[0] == ALIVE2 else found(ports[0]))

    mapper(behave)
    host = start(epmd="auto")
    ports.append(host.port)
    with pytest.raises(RouterError):
        host.node.connect_sync("peer@127.0.0.1")
    assert host.node.nodes() == []


def test_the_port_of_the_port_mapper_itself(mapper: Mapper, start: Start, epmd_port: int) -> None:
    mapper(liar(found(epmd_port)))
    host = start(epmd="auto", limits={"handshake_step_ms": 200})
    with pytest.raises(HandshakeError):
        host.node.connect_sync("peer@127.0.0.1")


def test_a_port_mapper_that_goes_away(mapper: Mapper, start: Start, epmd_port: int) -> None:
    """The node notices, and serves in its place, under the creation it has."""
    fake = mapper(answers(REGISTERED))
    host = start("first@127.0.0.1", epmd="auto")
    fake.stop()
    host.logged("the port mapper went away; registering again")
    host.logged("serving the port mapper of this host")
    assert host.node.creation == 99
    assert names(epmd_port) == {"first": host.port}
    box = host.box
    box.node.send(box.pid, Atom("still here"))
    assert box.get(5) == "still here"


def test_a_name_lost_to_another_while_it_was_away(mapper: Mapper, start: Start) -> None:
    """What was started under a name goes on, and goes on asking for it."""
    taken = struct.pack(">BBI", 118, 1, 99)

    def behave(sock: socket.socket, number: int) -> None:
        request(sock)
        sock.sendall(taken if number == 1 else REGISTERED)
        if number == 1:
            sock.close()

    fake = mapper(behave)
    host = start("first@127.0.0.1", epmd="auto")
    fake.kept[0].shutdown(socket.SHUT_RDWR)
    host.logged("another node is registered as 'first'")
    host.logged("registered$", 2)
    host.flows(host.connected(Peer()))
