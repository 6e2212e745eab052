"""What every test may count on: a private port mapper's port, a private home with a cookie, fixed
seeds, and real Erlang nodes for those that ask for them.

Fixtures for tests against real nodes (each makes its test `interop`):

`otp`           a release of Erlang/OTP; the test runs once for each that is installed
`erlang`        starts nodes of that release: ``node = erlang("shop")``
`peer`          one node of that release for the whole session, for tests that leave no trace in it
`epmd`          the session's real epmd, named by ERL_EPMD_PORT; `erlang` brings it along
`private_epmd`  an epmd of this test alone, to kill and restart; ask for it before nodes start
`no_epmd`       a free port in ERL_EPMD_PORT and nobody there, for the embedded port mapper
`elixir`        starts nodes by the elixir command
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import router._core
from interop.erlang import (
    ElixirNode,
    Epmd,
    ErlangNode,
    Nodes,
    Otp,
    elixir_installed,
    free_port,
    installed,
)

# A run in the background of a script ignores Ctrl-C, and so would the programs it starts:
# those that are to end by it could not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

COOKIE = "secret"
REAL_HOME = os.environ.get("HOME", "/")
IN_CI = os.environ.get("CI", "") not in ("", "0", "false")
LONG = os.environ.get("ROUTER_TEST_LONG", "") not in ("", "0")
INTEROP_FIXTURES = {"otp", "erlang", "peer", "epmd", "private_epmd", "elixir"}

settings.register_profile(
    "usual", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("long" if LONG else "usual")


# Who runs


def pytest_configure() -> None:
    """Under tools/sanitize every process must have the core that was built for it."""
    wanted = os.environ.get("ROUTER_CORE")
    if not wanted:
        return
    where = "import router._core; print(router._core.__file__)"
    started = subprocess.run(
        [sys.executable, "-c", where], capture_output=True, text=True, check=True
    ).stdout
    for found in (router._core.__file__, started.strip()):
        if not Path(found).is_relative_to(wanted):
            pytest.exit(f"not the core under test: {found} is not in {wanted}", returncode=3)


def pytest_report_header() -> list[str]:
    releases = ", ".join(f"OTP {otp.release} ({otp.root})" for otp in installed())
    # Elixir's own version costs a second to ask.
    elixir = "with Elixir" if elixir_installed() else "no Elixir"
    return [f"erlang: {releases or 'none'}; {elixir}", f"seeds: {'fresh' if LONG else 'fixed'}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        wanted = INTEROP_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if wanted:
            item.add_marker(pytest.mark.interop)
        if "elixir" in wanted:
            item.add_marker(pytest.mark.elixir)


MISSING = {
    "interop": "no Erlang here: install erlang-base",
    "elixir": "no Elixir here: install elixir",
    "io_uring": "no io_uring here: build where liburing-dev is, on a kernel that permits it",
}
URING = router._core.poller_missing(router._core.POLLERS["io_uring"])
KERNEL_REFUSES = URING is not None and URING[0] != 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, there in (
        ("interop", bool(installed())),
        ("elixir", elixir_installed()),
        ("io_uring", URING is None),
    ):
        if item.get_closest_marker(mark) and not there:
            if IN_CI and not (mark == "io_uring" and KERNEL_REFUSES):
                pytest.fail(f"{MISSING[mark]} (with CI=true this is a failure)", pytrace=False)
            pytest.skip(MISSING[mark])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for mark, reason in MISSING.items():
        skipped = [
            report
            for report in terminalreporter.stats.get("skipped", [])
            if reason in str(report.longrepr)
        ]
        if skipped:
            terminalreporter.write_sep("!", red=True, bold=True)
            terminalreporter.write_line(
                f"{len(skipped)} {mark} tests did NOT run, {reason}", red=True, bold=True
            )


# Where


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of the tests' own, holding a cookie that only its owner may read."""
    folder = tmp_path_factory.mktemp("home")
    cookie = folder / ".erlang.cookie"
    cookie.write_text(COOKIE)
    cookie.chmod(0o400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield folder


@pytest.fixture
def real_home(monkeypatch: pytest.MonkeyPatch) -> str:
    """The user's home again, for tools that keep their settings there."""
    monkeypatch.setenv("HOME", REAL_HOME)
    return REAL_HOME


@pytest.fixture(autouse=True)
def epmd_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """No test finds the machine's port mapper, or another test's: each has a port of its own."""
    port = free_port()
    monkeypatch.setenv("ERL_EPMD_PORT", str(port))
    return port


@pytest.fixture
def no_epmd(epmd_port: int) -> int:
    """The port that ERL_EPMD_PORT names; nobody listens there."""
    return epmd_port


@pytest.fixture(scope="session")
def session_epmd() -> Iterator[Epmd]:
    epmd = Epmd(installed()[0]).start()
    yield epmd
    epmd.kill()


@pytest.fixture
def epmd(session_epmd: Epmd, monkeypatch: pytest.MonkeyPatch, epmd_port: int) -> Epmd:
    monkeypatch.setenv("ERL_EPMD_PORT", str(session_epmd.port))
    return session_epmd


@pytest.fixture
def private_epmd(epmd_port: int) -> Iterator[Epmd]:
    epmd = Epmd(installed()[0], epmd_port).start()
    yield epmd
    epmd.kill()


# Real nodes


@pytest.fixture(scope="session", params=installed() or [None], ids=str)
def otp(request: pytest.FixtureRequest) -> Otp:
    release: Otp = request.param
    return release


@pytest.fixture(scope="session")
def node_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nodes")


def port_mapper(request: pytest.FixtureRequest) -> None:
    """The session's epmd, unless the test chose otherwise."""
    if not {"private_epmd", "no_epmd"}.intersection(request.fixturenames):
        request.getfixturevalue("epmd")
    elif "private_epmd" in request.fixturenames:
        request.getfixturevalue("private_epmd")


@pytest.fixture
def erlang(request: pytest.FixtureRequest, otp: Otp, node_logs: Path) -> Iterator[Nodes]:
    port_mapper(request)
    nodes = Nodes(otp, node_logs)
    yield nodes
    nodes.close()


@pytest.fixture
def elixir(request: pytest.FixtureRequest, node_logs: Path) -> Iterator[Nodes]:
    port_mapper(request)
    system = next(otp for otp in installed() if not otp.beside)
    nodes = Nodes(system, node_logs, ElixirNode)
    yield nodes
    nodes.close()


@pytest.fixture(scope="session")
def session_peer(otp: Otp, session_epmd: Epmd, node_logs: Path) -> Iterator[ErlangNode]:
    nodes = Nodes(otp, node_logs)
    yield nodes(f"peer{otp.release}", epmd_port=session_epmd.port)
    nodes.close()


@pytest.fixture
def peer(session_peer: ErlangNode, epmd: Epmd) -> ErlangNode:
    return session_peer
