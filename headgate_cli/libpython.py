"""Makes libpythonX.Y.so.1.0 loadable for Triton's Python stub, without root and without touching the system.

Owns a directory meant for LD_LIBRARY_PATH, which holds that library or nothing. Knows nothing else of Triton.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from headgate.errors import HeadgateError
from headgate_cli.debian import DebianError, unpack

Progress = Callable[[str], None]

# What the dynamic loader exits with when it cannot find a library.
_LOADER_FAILED = 127
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_SONAME = f"libpython{_VERSION}.so.1.0"
# Debian's libpython needs these two; a machine without its packages may lack them as well.
_DEBIAN_PACKAGES = (f"libpython{_VERSION}", "libexpat1", "zlib1g")


class LibpythonError(HeadgateError):
    """Raised when no libpython of this interpreter's version can be found or fetched."""


def provide_libpython(program: Path, directory: Path, progress: Progress) -> None:
    """See to it that `program` starts with `directory` on LD_LIBRARY_PATH.

    Tries, in this order: the system's own libraries, the running interpreter's, a Debian package.

    Raises:
        LibpythonError: none of them has it; the message says what would help.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if _starts(program, directory):
        return
    for library in _interpreter_libraries():
        _link(library, directory)
        if _starts(program, directory):
            return
    progress(f"fetching {_SONAME} from the Debian archive (nothing is installed into the system)")
    _fetch_debian_packages(directory)
    if not _starts(program, directory):
        raise LibpythonError(_advice("the Debian package did not help"))


def _starts(program: Path, directory: Path) -> bool:
    environ = {**os.environ, "LD_LIBRARY_PATH": str(directory)}
    outcome = subprocess.run([program], env=environ, capture_output=True, check=False)
    return outcome.returncode != _LOADER_FAILED


def _interpreter_libraries() -> Iterator[Path]:
    places = [sysconfig.get_config_var("LIBDIR") or "", f"{sys.base_prefix}/lib", f"{sys.base_prefix}/lib64"]
    for place in places:
        library = Path(place) / _SONAME
        if library.is_file():
            yield library


def _link(library: Path, directory: Path) -> None:
    # One link instead of the whole directory on LD_LIBRARY_PATH: a conda prefix would bring its own libstdc++ too.
    link = directory / _SONAME
    link.unlink(missing_ok=True)
    link.symlink_to(library)


def _fetch_debian_packages(directory: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="headgate-libpython-") as scratch:
        try:
            unpack(_DEBIAN_PACKAGES, Path(scratch), with_dependencies=False)
        except DebianError as error:
            raise LibpythonError(_advice(str(error))) from None
        for library in Path(scratch).rglob("*.so*"):
            target = directory / library.name
            target.unlink(missing_ok=True)
            shutil.copy2(library, target, follow_symlinks=False)


def _advice(cause: str) -> str:
    return (
        f"Triton's Python backend needs {_SONAME}, and {cause}. Install it (on Debian: apt-get install"
        f" libpython{_VERSION}) or run Headgate with a Python built with --enable-shared."
    )
