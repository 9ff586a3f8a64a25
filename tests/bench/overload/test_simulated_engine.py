"""The arithmetic of the simulated engine, iteration by iteration."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.overload.simulated_engine import EngineShape, SimulatedEngine, SimulatedSequence, flush_points

# Round numbers: an iteration is 10 ms, 1 ms more per generating sequence, 1 ms more per prompt token.
SHAPE = EngineShape(
    slots=2,
    kv_tokens=1000,
    step_seconds=0.010,
    step_per_sequence_seconds=0.001,
    prefill_per_token_seconds=0.001,
    chunk_tokens=100,
)


def sequence(number: int = 0, prompt: int = 10, answer: int = 3, limit: int = 3, at: float = 0.0) -> SimulatedSequence:
    return SimulatedSequence(
        number=number,
        prompt_tokens=prompt,
        answer_tokens=answer,
        limit_tokens=limit,
        arrived_at=at,
        flushes=flush_points(answer),
    )


def test_the_first_token_comes_after_the_prefill_and_each_other_a_step_later() -> None:
    engine, asked = SimulatedEngine(SHAPE), sequence(prompt=10, answer=3)
    engine.submit(asked)
    assert engine.next_at == pytest.approx(0.020)
    engine.advance(0.0205)
    assert asked.first_token_at == pytest.approx(0.020)
    assert engine.next_at == pytest.approx(0.031)
    engine.advance(1.0)
    assert asked.ended_at == pytest.approx(0.042)
    assert engine.tokens_served == 3
    assert engine.next_at is None


def test_a_decode_step_takes_longer_the_more_sequences_generate() -> None:
    engine, first, second = SimulatedEngine(SHAPE), sequence(0, answer=50), sequence(1, answer=50)
    engine.submit(first)
    engine.submit(second)
    engine.advance(0.020)
    both_prefill_until = 0.020 + 0.010 + 0.001 + 0.010
    engine.advance(both_prefill_until)
    assert (first.produced_tokens, second.produced_tokens) == (2, 1)
    assert engine.next_at == pytest.approx(both_prefill_until + 0.012)


def test_a_long_prompt_is_computed_in_chunks_between_which_others_go_on() -> None:
    engine, talking, long = SimulatedEngine(SHAPE), sequence(0, answer=50), sequence(1, prompt=250, answer=1)
    engine.submit(talking)
    engine.advance(0.020)
    engine.submit(long)
    engine.advance(0.031)  # the iteration that was under way
    for chunk_tokens in (100, 100, 50):
        before, produced = engine.next_at, talking.produced_tokens
        assert before is not None
        engine.advance(before)
        assert talking.produced_tokens == produced + 1
        del chunk_tokens
    assert long.first_token_at == pytest.approx(0.031 + 3 * 0.011 + 0.250)


def test_who_finds_no_slot_waits_first_in_first_out() -> None:
    engine = SimulatedEngine(SHAPE)
    asked = [sequence(number, answer=2) for number in range(4)]
    for one in asked:
        engine.submit(one)
    assert (engine.running, engine.waiting) == (2, 2)
    engine.advance(10.0)
    admitted = [one.admitted_at for one in asked]
    assert admitted[:2] == [0.0, 0.0]
    assert admitted[2] == asked[0].ended_at
    assert engine.max_concurrency == 2


def test_a_prompt_that_does_not_fit_the_cache_waits_although_a_slot_is_free() -> None:
    engine, big, next_big = SimulatedEngine(SHAPE), sequence(0, prompt=600), sequence(1, prompt=600)
    engine.submit(big)
    engine.submit(next_big)
    assert (engine.running, engine.waiting) == (1, 1)
    engine.advance(10.0)
    assert next_big.admitted_at == big.ended_at


def test_the_cache_is_promised_for_the_output_limit_and_not_for_the_answer() -> None:
    engine = SimulatedEngine(SHAPE)
    engine.submit(sequence(0, prompt=10, answer=1, limit=900))
    engine.submit(sequence(1, prompt=10, answer=1, limit=900))
    assert (engine.running, engine.waiting) == (1, 1)


def test_what_can_never_fit_the_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="never fit"):
        SimulatedEngine(SHAPE).submit(sequence(prompt=2000))


def test_an_abort_frees_the_slot_at_once_for_the_next() -> None:
    engine = SimulatedEngine(SHAPE)
    gone, staying, waiting = (sequence(number, answer=100) for number in range(3))
    for one in (gone, staying, waiting):
        engine.submit(one)
    engine.advance(0.1)
    engine.abort(gone, 0.105)
    assert gone.ended_at == 0.105
    assert waiting.admitted_at == 0.105
    produced = gone.produced_tokens
    engine.advance(10.0)
    assert gone.produced_tokens == produced


def test_an_abort_of_one_that_waits_takes_it_out_of_the_queue() -> None:
    engine = SimulatedEngine(SHAPE)
    asked = [sequence(number) for number in range(3)]
    for one in asked:
        engine.submit(one)
    engine.abort(asked[2], 0.001)
    assert engine.waiting == 0
    engine.advance(10.0)
    assert asked[2].first_token_at is None


def test_a_finished_sequence_is_left_alone_by_an_abort() -> None:
    engine, asked = SimulatedEngine(SHAPE), sequence()
    engine.submit(asked)
    engine.advance(10.0)
    ended_at = asked.ended_at
    engine.abort(asked, 11.0)
    assert asked.ended_at == ended_at


def test_a_stream_is_written_at_the_first_token_the_last_and_evenly_between() -> None:
    assert flush_points(211) == (1, 70, 140, 211)
    assert flush_points(2) == (1, 2)
    assert flush_points(1) == (1,)


def test_each_flush_point_is_reported_once_and_in_order() -> None:
    engine, asked = SimulatedEngine(SHAPE), sequence(answer=9)
    engine.submit(asked)
    seen = []
    while engine.next_at is not None:
        seen += [one.produced_tokens for one in engine.advance(engine.next_at)]
    assert tuple(seen) == flush_points(9)


def test_an_idle_8b_replica_answers_256_tokens_as_fast_as_the_calibration_says() -> None:
    """60 to 120 ms to the first token and 10 to 15 ms between tokens; the queue before it is not counted here."""
    engine, asked = SimulatedEngine(EngineShape()), sequence(prompt=256, answer=101, limit=101)
    engine.submit(asked)
    engine.advance(60.0)
    assert asked.first_token_at is not None
    assert asked.ended_at is not None
    assert 0.040 <= asked.first_token_at <= 0.120
    assert 0.010 <= (asked.ended_at - asked.first_token_at) / 100 <= 0.015


Step = tuple[int, int, float, bool]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40), st.floats(0, 0.3), st.booleans()), max_size=30))
def test_slots_and_cache_are_never_exceeded_and_everybody_is_served_or_gone(steps: list[Step]) -> None:
    engine, now, asked = SimulatedEngine(SHAPE), 0.0, []
    for number, (prompt, answer, gap, is_leaving) in enumerate(steps):
        now += gap
        engine.advance(now)
        one = sequence(number, prompt=prompt, answer=answer, limit=answer, at=now)
        engine.submit(one)
        asked.append(one)
        assert engine.running <= SHAPE.slots
        if is_leaving:
            engine.abort(asked[number // 2], now)
    engine.advance(now + 1e6)
    assert (engine.running, engine.waiting, engine.next_at) == (0, 0, None)
    assert all(one.ended_at is not None for one in asked)
    assert engine.tokens_served == sum(one.produced_tokens for one in asked)
