"""Triton from PyPI in an environment of its own: installs it once, says how to start it, sweeps up after it.

Its own environment because its Python backend answers wrongly with numpy 2. Starts no server and knows no readiness.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import secrets
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headgate.errors import HeadgateError
from headgate_cli.libpython import Progress, provide_libpython

# Change it when the steps of `_build` change, so that environments built by older ones are built anew.
_RECIPE = "1"
_OLDEST_GLIBC = (2, 35)
_PYTHONS = ((3, 9), (3, 12))
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (where POSIX shared memory lives on Linux)
_SHM_PREFIX = "headgate_"
# Either would send Triton's Python to another interpreter's packages; Python takes an empty one for none.
_NOT_INHERITED = {"PYTHONHOME": "", "PYTHONPATH": ""}


class TritonEnvironmentError(HeadgateError):
    """Raised when Triton cannot be installed here, with the reason and what would help."""


@dataclass(frozen=True, slots=True)
class TritonEnvironment:
    """A directory with Triton in it. Several processes may call `ensure` at once: one installs, the others wait."""

    root: Path

    def ensure(self, requirements: Path, progress: Progress) -> None:
        """Install Triton unless it is there already; safe to call again after being killed half-way.

        Args:
            requirements: a pip requirements file with hashes: nvidia-pytriton and numpy, nothing else is installed.
            progress: called with one line of text at a time while something slow goes on.

        Raises:
            TritonEnvironmentError: this machine or Python is not supported, or the installation failed.
            LibpythonError: the shared library of this Python is missing and cannot be fetched.
        """
        check_supported(_glibc(), sys.version_info[:2])
        key = _key(requirements)
        if self._is_built(key):
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with _exclusive(self.root / "lock", progress):
            if not self._is_built(key):
                self._build(requirements, progress)
                _write_whole(self._marker, key)

    def command(
        self,
        models: Path,
        *,
        http_port: int,
        grpc_port: int,
        metrics_port: int,
        shm_prefix: str,
        exit_timeout_seconds: int = 5,
    ) -> list[str]:
        """The command line of a server on loopback that serves every model in the repository `models`.

        A model that fails to load does not end the server; `shm_prefix` is one `new_shm_prefix()` for each run. Told to
        end, the server drops what is not over after `exit_timeout_seconds`, and exits with 1.
        """
        return [
            str(self._triton / "bin" / "tritonserver"),
            f"--model-repository={models}",
            f"--backend-directory={self._triton / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix or new_shm_prefix()}",
            "--model-control-mode=explicit",
            "--load-model=*",
            "--exit-on-error=false",
            f"--exit-timeout-secs={exit_timeout_seconds}",
            "--http-address=127.0.0.1",
            f"--http-port={http_port}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={grpc_port}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={metrics_port}",
            "--metrics-interval-ms=200",
            "--allow-gpu-metrics=false",
            "--pinned-memory-pool-byte-size=0",
            "--log-format=ISO8601",
        ]

    def environ(self) -> dict[str, str]:
        """The environment variables to start it with: this process's own, with its Python and libpython first."""
        environ = {**os.environ, **_NOT_INHERITED}
        environ["PATH"] = os.pathsep.join([str(self._venv / "bin"), environ.get("PATH", os.defpath)])
        library_path = [str(self._libraries), environ.get("LD_LIBRARY_PATH", "")]
        environ["LD_LIBRARY_PATH"] = os.pathsep.join(place for place in library_path if place)
        return environ

    @property
    def _venv(self) -> Path:
        return self.root.absolute() / "venv"

    @property
    def _libraries(self) -> Path:
        return self.root.absolute() / "lib"

    @property
    def _marker(self) -> Path:
        return self.root / "installed"

    @property
    def _triton(self) -> Path:
        return self._venv / "lib" / f"python{_version()}" / "site-packages" / "pytriton" / "tritonserver"

    @property
    def _stub(self) -> Path:
        return self._triton / "backends" / "python" / "triton_python_backend_stub"

    def _is_built(self, key: str) -> bool:
        return self._marker.is_file() and self._marker.read_text() == key and self._stub.is_file()

    def _build(self, requirements: Path, progress: Progress) -> None:
        self._marker.unlink(missing_ok=True)
        for leftover in (self._venv, self._libraries):
            shutil.rmtree(leftover, ignore_errors=True)
        progress(f"creating Triton's environment in {self._venv}")
        _run([sys.executable, "-m", "venv", str(self._venv)], progress)
        progress("installing Triton from PyPI (about 75 MB, once)")
        _run([str(self._venv / "bin" / "python"), *_pip_install(requirements)], progress)
        shutil.copy2(self._triton / "python_backend_stubs" / _version() / "triton_python_backend_stub", self._stub)
        self._stub.chmod(0o755)
        provide_libpython(self._stub, self._libraries, progress)
        progress("Triton is installed")


def check_supported(glibc: tuple[int, int] | None, python: tuple[int, int]) -> None:
    """Raise TritonEnvironmentError when Triton's wheel cannot work with this C library (None: not glibc) or Python."""
    if glibc is None or glibc < _OLDEST_GLIBC:
        found = "another C library" if glibc is None else f"glibc {_dotted(glibc)}"
        raise TritonEnvironmentError(
            f"Triton's wheel needs Linux with glibc {_dotted(_OLDEST_GLIBC)} or newer (Debian 12, Ubuntu 22.04,"
            f" RHEL 10); this machine has {found}"
        )
    if not _PYTHONS[0] <= python <= _PYTHONS[1]:
        raise TritonEnvironmentError(
            f"Triton's Python backend needs numpy 1, which exists for Python {_dotted(_PYTHONS[0])} to"
            f" {_dotted(_PYTHONS[1])}; this is Python {_dotted(python)}"
        )


def new_shm_prefix() -> str:
    """A name for one run's shared memory, so that what a killed server leaves can be told from a living one's."""
    return f"{_SHM_PREFIX}{os.getpid()}_{secrets.token_hex(4)}_"


def remove_shared_memory(shm_prefix: str) -> int:
    """Remove what the run with this prefix left behind; call it when the server is gone. Returns how many."""
    if not shm_prefix.startswith(_SHM_PREFIX):
        raise ValueError(f"not a prefix of new_shm_prefix(): {shm_prefix!r}")
    leftovers = list(_SHARED_MEMORY.glob(f"{shm_prefix}*"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def _version() -> str:
    return _dotted(sys.version_info[:2])


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(number) for number in version)


def _glibc() -> tuple[int, int] | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):  # musl knows no such name
        return None
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if name == "glibc" else None


def _key(requirements: Path) -> str:
    parts = (_RECIPE, platform.python_version(), sys.base_prefix, requirements.read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _pip_install(requirements: Path) -> list[str]:
    quiet = ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    exact = ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    return ["-m", "pip", "install", *quiet, *exact, "-r", str(requirements)]


def _run(command: Sequence[str], progress: Progress) -> None:
    environ = {**os.environ, **_NOT_INHERITED}
    last_lines: deque[str] = deque(maxlen=8)
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout or ():
                last_lines.append(line.rstrip())
                progress(line.rstrip())
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise TritonEnvironmentError(f"`{' '.join(command)}` failed:\n" + "\n".join(last_lines))


@contextmanager
def _exclusive(lock: Path, progress: Progress) -> Iterator[None]:
    # The kernel drops the lock when its holder dies, so a killed installation never blocks the next one.
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is installing Triton")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
