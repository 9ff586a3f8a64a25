"""How big a text is, held against what the tokenizers of GPT-4 and GPT-4o make of it."""

from __future__ import annotations

import base64
import json
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.tokens import estimate_encoded_tokens, estimate_tokens

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=400)
BYTES = random.Random(7).randbytes(3000)
PROSE = (
    "The gateway reads every request before a model does. It asks who is calling, how long the prompt is, and which "
    "machine has room for it. When all machines are busy, a request may wait for a moment, run on a smaller model, or "
    "be sent away with a note that says when to come back. None of this is visible to the people who wrote the "
    "application; they only see that answers arrive on time, or that an honest refusal does. "
)
CODE = '''def release(self, lease: Lease, now: float) -> bool:
    """Give a lease back; False when it was given back before."""
    if self._leases.pop(lease.id, None) is None:
        return False
    self._count(lease.request, -1)
    return True
'''
CHINESE = "人工智能是计算机科学的一个分支。它企图了解智能的实质。并生产出一种新的机器。"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
RECORDS = [{"id": i, "name": f"user{i}", "active": bool(i % 2), "tags": ["a", "b"]} for i in range(40)]


def drawn_from(alphabet: str, length: int, *, word: int = 0) -> str:
    """Random characters, in words of this length if any."""
    draw = random.Random(7)
    text = "".join(draw.choice(alphabet) for _ in range(length))
    return " ".join(text[i : i + word] for i in range(0, length, word)) if word else text


# The larger count of cl100k and o200k, counted with rs-bpe 0.1.0.
TEXTS = {
    "prose": (PROSE * 4, 373),
    "a question": ("What is the capital of France, and why was it chosen over Lyon?", 15),
    "prose in capitals": (PROSE.upper(), 117),
    "prose without spaces": (PROSE.replace(" ", ""), 97),
    "code": (CODE * 3, 192),
    "json": (json.dumps(RECORDS, indent=2), 1602),
    "minified json": (json.dumps(RECORDS, separators=(",", ":")), 802),
    "minified numbers": (json.dumps(list(range(100, 900)), separators=(",", ":")), 1601),
    "base64": (base64.b64encode(BYTES).decode(), 2844),
    "base64 in lines": (base64.encodebytes(BYTES).decode(), 2902),
    "base64 in words": (" ".join(base64.b64encode(BYTES[i : i + 9]).decode() for i in range(0, 3000, 9)), 2955),
    "base64 after prose": (PROSE * 4 + base64.b64encode(BYTES).decode(), 3217),
    "base64 before spaces": (base64.b64encode(BYTES).decode() + " " * 400, 2848),
    "hex": (BYTES.hex(), 3362),
    "hex in words": (BYTES.hex(" ", 4), 4098),
    "digits": (drawn_from(string.digits, 4000), 1334),
    "random letters": (drawn_from(string.ascii_letters, 4000), 2663),
    "random lower-case letters": (drawn_from(string.ascii_lowercase, 4000), 2159),
    "random words": (drawn_from(string.ascii_lowercase, 4000, word=5), 2310),
    "random punctuation": (drawn_from(string.punctuation, 4000), 2653),
    "random ascii": (drawn_from(string.printable[:94] + " " * 20, 4000), 2805),
    "chinese": (CHINESE * 10, 410),
    "japanese": (JAPANESE * 10, 390),
    "rare chinese": ("".join(map(chr, range(0x4E00, 0x9FFF, 17))), 2927),
    "rare korean": ("".join(map(chr, range(0xAC00, 0xD7A3, 11))), 2637),
    "emoji": ("😀😃😄😁😆😅😂🤣😊😇🙂🙃😉😌😍" * 20, 640),
    "joined emoji": ("👩‍👩‍👧‍👦🏳️‍🌈👨🏽‍💻" * 20, 740),
    "rare emoji": ("".join(map(chr, range(0x1F300, 0x1FAFF))), 5981),
    "spaces": (" " * 32768, 256),
    "newlines": ("\n" * 4000, 250),
}
WHITE_SPACE = {"spaces", "newlines"}
PLAIN = {"prose", "a question", "code", "json"}
UNDER = 1.5
OVER = 2.0


def test_only_the_empty_text_has_no_tokens() -> None:
    assert estimate_tokens("") == 0


@settings(deadline=None)
@given(ANY_TEXT.filter(bool))
def test_any_other_text_has_some_and_never_more_than_its_bytes_and_one(text: str) -> None:
    assert 1 <= estimate_tokens(text) <= len(text.encode("utf-8", "surrogatepass")) + 1


@pytest.mark.parametrize("kind", TEXTS)
def test_the_estimate_is_never_too_low_by_more_than_half(kind: str) -> None:
    text, tokens = TEXTS[kind]

    assert tokens <= estimate_tokens(text) * UNDER


@pytest.mark.parametrize("kind", sorted(TEXTS.keys() - WHITE_SPACE))
def test_the_estimate_is_never_too_high_by_more_than_twice_but_for_white_space(kind: str) -> None:
    text, tokens = TEXTS[kind]

    assert estimate_tokens(text) <= tokens * OVER + 1


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_prose_and_code_are_estimated_to_a_fifth(kind: str) -> None:
    text, tokens = TEXTS[kind]

    assert 0.8 * tokens <= estimate_tokens(text) <= 1.2 * tokens


def test_letters_one_by_one_are_as_low_as_the_estimate_of_written_text_goes() -> None:
    letters = drawn_from(string.ascii_lowercase, 2000, word=1)

    # Every letter is a token, together with the space before it.
    assert estimate_tokens(letters) * 1.65 >= 2000


@settings(deadline=None)
@given(st.text(string.ascii_lowercase + " \n", min_size=1, max_size=200))
def test_no_text_is_estimated_below_a_token_per_four_and_a_half_bytes(text: str) -> None:
    # A tokenizer over bytes makes at most one token of each.
    assert len(text) <= estimate_tokens(text) * 4.5


@settings(deadline=None)
@given(ANY_TEXT, ANY_TEXT)
def test_texts_put_together_cost_what_they_cost_apart(one: str, other: str) -> None:
    apart, together = estimate_tokens(one) + estimate_tokens(other), estimate_tokens(one + other)

    assert apart - 1 <= together <= apart + 1


@settings(deadline=None)
@given(ANY_TEXT, ANY_TEXT)
def test_no_padding_makes_a_text_smaller(text: str, padding: str) -> None:
    assert estimate_tokens(text + padding) >= estimate_tokens(text)
    assert estimate_tokens(padding + text) >= estimate_tokens(text)


@pytest.mark.parametrize("length", [1, 3639, 3640, 3641, 7279, 7280, 7281, 20_000, 32 * 1024])
def test_every_byte_of_a_short_text_counts_at_its_price(length: int) -> None:
    assert estimate_tokens("j" * length) == length + 1
    assert estimate_tokens("e" * length) == length * 2 // 9 + 1
    assert estimate_tokens("j" + "e" * (length - 1)) == (18 + (length - 1) * 4) // 18 + 1


@given(st.lists(st.text('aQ7 "\\{', max_size=30), min_size=1, max_size=40))
def test_quotes_around_texts_weigh_nothing(texts: list[str]) -> None:
    encoded = [json.dumps(text).encode() for text in texts]
    plain = b"".join(text[1:-1] for text in encoded)

    assert estimate_encoded_tokens(b"".join(encoded), quotes=2 * len(texts)) == estimate_encoded_tokens(plain)


@pytest.mark.parametrize("length", [0, 1, 5, 100, 1000])
def test_many_short_texts_weigh_what_they_do_in_one_piece(length: int) -> None:
    text = json.dumps(("word " * 200)[:length]).encode()
    count = 400_000 // len(text)
    together = estimate_encoded_tokens(text[1:-1] * count)

    assert estimate_encoded_tokens(text * count, quotes=2 * count) == pytest.approx(together, rel=0.06)
