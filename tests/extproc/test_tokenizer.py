"""Exact counts by a tokenizer trained on the spot, from the event loop and off it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from extproc.tokenizer import MAX_TEXT_CHARACTERS, Tokenizers, plain_texts


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A byte-level BPE of 300 entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 20, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


@pytest.fixture
def tokenizers() -> Iterator[Tokenizers]:
    counting = Tokenizers()
    yield counting
    asyncio.run(counting.stop())


async def counted(tokenizers: Tokenizers, path: str, *texts: str) -> int | None:
    answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    tokenizers.count(path, texts, answer.set_result)
    return await asyncio.wait_for(answer, 30)


async def test_texts_are_counted_together(tokenizers: Tokenizers, file: str) -> None:
    expected = sum(len(Tokenizer.from_file(file).encode(text)) for text in ("the lazy dog", "übrigens"))

    assert await counted(tokenizers, file, "the lazy dog", "übrigens") == expected
    assert await counted(tokenizers, file) == 0


async def test_a_file_that_cannot_be_used_leaves_the_estimate_and_is_named_once(
    tokenizers: Tokenizers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")

    with caplog.at_level(logging.ERROR):
        assert await counted(tokenizers, str(broken), "text") is None
        assert await counted(tokenizers, str(broken), "text") is None
    assert [record.message for record in caplog.records] == ["a tokenizer cannot be used; estimates stand"]


async def test_a_file_that_has_been_mended_is_used(tokenizers: Tokenizers, file: str, tmp_path: Path) -> None:
    late = tmp_path / "tokenizer.json"
    assert await counted(tokenizers, str(late), "text") is None
    shutil.copyfile(file, late)

    assert await counted(tokenizers, str(late), "the lazy dog") == await counted(tokenizers, file, "the lazy dog")


async def test_a_text_too_long_is_not_counted(tokenizers: Tokenizers, file: str) -> None:
    assert await counted(tokenizers, file, "a" * MAX_TEXT_CHARACTERS, "a") is None


async def test_when_too_many_wait_the_next_is_told_at_once(tokenizers: Tokenizers, file: str) -> None:
    answers: list[int | None] = []
    all_answered = asyncio.Event()

    def answer(tokens: int | None) -> None:
        answers.append(tokens)
        if len(answers) == 20:
            all_answered.set()

    for _ in range(20):
        tokenizers.count(file, ["the quick brown fox " * 2000], answer)
    refused_at_once = list(answers)

    await asyncio.wait_for(all_answered.wait(), 60)
    assert refused_at_once == [None] * 4
    assert None not in answers[4:]


def test_texts_are_told_to_a_tokenizer_as_the_model_reads_them() -> None:
    texts = ("plain \\n", msgspec.Raw(b'"a \\u00fc\\n"'), msgspec.Raw(b'{"type": "object"}'))

    assert plain_texts(texts) == ["plain \\n", "a ü\n", '{"type": "object"}']
