"""The fault-injection proxy does the harm it is asked for, and no other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from fault.proxy import PATIENCE_S, Faults, Proxy


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with closing(socket.create_server((request.param, 0), family=family)) as s:
        s.settimeout(PATIENCE_S)
        yield s


@pytest.fixture
def proxy(listener: socket.socket) -> Iterator[Proxy]:
    host, port = listener.getsockname()[:2]
    with Proxy((host, port), host=host) as p:
        yield p


@contextmanager
def connected(proxy: Proxy, listener: socket.socket) -> Iterator[tuple[socket.socket, ...]]:
    """Both ends of a new connection through the proxy: (client, server)."""
    with closing(socket.create_connection(proxy.address, PATIENCE_S)) as client:
        server, _ = listener.accept()
        with closing(server):
            server.settimeout(PATIENCE_S)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield client, server


def read(s: socket.socket, n: int) -> bytes:
    data = bytearray()
    while len(data) < n and (more := s.recv(n - len(data))):
        data += more
    return bytes(data)


def read_all(s: socket.socket) -> bytes:
    data = bytearray()
    while more := s.recv(65536):
        data += more
    return bytes(data)


def send_until_full(s: socket.socket, size: int) -> int:
    sent = 0
    s.setblocking(False)
    try:
        while sent < size:
            sent += s.send(bytes(65536))
    except BlockingIOError:
        pass
    finally:
        s.settimeout(PATIENCE_S)
    return sent


def is_silent(s: socket.socket) -> bool:
    s.setblocking(False)
    try:
        s.recv(1)
    except BlockingIOError:
        return True
    finally:
        s.settimeout(PATIENCE_S)
    return False


def test_without_faults_everything_passes(proxy: Proxy, listener: socket.socket) -> None:
    blob = bytes(range(256)) * 8192
    with connected(proxy, listener) as (client, server):
        for source, sink in ((client, server), (server, client)):
            sender = threading.Thread(target=source.sendall, args=(blob,))
            sender.start()
            assert read(sink, len(blob)) == blob
            sender.join()
        # A byte may arrive before it is counted.
        proxy.wait_until(lambda: proxy.forwarded("up") == proxy.forwarded("down") == len(blob))
        client.shutdown(socket.SHUT_WR)
        assert read_all(server) == b""
        server.sendall(b"still")  # one direction's end leaves the other open
        server.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"still"
        proxy.wait_until(lambda: proxy.open_connections() == 0)


@pytest.mark.parametrize("cut", [0, 1, 5, 100_000])
def test_cut_up(proxy: Proxy, listener: socket.socket, cut: int) -> None:
    proxy.up = Faults(cut_after=cut)
    with connected(proxy, listener) as (client, server):
        client.sendall(b"x" * (cut + 7))
        assert read_all(server) == b"x" * cut
        assert read_all(client) == b""


def test_a_cut_is_no_reset(proxy: Proxy, listener: socket.socket) -> None:
    proxy.up = Faults(cut_after=1)
    with connected(proxy, listener) as (client, server):
        client.sendall(b"xyz")
        assert read_all(server) == b"x"
        client.sendall(bytes(32 << 20))  # goes nowhere, and yet is no error
        server.sendall(bytes(32 << 20))
        assert read_all(client) == b""
    proxy.wait_until(lambda: proxy.open_connections() == 0)


def test_cut_down_and_heal(proxy: Proxy, listener: socket.socket) -> None:
    proxy.down = Faults(cut_after=3)
    with connected(proxy, listener) as (client, server):
        proxy.down = Faults()  # for the next one
        server.sendall(b"abcdef")
        assert read_all(client) == b"abc"
        assert read_all(server) == b""
    with connected(proxy, listener) as (client, server):
        server.sendall(b"abcdef")
        assert read(client, 6) == b"abcdef"


def test_reset(proxy: Proxy, listener: socket.socket) -> None:
    proxy.up = Faults(cut_after=4, reset=True)
    with connected(proxy, listener) as (client, server):
        client.sendall(b"abcdef")
        proxy.wait_until(lambda: len(proxy.connections) == 1 and proxy.open_connections() == 0)
        assert read(server, 4) == b"abcd"
        with pytest.raises(ConnectionResetError):
            server.recv(1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize("reset", [True, False])
def test_end_of_all(proxy: Proxy, listener: socket.socket, reset: bool) -> None:
    with connected(proxy, listener) as (client, server):
        client.sendall(b"x")
        assert read(server, 1) == b"x"
        if reset:
            proxy.reset_all()
            for end in (client, server):
                with pytest.raises(ConnectionResetError):
                    end.recv(1)
        else:
            proxy.close_all()
            assert read_all(client) == read_all(server) == b""
        assert proxy.open_connections() == 0
    with connected(proxy, listener) as (client, server):  # the proxy goes on
        client.sendall(b"y")
        assert read(server, 1) == b"y"


def test_a_reset_passes_through(proxy: Proxy, listener: socket.socket) -> None:
    with connected(proxy, listener) as (client, server):
        client.sendall(b"x")  # unread: closing is then a reset
        proxy.wait_until(lambda: proxy.forwarded("up") == 1)
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize("fault", [Faults(stall_after=2), Faults(swallow_after=2)])
def test_half_open(proxy: Proxy, listener: socket.socket, fault: Faults) -> None:
    proxy.up = fault
    with connected(proxy, listener) as (client, server):
        client.sendall(b"abcdef")
        assert read(server, 2) == b"ab"
        for i in range(3):  # the other way goes on
            server.sendall(b"%d" % i)
            assert read(client, 1) == b"%d" % i
        if fault.swallow_after is not None:
            proxy.wait_until(lambda: proxy.connections[0].swallowed["up"] == 4)
        assert is_silent(server)
        client.shutdown(socket.SHUT_WR)
        server.sendall(b"end")
        assert read(client, 3) == b"end"
        assert is_silent(server)  # not even the end gets through
        server.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        if fault.stall_after is not None:
            for _ in range(10):  # ten rounds of the proxy's loop, and still nothing is closed
                proxy.release("up")
            assert proxy.open_connections() == 1
        assert proxy.forwarded("up") == 2


def test_a_stalled_sender_is_held_up_and_a_swallowed_one_is_not(
    proxy: Proxy, listener: socket.socket
) -> None:
    size = 64 << 20  # more than the buffers of the sockets hold
    proxy.up = Faults(stall_after=0)
    with connected(proxy, listener) as (client, server):
        assert send_until_full(client, size) < size
        assert proxy.forwarded("up") == 0
        assert is_silent(server)
    proxy.up = Faults(swallow_after=0)
    with connected(proxy, listener) as (client, server):
        client.sendall(bytes(size))
        proxy.wait_until(lambda: proxy.connections[1].swallowed["up"] == size)
        assert is_silent(server)


@pytest.mark.parametrize("at", [0, 1, 99_999])
def test_corrupt(proxy: Proxy, listener: socket.socket, at: int) -> None:
    proxy.down = Faults(corrupt_at=at, corrupt_mask=0x21)
    blob = b"\x40" * 100_000
    with connected(proxy, listener) as (client, server):
        server.sendall(blob)
        got = read(client, len(blob))
        assert [i for i in range(len(blob)) if got[i] != 0x40] == [at]
        assert got[at] == 0x61


def test_split(proxy: Proxy, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    sendall = proxy._loop.sock_sendall

    async def recorded(s: socket.socket, data: bytes) -> None:
        sizes.append(len(data))
        await sendall(s, data)

    monkeypatch.setattr(proxy._loop, "sock_sendall", recorded)
    proxy.up, proxy.down = Faults(split=1), Faults(split=4)
    with connected(proxy, listener) as (client, server):
        client.sendall(b"abcdef")
        assert read(server, 6) == b"abcdef"
        assert sizes == [1] * 6
        sizes.clear()
        server.sendall(b"abcdef")
        assert read(client, 6) == b"abcdef"
        assert max(sizes) <= 4


def test_hold_and_release(proxy: Proxy, listener: socket.socket) -> None:
    with connected(proxy, listener) as (client, server):
        proxy.hold("up")
        client.sendall(b"late")
        server.sendall(b"now")  # the other way is free
        assert read(client, 3) == b"now"
        assert is_silent(server)
        assert proxy.forwarded("up") == 0
        proxy.release("up")
        assert read(server, 4) == b"late"


def test_delay(proxy: Proxy, listener: socket.socket) -> None:
    proxy.up = Faults(delay=0.05)
    with connected(proxy, listener) as (client, server):
        begin = time.monotonic()
        client.sendall(b"x")
        assert read(server, 1) == b"x"
        assert time.monotonic() - begin >= 0.05


def test_nobody_at_the_target(proxy: Proxy, listener: socket.socket) -> None:
    def connect_and_read() -> None:
        with closing(socket.create_connection(proxy.address, PATIENCE_S)) as client:
            client.recv(1)

    listener.close()
    with pytest.raises(ConnectionResetError):
        connect_and_read()
    proxy.wait_until(lambda: len(proxy.connections) == 1 and proxy.open_connections() == 0)


def test_stop_closes_everything(proxy: Proxy, listener: socket.socket) -> None:
    proxy.down = Faults(stall_after=0)
    with connected(proxy, listener) as (client, server):
        proxy.hold("up")
        proxy.stop()
        proxy.stop()
        assert read_all(client) == read_all(server) == b""
        assert proxy.open_connections() == 0
        assert "fault proxy" not in [t.name for t in threading.enumerate()]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address, PATIENCE_S)


def test_wait_until_gives_up(proxy: Proxy) -> None:
    with pytest.raises(TimeoutError, match="did not come"):
        proxy.wait_until(lambda: False, timeout=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cut_after": 1, "stall_after": 1},
        {"stall_after": 0, "swallow_after": 0},
        {"reset": True},
        {"split": 0},
    ],
)
def test_faults_that_make_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"exclude|needs|at least"):
        Faults(**wrong)  # type: ignore[arg-type]
