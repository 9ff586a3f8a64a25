"""Who is at an address, on real sockets; and what says nothing about it."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterator

import pytest

from extproc.servers.page import NobodyThere, NoReading
from extproc.servers.presence import is_nobody_at, or_nobody
from extproc.servers.reading import Reading


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_whoever_listens_is_there_though_nothing_is_answered(listening: int, host: str) -> None:
    assert not await is_nobody_at(f"{host}:{listening}")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1"])
async def test_nobody_is_where_connections_are_refused(address: str) -> None:
    assert await is_nobody_at(address)


async def test_a_name_counts_as_somebody_as_long_as_one_of_its_addresses_answers(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve(monkeypatch, ("127.0.0.2", listening), ("127.0.0.1", listening))
    assert not await is_nobody_at("replicas:8000")

    _resolve(monkeypatch, ("127.0.0.2", listening), ("127.0.0.3", listening))
    assert await is_nobody_at("replicas:8000")


@pytest.mark.parametrize(("problem", "expected"), [(socket.EAI_NONAME, True), (socket.EAI_AGAIN, False)])
async def test_nobody_has_a_name_that_leads_nowhere_and_a_resolver_that_fails_says_nothing(
    monkeypatch: pytest.MonkeyPatch, problem: int, expected: bool
) -> None:
    def fail(*arguments: object, **named: object) -> object:
        raise socket.gaierror(problem, "not resolved")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    assert await is_nobody_at("replicas:8000") is expected


async def test_a_process_without_a_file_to_open_accuses_nobody() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = socket.socket()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (held.fileno(), limits[1]))
        with pytest.raises(OSError) as full:
            socket.socket()
        is_nobody = await is_nobody_at("127.0.0.1:1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        held.close()

    assert full.value.errno == errno.EMFILE
    assert not is_nobody


@pytest.mark.parametrize("is_listening", [True, False])
async def test_a_question_that_gets_an_answer_is_not_touched(listening: int, is_listening: bool) -> None:
    async def ask() -> Reading:
        return Reading(waiting=1)

    assert await or_nobody(f"127.0.0.1:{listening if is_listening else 1}", ask)() == Reading(waiting=1)


@pytest.mark.parametrize(("is_listening", "expected"), [(True, NoReading), (False, NobodyThere)])
async def test_a_question_without_an_answer_tells_whether_anybody_is_there(
    listening: int, is_listening: bool, expected: type[NoReading]
) -> None:
    async def ask() -> Reading:
        raise NoReading("no known series")

    with pytest.raises(NoReading, match="no known series") as raised:
        await or_nobody(f"127.0.0.1:{listening if is_listening else 1}", ask)()

    assert type(raised.value) is expected


def _resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **named: found)
