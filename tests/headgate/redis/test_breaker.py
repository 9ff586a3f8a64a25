from headgate.redis.breaker import Breaker


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(now)
    return breaker


def test_it_opens_after_three_failures_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(2):
        breaker.failed(0.0)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(0.0)
    assert breaker.is_closed

    breaker.failed(0.0)

    assert not breaker.is_closed
    assert not breaker.admits(0.4)


def test_while_open_one_call_per_pause_finds_out() -> None:
    breaker = opened()

    assert [breaker.admits(now) for now in (0.49, 0.5, 0.5, 0.6)] == [False, True, False, False]


def test_every_further_failure_doubles_the_pause_up_to_five_seconds() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(6):
        started = now
        while not breaker.admits(now):
            now += 0.25
        pauses.append(now - started)
        breaker.failed(now)

    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_one_success_closes_it() -> None:
    breaker = opened()

    breaker.succeeded()

    assert breaker.is_closed
    assert breaker.admits(0.0)
