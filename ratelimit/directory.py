"""The directory of configuration files: read as a whole, again whenever its content changes, last good one kept.

Kubernetes mounts a ConfigMap as links into hidden directories that are swapped; hidden names are therefore not
followed, so that nothing is read twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from watchfiles import awatch

from headgate.errors import PolicyError
from headgate.logs import FIELDS
from ratelimit.config import load_configuration
from ratelimit.matching import Configuration

SUFFIXES = (".yaml", ".yml")
_LOOK_MILLISECONDS = 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which files count.

    Attributes:
        prefix: what a file's path, written with dots in place of slashes, begins with.
        ignore_dot_files: whether names that begin with a dot are passed over.
        merge_domains: several files may add to the same domain.
    """

    prefix: str = ""
    ignore_dot_files: bool = True
    merge_domains: bool = False


def read_files(directory: Path, selection: Selection) -> list[tuple[str, bytes]]:
    """Pairs of dotted name and contents, in the order of names.

    Raises:
        OSError: the directory or a file in it cannot be read.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory")
    found = {name: path for name, path in _walk(directory, "", selection) if name.startswith(selection.prefix)}
    unread = sorted(name for name, path in found.items() if path.suffix not in SUFFIXES)
    if unread:
        _log.warning("files that do not end in .yaml or .yml are not read", extra={FIELDS: {"files": unread}})
    return [(name, path.read_bytes()) for name, path in sorted(found.items()) if name not in unread]


def _walk(directory: Path, above: str, selection: Selection) -> Iterator[tuple[str, Path]]:
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if selection.ignore_dot_files and entry.name.startswith("."):
            continue
        if entry.is_dir():
            # A link to a directory above would never end.
            if not directory.resolve().is_relative_to(Path(entry.path).resolve()):
                yield from _walk(Path(entry.path), f"{above}{entry.name}.", selection)
        else:
            yield f"{above}{entry.name}", Path(entry.path)


class ConfigurationDirectory:
    """Watches one directory.

    Args:
        adopt: called with every configuration that comes into force.
        on_load: called with True for a directory that was read, False for one that is refused.
    """

    def __init__(
        self,
        directory: Path,
        selection: Selection,
        adopt: Callable[[Configuration], None],
        on_load: Callable[[bool], None],
    ) -> None:
        self._directory = directory
        self._selection = selection
        self._adopt = adopt
        self._on_load = on_load
        self._digest = b""
        self._unreadable = ""
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def reload(self) -> None:
        """Read the directory again if its content is new; a wrong one is reported and changes nothing."""
        try:
            files = read_files(self._directory, self._selection)
        except OSError as error:
            self._cannot_read(error)
            return
        self._unreadable = ""
        digest = _digest(files)
        if digest == self._digest:
            return
        self._digest = digest
        try:
            configuration = load_configuration(files, merge_domains=self._selection.merge_domains)
        except PolicyError as error:
            problems = [str(problem) for problem in error.problems]
            _log.error(
                "the rate limit files are refused; what was in force stays", extra={FIELDS: {"problems": problems}}
            )
            self._on_load(False)
            return
        _log.info("new rate limits are in force", extra={FIELDS: {"domains": sorted(configuration.domains)}})
        self._on_load(True)
        self._adopt(configuration)

    async def start(self) -> str:
        """Read the directory and go on watching it."""
        self.reload()
        self._task = asyncio.create_task(self._watch())
        return str(self._directory)

    async def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()
        if self._task is not None:
            await self._task

    async def _watch(self) -> None:
        # What is watched are directories, not their names: when a link on the way here is swapped, or the directory
        # comes into being, only a look tells.
        while not self._stop.is_set():
            resolved = self._directory.resolve()
            watched = resolved if resolved.is_dir() else Path(__file__).parent
            async for _ in awatch(
                watched, stop_event=self._stop, rust_timeout=_LOOK_MILLISECONDS, yield_on_timeout=True, debounce=100
            ):
                self.reload()
                if self._directory.resolve() != resolved or watched != resolved:
                    break

    def _cannot_read(self, error: OSError) -> None:
        # Once, not every second.
        if str(error) != self._unreadable:
            self._unreadable = str(error)
            self._on_load(False)
            _log.error("the rate limit files cannot be read", extra={FIELDS: {"error": str(error)}})


def _digest(files: list[tuple[str, bytes]]) -> bytes:
    digest = hashlib.sha256()
    for name, text in files:
        digest.update(f"{len(name)}:{len(text)}:{name}".encode())
        digest.update(text)
    return digest.digest()
