"""The stand-in's batcher: who runs, who waits, and what a full cache does."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_in.batcher import Batcher, Limits, RequestRefused
from stand_in.generation import Generation


def batcher(**changes):
    limits = {"slots": 2, "prefill_tokens_per_iteration": 10, "max_input_tokens": 100, "kv_cache_blocks": 50}
    return Batcher(Limits(**limits | changes))


def request(prompt_tokens=4, max_output_tokens=3):
    return Generation(prompt_tokens=prompt_tokens, max_output_tokens=max_output_tokens, words=count(1), end_id=-1)


def submit(engine, *generations):
    for generation in generations:
        engine.submit(generation)
    engine.admit()
    return generations


def step(engine):
    stepped = engine.advance()
    engine.admit()
    return stepped


def test_every_running_request_gets_one_token_an_iteration():
    engine = batcher()
    first, second = submit(engine, request(), request())
    assert step(engine) == [first, second]
    assert step(engine) == [first, second]
    assert first.output == second.output == [1, 2]


def test_beyond_the_slots_requests_wait_and_take_over_in_order():
    engine = batcher()
    first, second, third, fourth = submit(engine, request(), request(), request(), request())
    assert (engine.snapshot().active, engine.snapshot().waiting) == (2, 2)
    for _ in range(3):
        assert step(engine) == [first, second]
    assert step(engine) == [third, fourth]


def test_a_finished_request_leaves_its_slot_and_its_blocks():
    engine = batcher()
    submit(engine, request(prompt_tokens=30, max_output_tokens=34))
    assert engine.snapshot().used_blocks == 2
    while not engine.is_idle:
        step(engine)
    assert (engine.snapshot().active, engine.snapshot().used_blocks) == (0, 0)


def test_a_prompt_is_read_over_several_iterations_in_order_of_arrival():
    engine = batcher()
    long, short = submit(engine, request(prompt_tokens=25), request(prompt_tokens=5))
    assert step(engine) == []
    assert step(engine) == []
    assert (engine.snapshot().context, engine.snapshot().context_tokens) == (2, 10)
    assert step(engine) == [long, short]
    assert engine.snapshot().generation == 2


def test_a_long_prompt_does_not_stop_those_that_already_write():
    engine = batcher()
    (writing,) = submit(engine, request(max_output_tokens=9))
    step(engine)
    submit(engine, request(prompt_tokens=100))
    assert step(engine) == [writing]
    assert step(engine) == [writing]


def test_a_request_waits_until_the_cache_has_room_for_its_last_token():
    engine = batcher(kv_cache_blocks=3)
    submit(engine, request(prompt_tokens=32, max_output_tokens=33), request(prompt_tokens=1, max_output_tokens=1))
    assert (engine.snapshot().active, engine.snapshot().waiting, engine.snapshot().used_blocks) == (1, 1, 3)


def test_a_request_can_be_taken_out_of_its_slot_and_out_of_the_line():
    engine = batcher(slots=1)
    running, waiting, last = submit(engine, request(), request(), request())
    engine.remove(waiting)
    engine.remove(running)
    engine.admit()
    assert engine.generations() == [last]


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (request(max_output_tokens=0), "must be greater than 0, got 0"),
        (request(prompt_tokens=0), "must not be empty"),
        (request(prompt_tokens=101), "exceeds maximum input length"),
        (request(max_output_tokens=1600), "51 KV cache blocks, there are 50"),
    ],
)
def test_what_can_never_run_is_refused_at_once(refused, reason):
    engine = batcher()
    with pytest.raises(RequestRefused, match=reason):
        engine.submit(refused)
    assert engine.is_idle


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 60), st.integers(0, 30)), max_size=20),
    st.integers(1, 4),
    st.integers(5, 12),
)
def test_slots_and_cache_are_never_exceeded_and_everyone_is_served(arrivals, slots, blocks):
    engine = batcher(slots=slots, kv_cache_blocks=blocks)
    pending = [(iteration, request(prompt, output)) for prompt, output, iteration in arrivals]
    iteration = 0
    while pending or not engine.is_idle:
        for _, generation in [entry for entry in pending if entry[0] <= iteration]:
            engine.submit(generation)
        late = [entry for entry in pending if entry[0] > iteration]
        pending, iteration = late, iteration + 1
        engine.admit()
        snapshot = engine.snapshot()
        assert snapshot.active <= slots
        assert snapshot.used_blocks <= blocks
        engine.advance()
        assert iteration < 10_000
    assert engine.snapshot().used_blocks == 0
