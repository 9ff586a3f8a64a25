"""Which transport and which event loop a process gets."""

from __future__ import annotations

import asyncio
import sys

import grpc
import grpc.aio
import pytest

from headgate.errors import SettingsError
from headgate.lifecycle import Listener, Process
from headgate.settings import Settings, read_settings
from headgate.transport import Service
from headgate.transport.event_loop import new_event_loop, run


async def echo(message: bytes) -> bytes:
    return message


@pytest.mark.parametrize(
    ("transport", "of_its_own"), [("lean", "there is no method /test.Echo/Nothing"), ("grpcio", "Method not found!")]
)
async def test_the_setting_chooses_the_transport(transport: str, of_its_own: str) -> None:
    settings = read_settings({}, {"HEADGATE_TRANSPORT": transport})
    listener = Listener("test", "127.0.0.1:0", [Service(name="test.Echo", unary={"Echo": echo})])
    async with Process(settings)._serving(listener) as address, grpc.aio.insecure_channel(address) as channel:
        assert await channel.unary_unary("/test.Echo/Echo")(b"hi") == b"hi"
        assert await channel.unary_unary("/test.Echo/Nothing")(b"hi").details() == of_its_own


def test_another_transport_is_an_error() -> None:
    with pytest.raises(SettingsError, match="transport: has to be lean or grpcio, not 'quic'"):
        read_settings({"transport": "quic"}, {})


def test_the_default_is_our_own() -> None:
    assert read_settings({}, {}).transport == Settings().transport == "lean"


def test_a_program_runs_on_asyncio_where_uvloop_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())

    run(main())
    assert new_event_loop() is asyncio.new_event_loop
    assert type(loops[0]).__module__.startswith("asyncio.")
