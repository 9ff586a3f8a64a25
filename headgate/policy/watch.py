"""The policy in force: loaded at start, swapped as a whole when the file changes, kept when the new file is wrong."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from watchfiles import awatch

from headgate.errors import PolicyError
from headgate.logs import FIELDS
from headgate.policy.load import load_policy
from headgate.policy.model import Policy

_log = logging.getLogger("headgate.policy")


class PolicyFile:
    """One policy file on disk.

    Raises:
        PolicyError: the file is wrong at start.
        OSError: it cannot be read at start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._on_change: list[Callable[[Policy], None]] = []
        self._on_refused: list[Callable[[PolicyError], None]] = []
        text = path.read_bytes()
        self._digest = hashlib.sha256(text).digest()
        self._policy = load_policy(text, path.name)

    def on_change(self, listener: Callable[[Policy], None]) -> None:
        """Call `listener` with every policy that comes into force, beginning with the present one."""
        self._on_change.append(listener)
        listener(self._policy)

    def on_refused(self, listener: Callable[[PolicyError], None]) -> None:
        """Call `listener` for every new file that is wrong."""
        self._on_refused.append(listener)

    def current(self) -> Policy:
        """The policy in force."""
        return self._policy

    def reload(self) -> None:
        """Read the file again if its content is new; a wrong one is reported and changes nothing."""
        try:
            text = self._path.read_bytes()
        except OSError as error:
            _log.error("the policy file cannot be read; the old policy stays", extra={FIELDS: {"error": str(error)}})
            return
        digest = hashlib.sha256(text).digest()
        if digest == self._digest:
            return
        self._digest = digest
        try:
            self._policy = load_policy(text, self._path.name)
        except PolicyError as error:
            problems = [str(problem) for problem in error.problems]
            _log.error("the new policy is refused; the old one stays", extra={FIELDS: {"problems": problems}})
            for refused in self._on_refused:
                refused(error)
            return
        _log.info("a new policy is in force", extra={FIELDS: {"policy_version": self._policy.version}})
        for changed in self._on_change:
            changed(self._policy)

    async def watch(self, stop: asyncio.Event) -> None:
        """Reload on every change until `stop` is set.

        Watches the folder, not the file: editors replace files and Kubernetes swaps a link beside them.
        """
        async for _ in awatch(self._path.resolve().parent, self._path.parent, stop_event=stop, recursive=False):
            self.reload()
