"""Builds router._core: all of csrc and one Cython module, linked into one extension.

Switches for work on router itself, read from the environment:

    ROUTER_DEBUG=1          no optimisation, RT_ASSERT (RT_DEBUG), Cython's own checks
    ROUTER_SANITIZE=...     address,undefined or thread
    ROUTER_COVERAGE=1       counters for gcov
    ROUTER_WERROR=1         a warning in csrc is an error

    ROUTER_NO_LTO=1         each file optimised alone: a tenth slower, and linked at once

and one for who packs it:

    ROUTER_NO_URING=1       without io_uring, though liburing is here
"""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SUPPORTED = "router supports CPython 3.11, 3.12 and 3.13, with the GIL, on 64-bit Linux"


def refuse_where_it_cannot_work() -> None:
    """Stops with one sentence, before a compiler can turn a wrong guess into a crash."""
    found = None
    if not sys.platform.startswith("linux"):
        found = f"the platform {sys.platform}"
    elif sys.implementation.name != "cpython":
        found = f"the interpreter {platform.python_implementation()}"
    elif not (3, 11) <= sys.version_info[:2] <= (3, 13):
        found = f"Python {platform.python_version()}"
    elif sysconfig.get_config_var("Py_GIL_DISABLED"):
        found = f"a free-threaded build of Python {platform.python_version()}"
    elif sys.maxsize < 2**32:
        found = "a 32-bit interpreter"
    if found:
        sys.exit(f"{SUPPORTED}; this is {found}.")


def switched_on(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


# What csrc/net/poller_uring.c needs, as a part of a shared object.
USES_LIBURING = """
#include <liburing.h>
int uses_it(struct io_uring *r, struct io_uring_sqe *e, struct io_uring_params *p);
int uses_it(struct io_uring *r, struct io_uring_sqe *e, struct io_uring_params *p) {
    p->flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    io_uring_prep_cancel64(e, 1, 0);
    io_uring_sqe_set_data64(e, 1);
    return io_uring_queue_init_params(1, r, p) + io_uring_submit_and_wait_timeout(r, 0, 1, 0, 0);
}
"""


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def first_that_links(source: str, name: str, choices: list[list[str]]) -> list[str]:
    """The first of these arguments with which the compiler makes a shared object that has this
    name in it; or none. (Without its plugin a linker finds nothing in what is yet to be
    optimised, and is content.)
    """
    strict = ["-Werror=implicit-function-declaration", "-Wl,-z,defs"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "uses.c").write_text(source)
        made = Path(folder, "uses.so")
        for choice in choices:
            for step in (["-c", "uses.c"], ["-shared", "uses.o", "-o", "uses.so"]):
                call = [*compiler(), "-fPIC", *strict, *step, *choice]
                try:
                    done = subprocess.run(call, cwd=folder, capture_output=True)
                except OSError:  # no compiler: the build will say so
                    return []
                if done.returncode != 0:
                    break
            else:
                if name.encode() in made.read_bytes():
                    return choice
    return []


def liburing() -> list[str]:
    """What the linker is told to find it; nothing where it is not, or is older than 2.3.

    The static library where there is one: then no machine that router is copied to needs it.
    """
    static = ["-l:liburing.a", "-Wl,--exclude-libs,liburing.a"]
    if switched_on("ROUTER_NO_URING"):
        return []
    return first_that_links(USES_LIBURING, "uses_it", [static, ["-luring"]])


def link_time_optimisation() -> list[str]:
    """What lets the compiler see all files at once; nothing where it cannot.

    A message passes some forty short functions of a dozen files: see docs/measurements.md.
    """
    if switched_on("ROUTER_NO_LTO") or DEBUG or SANITIZE or COVERAGE:
        return []
    source = "int uses_it(void);\nint uses_it(void) { return 0; }\n"
    return first_that_links(source, "uses_it", [["-flto=auto"]])


def fingerprint() -> str:
    """Of the compiler and what it and the linker are told: what others have made does not fit."""
    names = ("CFLAGS", "CPPFLAGS", "LDFLAGS", "LDSHARED")
    told = [*compiler(), *COMPILE, *LINK, *URING, *(os.environ.get(name, "") for name in names)]
    found = hashlib.sha256(repr(told).encode())
    try:
        version, library = (
            subprocess.run([*compiler(), asked], capture_output=True).stdout
            for asked in ("--version", "-print-file-name=liburing.a")
        )
    except OSError:  # no compiler: the build will say so
        return "none"
    found.update(version)
    static = Path(os.fsdecode(library.strip()))
    if URING and static.is_file():
        found.update(static.read_bytes())
    return found.hexdigest()[:8]


if __name__ == "__main__":
    refuse_where_it_cannot_work()

DEBUG = switched_on("ROUTER_DEBUG")
SANITIZE = os.environ.get("ROUTER_SANITIZE", "")
COVERAGE = switched_on("ROUTER_COVERAGE")
URING = liburing()
LTO = link_time_optimisation()

# Python's own flags come first on the command line, so these have the last word.
COMPILE = ["-std=gnu11", "-fvisibility=hidden", "-pthread"]
COMPILE += ["-O0", "-g", "-DRT_DEBUG", "-UNDEBUG"] if DEBUG else ["-O2"]
COMPILE += ["-DRT_HAVE_LIBURING"] if URING else []
COMPILE += LTO
LINK = ["-pthread", *LTO]
if LTO:  # across files GCC 12 does not see that the length of a name was looked at
    LINK += ["-Wno-stringop-overflow"]
if SANITIZE:
    COMPILE += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
    COMPILE += ["-g"]
    LINK += [f"-fsanitize={SANITIZE}"]
if COVERAGE:
    COMPILE += ["--coverage"]
    LINK += ["--coverage"]

# For csrc alone: what Cython writes is not ours to tidy.
WARNINGS = ["-Wall", "-Wextra"] + (["-Werror"] if switched_on("ROUTER_WERROR") else [])

VARIANT = "-".join(
    [sys.implementation.cache_tag or "python"]
    + (["debug"] if DEBUG else [])
    + ([SANITIZE.replace(",", "+")] if SANITIZE else [])
    + (["coverage"] if COVERAGE else [])
    + (["uring"] if URING else [])
    + (["lto"] if LTO else [])
    + [fingerprint()]
)

C_FILES = sorted(glob("csrc/**/*.c", root_dir=ROOT, recursive=True))
CYTHON_FILES = ["router/_core.pyx", "router/_core.pxd", *sorted(glob("router/*.pxi"))]
HEADERS = ["setup.py", *sorted(glob("csrc/**/*.h", root_dir=ROOT, recursive=True))]
CORE = Extension(
    "router._core",
    sources=["router/_core.pyx", *C_FILES],
    include_dirs=["csrc"],
    libraries=["z"],
    extra_compile_args=COMPILE,
    extra_link_args=[*LINK, *URING],
)


# Contents, not times: a checkout of an older commit or a restored file is a change too.
def digest(paths: list[str]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(f"{path} {os.path.getsize(path)} ".encode())
        found.update(Path(path).read_bytes())
    return found.hexdigest()


def was_made_from(made: str, paths: list[str]) -> bool:
    record = Path(f"{made}.from")
    return record.is_file() and record.read_text() == digest(paths)


def made_from(made: str, paths: list[str]) -> None:
    Path(f"{made}.from").write_text(digest(paths))


class BuildCore(build_ext):
    """Translates the Cython module, then compiles what changed on all processors."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Each set of switches has its own objects, and they survive an editable install.
        self.build_temp = os.path.join("build", f"core-{VARIANT}")
        self.force = True  # freshness is judged file by file below, by what is in them

    def build_extension(self, ext: Extension) -> None:
        from Cython.Build import cythonize

        translation = os.path.join(self.build_temp, "translation")
        checks = {"boundscheck": DEBUG, "wraparound": DEBUG, "initializedcheck": DEBUG}
        (translated,) = cythonize(
            [Extension(ext.name, ["router/_core.pyx"])],
            build_dir=self.build_temp,
            compiler_directives={"language_level": 3, **checks},
            quiet=True,
            force=not was_made_from(translation, CYTHON_FILES),
        )
        made_from(translation, CYTHON_FILES)
        ext.sources = [*translated.sources, *C_FILES]
        self.add_warnings_to_csrc()
        self.compile_what_changed()
        self.link_what_changed()
        super().build_extension(ext)

    def add_warnings_to_csrc(self) -> None:
        compile_one = self.compiler._compile

        def compile_with_warnings(obj, src, ext, cc_args, postargs, pp_opts):
            if Path(src).parts[0] == "csrc":
                postargs = [*postargs, *WARNINGS]
            compile_one(obj, src, ext, cc_args, postargs, pp_opts)

        self.compiler._compile = compile_with_warnings

    def compile_what_changed(self) -> None:
        compile_all = self.compiler.compile

        def compile_one(source: str, **options) -> list[str]:
            (obj,) = self.compiler.object_filenames([source], output_dir=options["output_dir"])
            if os.path.exists(obj) and was_made_from(obj, [source, *HEADERS]):
                return [obj]
            Path(f"{obj}.from").unlink(missing_ok=True)  # of another, if this is broken off
            compile_all([source], **options)
            made_from(obj, [source, *HEADERS])
            return [obj]

        def compile_parallel(sources: list[str], **options) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = pool.map(lambda source: compile_one(source, **options), sources)
                return [obj for objects in found for obj in objects]

        self.compiler.compile = compile_parallel

    def link_what_changed(self) -> None:
        link = self.compiler.link_shared_object

        def link_if_changed(objects: list[str], made: str, *args, **options) -> None:
            # With optimisation of the whole this is where the time goes.
            record = Path(self.build_temp, "linked")
            objects_are = digest(objects)
            if os.path.exists(made) and record.is_file():
                if record.read_text() == objects_are + digest([made]):
                    return
            link(objects, made, *args, **options)
            if b"PyInit__core" not in Path(made).read_bytes():
                os.unlink(made)
                sys.exit("the linker has left everything out: is it another compiler's? make clean")
            record.write_text(objects_are + digest([made]))

        self.compiler.link_shared_object = link_if_changed


if __name__ == "__main__":
    setup(ext_modules=[CORE], cmdclass={"build_ext": BuildCore})
