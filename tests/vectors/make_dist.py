"""Record what two real Erlang nodes say to each other.

    make_dist.py NAME [--otp DIRECTORY] [--cases CASE ...]

writes ``dist_NAME.txt`` beside this file: one line a direction, a name, a tab
and every byte in hex, the handshake included. ``--otp`` names another
installation of Erlang than the one on the path. The files here were made with

    make_dist.py otp25
    make_dist.py otp28 --otp DIRECTORY --cases talk pass

The nodes meet through a port mapper and a proxy in this program. The proxy can
take capability flags out of the handshake (the digests do not cover them), so
that real nodes also speak the older forms: pass-through frames, signals
without payload, unlink without ids.
"""

import argparse
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
COOKIE = "vectors"
HEADER_FLAGS = 0x2000 | 0x800000  # DIST_HDR_ATOM_CACHE, FRAGMENTS
OLD_FLAGS = HEADER_FLAGS | 0x80000 | 0x400000  # and SEND_SENDER, EXIT_PAYLOAD
CASES = [
    # name, rows of the longest message, flags taken away
    ("talk", 4200, 0),
    ("nocache", 1000, 0x2000),
    ("pass", 10, OLD_FLAGS),
]


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


class PortMapper:
    """Answers as epmd does, but always with the proxy's port."""

    def __init__(self) -> None:
        self.socket = listen()
        self.port = self.socket.getsockname()[1]
        self.proxy_port = 0
        self.real: dict[bytes, int] = {}
        self.registered = threading.Condition()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        body = receive_exactly(sock, struct.unpack(">H", receive_exactly(sock, 2))[0])
        if body[0] == 120:
            port, length = struct.unpack(">xH6xH", body[:11])
            with self.registered:
                self.real[body[11 : 11 + length]] = port
                self.registered.notify_all()
            sock.sendall(struct.pack(">BBI", 118, 0, 1000 + len(self.real)))
            sock.recv(1)  # the registration lasts as long as the connection
            return
        name = body[1:]
        sock.sendall(
            struct.pack(">BBHBBHHH", 119, 0, self.proxy_port, 77, 0, 6, 5, len(name))
            + name
            + b"\0\0"
        )
        sock.close()

    def wait_for(self, name: bytes) -> int:
        with self.registered:
            if not self.registered.wait_for(lambda: name in self.real, timeout=20):
                raise TimeoutError(f"{name.decode()} did not register")
            return self.real[name]


class Proxy:
    """Passes one connection on and keeps a copy of both directions."""

    def __init__(self, without: int) -> None:
        self.socket = listen()
        self.port = self.socket.getsockname()[1]
        self.without = without
        self.taken = {"from_initiator": bytearray(), "from_acceptor": bytearray()}
        self.threads: list[threading.Thread] = []
        self.real_port = 0

    def start(self, real_port: int) -> None:
        self.real_port = real_port
        self.spawn(self.run)

    def spawn(self, function, *args) -> None:  # type: ignore[no-untyped-def]
        thread = threading.Thread(target=function, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def run(self) -> None:
        initiator, _ = self.socket.accept()
        acceptor = socket.create_connection(("127.0.0.1", self.real_port))
        for sock in (initiator, acceptor):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Three packets with flags or digests each way; after them it is bytes.
        self.handshake(initiator, acceptor, "from_initiator", b"N")
        self.handshake(acceptor, initiator, "from_acceptor", b"s")
        self.handshake(acceptor, initiator, "from_acceptor", b"N")
        self.spawn(self.copy, initiator, acceptor, "from_initiator")
        self.spawn(self.copy, acceptor, initiator, "from_acceptor")

    def handshake(self, a: socket.socket, b: socket.socket, way: str, tag: bytes) -> None:
        body = receive_exactly(a, struct.unpack(">H", receive_exactly(a, 2))[0])
        if body[:1] != tag:
            raise ValueError(f"{body[:1]!r} instead of {tag!r}")
        if tag == b"N":
            flags = struct.unpack(">Q", body[1:9])[0] & ~self.without
            body = tag + struct.pack(">Q", flags) + body[9:]
        data = struct.pack(">H", len(body)) + body
        self.taken[way] += data
        b.sendall(data)

    def copy(self, a: socket.socket, b: socket.socket, way: str) -> None:
        try:
            while data := a.recv(65536):
                self.taken[way] += data
                b.sendall(data)
        except OSError:
            pass
        for sock in (a, b):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def join(self) -> None:
        for thread in self.threads:
            thread.join(20)


def environment(otp: pathlib.Path | None, mapper_port: int) -> dict[str, str]:
    env = dict(os.environ, ERL_EPMD_PORT=str(mapper_port))
    if otp:
        programs = next(otp.glob("erts-*/bin"))
        env |= {"ERL_ROOTDIR": str(otp), "PATH": f"{programs}:{env['PATH']}"}
    return env


def erl(name: str, beams: str, env: dict[str, str], code: str) -> subprocess.Popen[bytes]:
    command = ["erl", "-boot", "start_clean", "-noshell", "-start_epmd", "false"]
    command += ["-hidden", "-name", f"{name}@127.0.0.1", "-setcookie", COOKIE, "-pa", beams]
    return subprocess.Popen([*command, "-eval", code], env=env, stdin=subprocess.DEVNULL)


def record(rows: int, without: int, otp: pathlib.Path | None, beams: str) -> dict[str, bytes]:
    mapper = PortMapper()
    proxy = Proxy(without)
    mapper.proxy_port = proxy.port
    env = environment(otp, mapper.port)
    peer = erl("second", beams, env, "receive after infinity -> ok end.")
    try:
        proxy.start(mapper.wait_for(b"second"))
        code = f"ok = dist_talk:talk('second@127.0.0.1', {rows}), halt(0)."
        first = erl("first", beams, env, code)
        try:
            if first.wait(60) != 0:
                raise RuntimeError("the talk failed")
        finally:
            first.kill()
        proxy.join()
    finally:
        peer.kill()
        peer.wait()
    return {way: bytes(data) for way, data in proxy.taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--otp", type=pathlib.Path)
    parser.add_argument("--to", type=pathlib.Path, default=HERE)
    parser.add_argument("--cases", nargs="*", default=[case[0] for case in CASES])
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as beams:
        subprocess.run(["erlc", "-o", beams, str(HERE / "dist_talk.erl")], check=True)
        for case, rows, without in CASES:
            if case not in options.cases:
                continue
            for way, data in record(rows, without, options.otp, beams).items():
                lines.append(f"{case}_{way}\t{data.hex()}\n")
                print(f"{case}_{way}: {len(data)} bytes", file=sys.stderr)
    (options.to / f"dist_{options.name}.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
