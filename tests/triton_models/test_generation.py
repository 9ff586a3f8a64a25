"""One request in the stand-in's engine: what it writes and when it ends."""

from __future__ import annotations

from itertools import count, cycle, repeat

from stand_in.generation import Generation
from stand_in.story import story_for

END = -7


def generation(words, **changes):
    settings = {"prompt_tokens": 1, "max_output_tokens": 5, "words": iter(words), "end_id": END} | changes
    return Generation(**settings)


def written(generation):
    while not generation.is_finished:
        generation.write_token()
    return generation.output


def test_it_ends_at_the_limit():
    assert written(generation(count(1))) == [1, 2, 3, 4, 5]


def test_it_ends_at_the_end_id_without_writing_it():
    assert written(generation([1, 2, END, 3])) == [1, 2]


def test_it_ends_after_a_stop_word():
    assert written(generation(count(1), stop_words=((9,), (2, 3)))) == [1, 2, 3]


def test_the_parts_of_a_stop_word_must_stand_side_by_side():
    assert written(generation(count(1), stop_words=((1, 3),))) == [1, 2, 3, 4, 5]


def test_a_bad_word_is_skipped():
    assert written(generation(count(1), bad_words=((2,), (4,)))) == [1, 3, 5, 6, 7]


def test_of_a_longer_bad_word_only_the_last_token_is_skipped():
    assert written(generation(count(1), bad_words=((1, 2),))) == [1, 3, 4, 5, 6]


def test_it_ends_when_every_word_is_banned():
    assert written(generation(cycle([1, 2]), bad_words=((1,), (2,)))) == []
    assert written(generation(repeat(3), bad_words=((3, 3),))) == [3]


def test_the_story_depends_on_prompt_and_seed_only():
    def opening(prompt, seed):
        story = story_for(prompt, seed)
        return [next(story) for _ in range(12)]

    assert opening([1, 2], 0) == opening([1, 2], 0)
    assert opening([1, 2], 0) != opening([1, 2], 1)
    assert len({tuple(opening([-1, prompt], 0)) for prompt in range(50)}) > 3
