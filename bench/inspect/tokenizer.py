"""Real token counts: the vocabularies of GPT-4 (cl100k) and GPT-4o (o200k), compiled into the PyPI package rs-bpe."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from headgate.errors import HeadgateError
from headgate_cli.home import home

_REQUIREMENT = "rs-bpe==0.1.0"


class TokenizerMissing(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when the tokenizer cannot be installed."""


def real_counts() -> Callable[[str], dict[str, int]]:
    """A function from text to its tokens by vocabulary. Installs the tokenizer once, beside what `headgate up` has.

    Raises:
        TokenizerMissing: that failed.
    """
    folder = home() / _REQUIREMENT.replace("==", "-")
    if not folder.exists():
        _install(folder)
    sys.path.insert(0, str(folder))
    openai = importlib.import_module("rs_bpe.bpe").openai
    vocabularies = {"cl100k": openai.cl100k_base(), "o200k": openai.o200k_base()}
    return lambda text: {name: int(vocabulary.count(text)) for name, vocabulary in vocabularies.items()}


def _install(folder: Path) -> None:
    fetched = folder.with_suffix(".part")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, "--upgrade", "--target", str(fetched), _REQUIREMENT], check=False)
    if done.returncode:
        raise TokenizerMissing(f"{_REQUIREMENT} cannot be installed")
    fetched.rename(folder)
