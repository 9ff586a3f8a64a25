"""The stand-in's engine on a clock the test moves. An iteration lasts 0.25 s, a number floats hold exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate_cli.trtllm_serve_standin.answer import Answer, FinishReason
from headgate_cli.trtllm_serve_standin.engine import Engine, EngineLimits
from headgate_cli.trtllm_serve_standin.prompt import Prompt
from headgate_cli.trtllm_serve_standin.sequence import Sequence


def engine(*, slots: int = 2, prefill: float = 1_000_000, kv_blocks: int = 1000, max_seq_len: int = 10_000) -> Engine:
    return Engine(
        EngineLimits(
            slots=slots,
            tokens_per_second=4,
            prefill_tokens_per_second=prefill,
            kv_blocks=kv_blocks,
            max_seq_len=max_seq_len,
        )
    )


def prompt(tokens: int = 1, *, text: str = "a") -> Prompt:
    return Prompt((text.encode() * tokens * 4)[: tokens * 4])


def answer(tokens: int) -> Answer:
    return Answer(("x",) * tokens, (0,) * tokens, FinishReason.LENGTH)


def produced(*sequences: Sequence) -> list[int]:
    return [sequence.produced_tokens for sequence in sequences]


def running_and_waiting(of: Engine) -> tuple[int, int]:
    stats = of.stats()
    return stats.num_active_requests, stats.num_queued_requests


def test_a_sequence_gets_one_token_at_the_end_of_every_iteration():
    it = engine()
    sequence = it.submit(prompt(), answer(3), now=10.0)

    assert it.advance(10.24) == []
    assert it.advance(10.25) == [sequence]
    assert produced(sequence) == [1]
    it.advance(10.5)
    it.advance(10.75)

    assert produced(sequence) == [3]
    assert (sequence.first_token_at, sequence.finished_at) == (10.25, 10.75)
    assert it.next_at is None


def test_a_long_prompt_delays_the_first_token_by_its_length_over_the_prefill_rate():
    it = engine(prefill=400)
    sequence = it.submit(prompt(250), answer(1), now=0.0)

    it.advance(10.0)

    assert sequence.first_token_at == 0.75


def test_prompts_share_one_prefill_budget_in_the_order_of_arrival():
    it = engine(slots=3, prefill=400)
    first, second, third = (it.submit(prompt(100, text=text), answer(1), now=0.0) for text in "abc")

    it.advance(10.0)

    assert [first.first_token_at, second.first_token_at, third.first_token_at] == [0.25, 0.5, 0.75]


def test_a_running_sequence_keeps_its_rate_while_another_prompt_is_computed():
    it = engine(prefill=400)
    running = it.submit(prompt(), answer(100), now=0.0)
    it.advance(0.25)
    it.submit(prompt(1000, text="b"), answer(1), now=0.25)

    it.advance(2.25)

    assert produced(running) == [9]


def test_a_late_call_runs_every_iteration_that_was_due():
    it = engine()
    sequence = it.submit(prompt(), answer(1000), now=0.0)

    for now in (0.3, 7.0, 7.01, 100.0):
        it.advance(now)

    assert produced(sequence) == [400]
    assert it.next_at == 100.25


def test_all_slots_are_used_and_no_more():
    it = engine(slots=2)
    sequences = [it.submit(prompt(), answer(10), now=0.0) for _ in range(5)]

    it.advance(0.25)

    assert produced(*sequences) == [1, 1, 0, 0, 0]
    assert running_and_waiting(it) == (2, 3)


def test_the_queue_is_first_in_first_out():
    it = engine(slots=1)
    sequences = [it.submit(prompt(), answer(2), now=0.0) for _ in range(3)]

    it.advance(100.0)

    assert [sequence.admitted_at for sequence in sequences] == [0.0, 0.5, 1.0]
    assert [sequence.finished_at for sequence in sequences] == [0.5, 1.0, 1.5]


def test_who_comes_during_an_iteration_takes_part_in_the_next():
    it = engine()
    it.submit(prompt(), answer(10), now=0.0)
    late = it.submit(prompt(), answer(1), now=0.2)

    it.advance(0.25)
    assert produced(late) == [0]
    it.advance(0.5)

    assert late.finished_at == 0.5


def test_an_aborted_sequence_gives_its_slot_to_the_next_in_the_queue_at_once():
    it = engine(slots=1)
    first = it.submit(prompt(), answer(100), now=0.0)
    second = it.submit(prompt(), answer(100), now=0.0)

    it.abort(first, now=0.1)

    assert second.admitted_at == 0.1
    assert running_and_waiting(it) == (1, 0)


def test_an_aborted_sequence_leaves_the_queue():
    it = engine(slots=1)
    it.submit(prompt(), answer(1), now=0.0)
    waiting = it.submit(prompt(), answer(1), now=0.0)

    it.abort(waiting, now=0.1)
    it.advance(10.0)

    assert produced(waiting) == [0]
    assert running_and_waiting(it) == (0, 0)


def test_aborting_a_finished_sequence_changes_nothing():
    it = engine(slots=1)
    finished = it.submit(prompt(), answer(1), now=0.0)
    other = it.submit(prompt(), answer(100), now=0.0)
    it.advance(0.25)

    it.abort(finished, now=0.3)
    it.abort(finished, now=0.3)

    assert running_and_waiting(it) == (1, 0)
    assert other.finished_at is None


def test_nothing_is_due_once_the_last_sequence_is_aborted():
    it = engine()
    sequence = it.submit(prompt(), answer(100), now=0.0)

    it.abort(sequence, now=0.1)

    assert it.next_at is None
    assert it.advance(100.0) == []


def test_arrivals_after_a_late_clock_are_not_admitted_before_they_came():
    it = engine(slots=1)
    it.submit(prompt(), answer(1), now=0.0)
    late = it.submit(prompt(), answer(1), now=5.0)

    assert late.admitted_at == 5.0
    assert [sequence.finished_at for sequence in it.advance(6.0)] == [0.25, 5.25]


def test_a_sequence_waits_while_the_cache_has_no_room_for_all_it_will_need():
    it = engine(slots=2, kv_blocks=4)
    big = it.submit(prompt(64), answer(4), now=0.0)
    small = it.submit(prompt(33, text="b"), answer(1), now=0.0)

    assert running_and_waiting(it) == (1, 1)
    it.advance(10.0)

    assert small.admitted_at == big.finished_at == 1.0


def test_cache_blocks_are_counted_as_they_fill_and_all_given_back():
    it = engine()
    it.submit(prompt(31), answer(3), now=0.0)

    used = []
    for now in (0.0, 0.25, 0.5, 0.75):
        it.advance(now)
        used.append(it.stats().kv_cache_stats.used_num_blocks)

    assert used == [1, 1, 2, 0]
    assert it.stats().kv_cache_stats.free_num_blocks == 1000


def test_a_prompt_seen_before_is_not_computed_again():
    it = engine(prefill=400)
    first = it.submit(prompt(1000), answer(1), now=0.0)
    it.advance(10.0)
    second = it.submit(prompt(1000), answer(1), now=10.0)
    it.advance(20.0)

    assert (first.cached_tokens, second.cached_tokens) == (0, 992)
    assert (first.first_token_at, second.first_token_at) == (2.5, 10.25)
    cache = it.stats().kv_cache_stats
    assert (cache.reused_blocks, cache.missed_blocks, cache.cache_hit_rate) == (31, 33, 31 / 64)


def test_only_the_common_beginning_of_two_prompts_is_reused():
    it = engine()
    it.submit(Prompt(prompt(64).content + prompt(64, text="b").content), answer(1), now=0.0)
    it.advance(1.0)

    other = it.submit(Prompt(prompt(64).content + prompt(64, text="c").content), answer(1), now=1.0)

    assert other.cached_tokens == 64


def test_a_sequence_that_can_never_run_is_refused():
    it = engine(kv_blocks=2)

    with pytest.raises(ValueError, match="65 tokens can never run here"):
        it.submit(prompt(60), answer(5), now=0.0)

    assert running_and_waiting(it) == (0, 0)


def test_draining_returns_each_iteration_once():
    it = engine()
    it.submit(prompt(5), answer(2), now=0.0)
    it.advance(1.0)

    first, second = it.drain_stats()

    assert (first.iter, second.iter) == (1, 2)
    assert (first.num_completed_requests, second.num_completed_requests) == (0, 1)
    assert first.inflight_batching_stats.num_context_requests == 1
    assert first.inflight_batching_stats.num_ctx_tokens == 5
    assert second.inflight_batching_stats.num_gen_requests == 1
    assert it.drain_stats() == []


def test_no_more_than_a_thousand_iterations_are_kept():
    it = engine()
    it.submit(prompt(), answer(1500), now=0.0)
    it.advance(1e6)

    kept = it.drain_stats()

    assert (len(kept), kept[-1].iter) == (1000, 1500)


@given(st.lists(st.floats(min_value=0, max_value=3), max_size=30))
def test_the_rate_does_not_depend_on_how_often_the_engine_is_asked(steps: list[float]):
    it = engine()
    sequence = it.submit(prompt(), answer(10_000 - 1), now=0.0)
    now = 0.0
    for step in steps:
        now += step
        it.advance(now)

    assert produced(sequence) == [int(now / 0.25)]


class EngineMachine(RuleBasedStateMachine):
    """Arrivals, departures and late clocks in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = engine(slots=3, prefill=40, kv_blocks=8)
        self.now = 0.0
        self.open: list[Sequence] = []
        self.finished: list[Sequence] = []

    @rule(prompt_tokens=st.integers(1, 100), answer_tokens=st.integers(1, 100), text=st.sampled_from("ab"))
    def submit(self, prompt_tokens: int, answer_tokens: int, text: str) -> None:
        asked = prompt(prompt_tokens, text=text)
        self.open.append(self.engine.submit(asked, answer(answer_tokens), self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.open))
        self.engine.abort(sequence, self.now)
        self.open.remove(sequence)

    @rule(step=st.floats(0, 20))
    def advance(self, step: float) -> None:
        self.now += step
        for sequence in self.engine.advance(self.now):
            if sequence in self.open and sequence.finished_at is not None:
                self.open.remove(sequence)
                self.finished.append(sequence)

    @invariant()
    def slots_and_blocks_are_never_exceeded(self) -> None:
        stats = self.engine.stats()
        assert stats.num_active_requests <= 3
        assert 0 <= stats.kv_cache_stats.used_num_blocks <= 8
        assert stats.num_active_requests + stats.num_queued_requests == len(self.open)
        assert (self.engine.next_at is None) == (not self.open)

    @invariant()
    def nobody_overtakes_in_the_queue(self) -> None:
        admissions = [sequence.admitted_at for sequence in self.open]
        admitted = [at for at in admissions if at is not None]
        assert admitted == sorted(admitted)
        assert all(at is None for at in admissions[len(admitted) :])

    def teardown(self) -> None:
        self.advance(100_000.0)
        assert self.open == []
        assert running_and_waiting(self.engine) == (0, 0)
        assert self.engine.stats().kv_cache_stats.used_num_blocks == 0
        assert all(sequence.produced_tokens == sequence.answer.tokens for sequence in self.finished)


TestEngineMachine = EngineMachine.TestCase
