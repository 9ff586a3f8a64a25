"""The policy in force: loaded at start, swapped as a whole when the file changes, kept when the new file is wrong."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from watchfiles import awatch

from headgate.errors import PolicyError, Problem
from headgate.logs import FIELDS
from headgate.policy.load import load_policy
from headgate.policy.model import Policy

LOOK_MILLISECONDS = 5_000
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
        self._digest: bytes | None = hashlib.sha256(text).digest()
        self._policy = load_policy(text, str(path))

    def on_change(self, listener: Callable[[Policy], None]) -> None:
        """Call `listener` with every policy that comes into force, beginning with the present one."""
        self._on_change.append(listener)
        listener(self._policy)

    def on_refused(self, listener: Callable[[PolicyError], None]) -> None:
        """Call `listener` for every new file that is wrong, and when there is none any more."""
        self._on_refused.append(listener)

    def current(self) -> Policy:
        """The policy in force."""
        return self._policy

    async def reload(self) -> None:
        """Read the file again if its content is new; a wrong one is reported and changes nothing."""
        try:
            text = await asyncio.to_thread(self._path.read_bytes)
        except OSError as error:
            problem = Problem(str(self._path), 0, "", f"cannot be read: {error.strerror}")
            if self._is_new(None):
                self._refuse(PolicyError([problem]))
            return
        if not self._is_new(hashlib.sha256(text).digest()):
            return
        try:
            # A large file takes seconds to load; requests do not wait for it.
            policy = await asyncio.to_thread(load_policy, text, str(self._path))
        except PolicyError as error:
            self._refuse(error)
            return
        self._enforce(policy)

    async def watch(self, stop: asyncio.Event) -> None:
        """Reload on every change until `stop` is set.

        Watches the folder, not the file: editors replace files and Kubernetes swaps a link beside them. What sends no
        events (a network mount, a folder that is itself a swapped link) is seen by a look now and then.
        """
        folders = {self._path.resolve().parent, self._path.parent}
        try:
            async for _ in awatch(
                *folders,
                watch_filter=None,
                stop_event=stop,
                rust_timeout=LOOK_MILLISECONDS,
                yield_on_timeout=True,
                recursive=False,
            ):
                await self.reload()
        except OSError as error:
            _log.error("the policy file cannot be watched: no reload", extra={FIELDS: {"error": str(error)}})

    def _is_new(self, digest: bytes | None) -> bool:
        """Whether the content differs from what was seen last; None stands for no content."""
        is_new = digest != self._digest
        self._digest = digest
        return is_new

    def _refuse(self, error: PolicyError) -> None:
        problems = [str(problem) for problem in error.problems]
        _log.error("the new policy is refused; the old one stays", extra={FIELDS: {"problems": problems}})
        for listener in self._on_refused:
            listener(error)

    def _enforce(self, policy: Policy) -> None:
        self._policy = policy
        _log.info("a new policy is in force", extra={FIELDS: {"policy_version": policy.version}})
        for listener in self._on_change:
            listener(policy)
