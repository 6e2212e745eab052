"""What csrc/README.md promises about csrc, as far as a machine can read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
FILES = sorted([*CSRC.rglob("*.c"), *CSRC.rglob("*.h")])
LINES_MAX = 700

# Which folders a file of each folder may include, besides its own.
ROWS: dict[str, set[str]] = {
    "base": set(),
    "term": {"base"},
    "dist": {"base", "term"},
    "sync": {"base"},
    "proc": {"base", "sync"},
    "net": {"base", "dist", "sync"},
    "route": {"base", "term", "dist", "proc"},
    "stream": {"base", "sync", "net"},
    "node": {"base", "term", "dist", "sync", "proc", "net", "route", "stream"},
    "python": {"base", "term"},
}

# System headers that belong to some folders only.
HOMES: dict[str, set[str]] = {
    "Python.h": {"python"},
    "zlib.h": {"term"},
    "sys/socket.h": {"net"},
    "sys/epoll.h": {"net"},
    "liburing.h": {"net"},
    "sys/un.h": {"net"},
    "netdb.h": {"net"},
    "netinet/in.h": {"net"},
    "netinet/tcp.h": {"net"},
    "arpa/inet.h": {"net"},
    "poll.h": {"net", "sync", "node"},
    # Pure state machines: no syscalls, threads or clocks.
    "pthread.h": set(ROWS) - {"term", "dist", "route"},
    "time.h": set(ROWS) - {"term", "dist", "route"},
    "unistd.h": set(ROWS) - {"term", "dist", "route"},
}
SANS_IO = {"term", "dist"}

# A word followed by "(", and the one file that may use it.
FORBIDDEN: dict[str, str] = {
    **dict.fromkeys(["malloc", "calloc", "realloc", "aligned_alloc", "free"], "base/alloc.c"),
    **dict.fromkeys(["posix_memalign", "strdup", "strndup", "asprintf"], "base/alloc.c"),
    **dict.fromkeys(["strcpy", "strcat", "sprintf", "vsprintf", "gets", "strtok"], ""),
    **dict.fromkeys(["alloca", "setjmp", "longjmp", "rand", "srand", "atoi", "scanf"], ""),
    **dict.fromkeys(["abort", "exit", "_exit"], "base/assert.c"),
}

ATOMIC = re.compile(
    r"\batomic_(?:load|store|exchange|compare_exchange_(?:weak|strong)|fetch_\w+?|"
    r"flag_(?:test_and_set|clear))\s*\("
)
OTHER_ATOMICS = re.compile(r"\b__(?:sync|atomic)_\w+\s*\(")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)
NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def code(text: str) -> str:
    """The text without comments, strings and characters; lines keep their numbers."""
    return NOISE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


Rule = Callable[[str, str], Iterator[str]]


def own_includes_follow_the_table(name: str, text: str) -> Iterator[str]:
    folder = name.split("/")[0]
    for found in INCLUDE.finditer(text):
        kind, target = found.groups()
        if kind != '"':
            continue
        where, _, rest = target.partition("/")
        if not rest and (name == "router.h" or target == "router.h"):
            yield f"{line_of(text, found.start())}: {target} is for Cython alone"
        elif not target.endswith(".h"):
            yield f"{line_of(text, found.start())}: includes {target}, which is no header"
        elif name == "router.h":
            if where not in ROWS:
                yield f"{line_of(text, found.start())}: {target} is in no folder of the table"
        elif where != folder and where not in ROWS.get(folder, set()):
            yield f"{line_of(text, found.start())}: {folder} may not include {target}"


def system_includes_stay_home(name: str, text: str) -> Iterator[str]:
    folder = name.split("/")[0]
    for found in INCLUDE.finditer(text):
        kind, target = found.groups()
        if kind == "<" and folder not in HOMES.get(target, {folder}):
            yield f"{line_of(text, found.start())}: {folder} may not include <{target}>"
        if folder in SANS_IO and (target == "base/clock.h" or target.startswith("sys/")):
            if target != "sys/types.h":
                yield f"{line_of(text, found.start())}: {folder} knows no system: {target}"


def no_forbidden_call(name: str, text: str) -> Iterator[str]:
    clean = code(text)
    for word, home in FORBIDDEN.items():
        if name == home:
            continue
        for found in re.finditer(rf"(?<![\w.>]){word}\s*\(", clean):
            yield f"{line_of(clean, found.start())}: calls {word}"


def every_atomic_operation_names_its_order(name: str, text: str) -> Iterator[str]:
    clean = code(text)
    for pattern in (ATOMIC, OTHER_ATOMICS):
        for found in pattern.finditer(clean):
            if not found[0].rstrip("( \t").endswith("_explicit"):
                yield f"{line_of(clean, found.start())}: {found[0].strip()} names no order"


def not_too_long(name: str, text: str) -> Iterator[str]:
    lines = text.count("\n")
    if lines > LINES_MAX:
        yield f"{lines} lines, at most {LINES_MAX}"


def headers_say_their_purpose(name: str, text: str) -> Iterator[str]:
    if name.endswith(".h") and not text.startswith("/* Purpose:"):
        yield "1: a header opens with /* Purpose: ..."


RULES: list[Rule] = [
    own_includes_follow_the_table,
    system_includes_stay_home,
    no_forbidden_call,
    every_atomic_operation_names_its_order,
    not_too_long,
    headers_say_their_purpose,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_csrc(rule: Rule) -> None:
    assert FILES
    broken = [
        f"csrc/{name}:{what}"
        for name, text in ((f.relative_to(CSRC).as_posix(), f.read_text()) for f in FILES)
        for what in rule(name, text)
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_every_folder_has_its_row() -> None:
    folders = {path.name for path in CSRC.iterdir() if path.is_dir()}
    assert folders <= set(ROWS)
    assert {path.name for path in CSRC.iterdir() if path.is_file()} <= {"README.md", "router.h"}


def test_the_table_has_no_circle() -> None:
    order = list(ROWS)
    for folder, row in ROWS.items():
        assert all(order.index(other) < order.index(folder) for other in row)


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (own_includes_follow_the_table, "proc/pid.c", '#include "dist/frame.h"\n'),
        (own_includes_follow_the_table, "base/buf.c", '# include "term/tags.h"\n'),
        (own_includes_follow_the_table, "net/conn.c", '#include "net/poller.c"\n'),
        (own_includes_follow_the_table, "node/engine.c", '#include "router.h"\n'),
        (own_includes_follow_the_table, "node/engine.c", '#include "python/codec.h"\n'),
        (system_includes_stay_home, "node/engine.c", "#include <Python.h>\n"),
        (system_includes_stay_home, "route/relay.c", "#include <sys/socket.h>\n"),
        (system_includes_stay_home, "dist/frame.c", "#include <time.h>\n"),
        (system_includes_stay_home, "dist/frame.c", '#include "base/clock.h"\n'),
        (no_forbidden_call, "net/conn.c", "void f(void) { char *p = malloc (3); }\n"),
        (no_forbidden_call, "net/conn.c", "void f(void) {\n    strcpy(a, b);\n}\n"),
        (every_atomic_operation_names_its_order, "sync/mpsc.c", "int n = atomic_load(&x);\n"),
        (every_atomic_operation_names_its_order, "sync/mpsc.c", "atomic_fetch_add(&x, 1);\n"),
        (every_atomic_operation_names_its_order, "sync/mpsc.c", "__sync_synchronize();\n"),
        (every_atomic_operation_names_its_order, "sync/mpsc.c", "__atomic_load_n(&x, 0);\n"),
        (not_too_long, "base/buf.c", "\n" * (LINES_MAX + 1)),
        (headers_say_their_purpose, "base/buf.h", "#ifndef RT_BASE_BUF_H\n"),
    ],
)
def test_the_rule_sees_a_breach(rule: Rule, name: str, text: str) -> None:
    assert list(rule(name, text))


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (own_includes_follow_the_table, "node/engine.c", '#include "route/relay.h"\n'),
        (own_includes_follow_the_table, "router.h", '#include "node/node.h"\n'),
        (system_includes_stay_home, "net/conn.c", "#include <sys/socket.h>\n"),
        (no_forbidden_call, "base/alloc.c", "void *f(void) { return malloc(1); }\n"),
        (no_forbidden_call, "net/conn.c", '/* malloc(1) */ const char *s = "free(p)";\n'),
        (no_forbidden_call, "net/conn.c", "rt_malloc(1); c->free(c); snprintf(b, 1, s);\n"),
        (every_atomic_operation_names_its_order, "sync/a.c", "atomic_load_explicit(&x, o);\n"),
        (every_atomic_operation_names_its_order, "sync/a.c", "atomic_thread_fence(o);\n"),
    ],
)
def test_the_rule_lets_pass(rule: Rule, name: str, text: str) -> None:
    assert not list(rule(name, text))
