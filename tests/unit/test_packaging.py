"""What a user gets: the source archive, the wheel, the metadata, and a refusal where it must be."""

from __future__ import annotations

import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_SOURCE = shutil.ignore_patterns("*.so", "*.o", "__pycache__", "*.egg-info")


def run(*command: object, cwd: Path, **env: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LD_PRELOAD")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a fresh clone has it: nothing built."""
    tree = tmp_path_factory.mktemp("checkout") / "router"
    tree.mkdir()
    for folder in ("csrc", "router"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=NOT_SOURCE)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, tree)
    return tree


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", out, cwd=checkout)
    (archive,) = out.iterdir()
    return archive


def in_sdist(archive: Path) -> set[str]:
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


def test_the_sdist_holds_all_that_a_build_needs(sdist: Path, checkout: Path) -> None:
    assert sdist.name == f"router_beam-{importlib.metadata.version('router-beam')}.tar.gz"
    held = in_sdist(sdist)
    for folder, kinds in (("csrc", "ch"), ("router", ("py", "pyx", "pxd", "pxi", "pyi", "typed"))):
        for path in (checkout / folder).rglob("*.*"):
            if path.suffix[1:] in kinds:
                assert path.relative_to(checkout).as_posix() in held
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", "csrc/README.md"} <= held


def test_the_sdist_holds_nothing_built(sdist: Path) -> None:
    built = re.compile(r"\.(so|o|py[cod])$|^build/|^\.venv/|router/_core\.c$")
    assert not [name for name in in_sdist(sdist) if built.search(name)]


def test_there_is_one_version() -> None:
    import router

    assert importlib.metadata.version("router-beam") == router.__version__
    assert PROJECT["dynamic"] == ["version"]
    assert not re.search(r"\d+\.\d+\.\d+", (ROOT / "setup.py").read_text())


def test_the_metadata_is_whole() -> None:
    meta = importlib.metadata.metadata("router-beam")
    assert meta["License-Expression"] == "Apache-2.0"
    assert meta["Requires-Python"].split(",") in (["<3.14", ">=3.11"], [">=3.11", "<3.14"])
    assert {"cli", "bench", "dev"} <= set(meta.get_all("Provides-Extra") or [])
    needs = importlib.metadata.requires("router-beam") or []
    assert [need for need in needs if "extra ==" not in need] == ["numpy>=1.26"]
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="router")
    assert command.value == "router.__main__:main"


def test_nobody_is_told_to_install_another_project() -> None:
    """The name router on the index is not ours."""
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "router").glob("*.py*")]
    for path in texts:
        wrong = re.search(r"pip3? install[^\n`]*[ \"']router(?![-\w./])", path.read_text())
        assert not wrong, f"{path}: {wrong[0]}"


REFUSED = {
    "macOS": ("sys.platform = 'darwin'", "the platform darwin"),
    "PyPy": ("sys.implementation.name = 'pypy'", "the interpreter"),
    "3.10": ("sys.version_info = (3, 10, 0)", "Python 3"),
    "3.14": ("sys.version_info = (3, 14, 0)", "Python 3"),
    "free-threaded": (
        "import sysconfig; sysconfig.get_config_var = lambda name: name == 'Py_GIL_DISABLED'",
        "a free-threaded build",
    ),
    "32-bit": ("sys.maxsize = 2**31 - 1", "a 32-bit interpreter"),
}


@pytest.mark.parametrize("where", REFUSED)
def test_it_is_refused_where_it_cannot_work(where: str, tmp_path: Path) -> None:
    pretend, found = REFUSED[where]
    done = subprocess.run(
        [
            *[sys.executable, "-c"],
            "import sys, runpy, setuptools.command.build_ext\n"
            f"{pretend}\n"
            f"sys.argv = ['setup.py', 'build', '--build-base', {str(tmp_path)!r}]\n"
            f"runpy.run_path({str(ROOT / 'setup.py')!r}, run_name='__main__')\n",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("router supports CPython 3.11, 3.12 and 3.13")
    assert f"; this is {found}" in last
    assert not list(tmp_path.iterdir())


USES = """
import router, sys
assert router.etf.decode(router.etf.encode([1, b"two", {3: 4.0}])) == [1, b"two", {3: 4.0}]
assert "site-packages" in router.__file__, router.__file__
print(router.__version__)
"""


def fresh_venv(folder: Path) -> Path:
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["checkout", "sdist"])
def test_pip_install_in_a_fresh_venv(
    source: str, request: pytest.FixtureRequest, real_home: str, tmp_path: Path
) -> None:
    python = fresh_venv(tmp_path / "venv")
    where = request.getfixturevalue(source)
    run(python, "-m", "pip", "install", "-q", where, cwd=tmp_path)
    version = run(python, "-c", USES, cwd=tmp_path).strip()
    assert version == importlib.metadata.version("router-beam")
    # The command needs an extra, and says which.
    done = subprocess.run(
        [python.with_name("router"), "names"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "router-beam[cli]" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_source_of_another_time_is_compiled_again(checkout: Path, tmp_path: Path) -> None:
    """An older commit's file is older than its object, which then was kept."""
    tree = shutil.copytree(checkout, tmp_path / "tree")
    variant = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["VARIANT"]
    objects = f"core-{variant}"
    shutil.copytree(ROOT / "build" / objects, tree / "build" / objects, dirs_exist_ok=True)
    source = tree / "csrc/base/err.c"
    obj, other = (tree / f"build/{objects}/csrc/base/{name}.o" for name in ("err", "buf"))
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]

    def times() -> tuple[int, int]:
        run(*build, cwd=tree)
        return obj.stat().st_mtime_ns, other.stat().st_mtime_ns

    before = times()
    source.write_text(source.read_text() + "/* as it was once */\n")
    os.utime(source, (1e9, 1e9))
    after = times()
    assert after[0] > before[0] and after[1] == before[1]
    assert times() == after


def test_what_is_built_otherwise_has_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of another compiler, or with other arguments, may not fit the ones that are there."""

    def variant() -> str:
        found: str = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["VARIANT"]
        return found

    usual = variant()
    assert variant() == usual
    monkeypatch.setenv("LDFLAGS", "-Wl,-O1")
    linked = variant()
    monkeypatch.delenv("LDFLAGS")
    monkeypatch.setenv("CC", f"{sysconfig.get_config_var('CC') or 'cc'} -pipe")
    assert len({usual, linked, variant()}) == 3


def test_the_wheel_holds_the_package_alone(checkout: Path, real_home: str, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, cwd=checkout)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert "router/py.typed" in held
    assert [name for name in held if re.fullmatch(r"router/_core\.cpython-3\d+-.*\.so", name)]
    assert "router/cli/demo_peer.erl" in held  # what `router demo` starts
    strangers = [n for n in held if not re.fullmatch(r"router/[\w/]+\.(py|pyi|erl|typed|.*so)", n)]
    assert not strangers
