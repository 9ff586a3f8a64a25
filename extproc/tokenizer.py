"""Exact token counts by a model's own `tokenizer.json`, off the event loop. Needs the extra `tokenizers`.

A count that cannot be had (no file, a broken one, too long a text) is None: the estimate stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from headgate.logs import FIELDS

MAX_TEXT_CHARACTERS = 2 * 1024 * 1024
"""Beyond it counting takes longer than what it decides is worth."""
_MAX_WAITING = 16
_QUOTE = b'"'
_log = logging.getLogger("headgate.tokenizer")

Texts = Sequence[str | msgspec.Raw]
CountTexts = Callable[[str, Texts, Callable[[int | None], None]], None]
"""Path of a `tokenizer.json`, texts (plain, or as JSON), and who is told: at once or later, on the event loop."""


def count_nothing(path: str, texts: Texts, answer: Callable[[int | None], None]) -> None:
    """Where there is no tokenizer: every estimate stands."""
    del path, texts
    answer(None)


class Tokenizers:
    """Counts one text after the other in a thread of its own; when too many wait, says so at once."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")
        self._waiting = 0

    def count(self, path: str, texts: Texts, answer: Callable[[int | None], None]) -> None:
        """Call `answer` on the event loop with the tokens of all texts together, or with None."""
        if self._waiting >= _MAX_WAITING or sum(map(len, texts)) > MAX_TEXT_CHARACTERS:
            answer(None)
            return
        self._waiting += 1
        counting = asyncio.get_running_loop().run_in_executor(self._thread, _count, path, texts)
        counting.add_done_callback(lambda done: self._counted(done.result(), answer))

    async def start(self) -> str:
        """Nothing to do; the thread starts with the first text."""
        return ""

    async def stop(self) -> None:
        """Count no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _counted(self, tokens: int | None, answer: Callable[[int | None], None]) -> None:
        self._waiting -= 1
        answer(tokens)


def _count(path: str, texts: Texts) -> int | None:
    try:
        tokenizer = _load(path, Path(path).stat().st_mtime_ns)
        # The batch call lets other threads run; `encode` would hold them up.
        encodings = tokenizer.encode_batch_fast(plain_texts(texts), add_special_tokens=False) if tokenizer else None
    except OSError as error:
        _log.error("a tokenizer cannot be read; estimates stand", extra={FIELDS: {"path": path, "why": error.strerror}})
    except Exception:  # noqa: BLE001  (the outermost frame of a count; the request waits for an answer)
        _log.exception("a prompt could not be counted; its estimate stands")
    else:
        return sum(len(encoding) for encoding in encodings) if encodings is not None else None
    return None


def plain_texts(texts: Texts) -> list[str]:
    """Texts as a tokenizer takes them: JSON strings unescaped, other JSON as it stands."""
    return [text if isinstance(text, str) else _plain(bytes(text)) for text in texts]


def _plain(raw: bytes) -> str:
    return str(msgspec.json.decode(raw)) if raw.startswith(_QUOTE) else raw.decode("utf-8", "replace")


@lru_cache(maxsize=64)
def _load(path: str, modified_ns: int) -> Any | None:
    """The tokenizer of a file as modified then; one that cannot be used is told of once."""
    del modified_ns
    try:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(path)
    except Exception:  # noqa: BLE001  (the library raises plain Exception for a file it cannot use)
        _log.exception("a tokenizer cannot be used; estimates stand", extra={FIELDS: {"path": path}})
        return None
