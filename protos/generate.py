"""Compiles every .proto beside this file into `headgate/pb/`; with `--check` only says what that would change.

Knows no message and no service; what the files mean is in README.md. One version of protoc gives the same bytes
everywhere, so the result is checked in and compared.
"""

from __future__ import annotations

import argparse
import sys
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc

SOURCES = Path(__file__).resolve().parent
ROOT = SOURCES.parent
# Relative to the root. It is also the directory that each descriptor and each import between files names.
PACKAGE = "headgate/pb"
GENERATED = ("*_pb2.py", "*_pb2.pyi")


class CompileError(Exception):
    """Raised when protoc refuses a .proto file; protoc has printed why."""


def generate(root: Path) -> None:
    """Write `headgate/pb/*_pb2.py` and `*_pb2.pyi` under `root`, and remove those that have no source any more.

    Raises:
        CompileError: a source does not compile. Nothing is removed.
    """
    package = root / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    names = sorted(source.name for source in SOURCES.glob("*.proto"))
    _compile(names, root)
    expected = {f"{name.removesuffix('.proto')}_pb2{suffix}" for name in names for suffix in (".py", ".pyi")}
    for leftover in _contents(package).keys() - expected:
        (package / leftover).unlink()


def stale(root: Path) -> list[str]:
    """The names of the files in `root`/headgate/pb that are missing, left over or not what the sources give."""
    with TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = _contents(Path(scratch) / PACKAGE)
    checked_in = _contents(root / PACKAGE)
    return sorted(name for name in fresh.keys() | checked_in.keys() if fresh.get(name) != checked_in.get(name))


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """The command line; returns the exit status, 1 when `--check` finds a difference or a source is wrong."""
    parser = argparse.ArgumentParser(description="Compile protos/*.proto into headgate/pb/.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if headgate/pb is not up to date")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            generate(root)
            return 0
        different = stale(root)
    except CompileError as error:
        print(error, file=sys.stderr)
        return 1
    for name in different:
        print(f"{PACKAGE}/{name} is not what protos/ gives: run `make protos`", file=sys.stderr)
    return 1 if different else 0


def _compile(names: list[str], root: Path) -> None:
    with as_file(files("grpc_tools") / "_proto") as well_known:
        status = protoc.main(
            [
                "protoc",
                # The sources appear under the package's own path: no two libraries can then claim one descriptor
                # name, and protoc writes imports that need no fixing.
                f"-I{PACKAGE}={SOURCES}",
                f"-I{well_known}",
                f"--python_out={root}",
                f"--pyi_out={root}",
                *(f"{PACKAGE}/{name}" for name in names),
            ]
        )
    if status != 0:
        raise CompileError(f"protoc failed with status {status}")


def _contents(package: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for pattern in GENERATED for path in package.glob(pattern)}


if __name__ == "__main__":
    sys.exit(main())
