from __future__ import annotations

import pytest

from headgate.errors import SettingsError
from headgate.redis.settings import Credentials, RedisSettings, RedisType
from headgate.redis.url import read_redis_url


def expected(*addresses: tuple[str, int], **settings: object) -> RedisSettings:
    return RedisSettings(addresses=addresses, connect_seconds=1.0, **settings)


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("redis://cache", expected(("cache", 6379))),
        ("redis://cache:7000/3", expected(("cache", 7000), database=3)),
        ("redis://[::1]:7000", expected(("::1", 7000))),
        ("redis://[::1]", expected(("::1", 6379))),
        ("rediss://:s%40crt@cache", expected(("cache", 6379), tls=True, credentials=Credentials(password="s@crt"))),
        ("redis://me:it@cache", expected(("cache", 6379), credentials=Credentials(username="me", password="it"))),
        ("unix:///run/redis.sock", RedisSettings(addresses=(), socket_path="/run/redis.sock")),
        (
            "redis+sentinel://a,b:7000/main/2",
            expected(("a", 26379), ("b", 7000), type=RedisType.SENTINEL, master="main", database=2),
        ),
        ("rediss+cluster://a,b:7000", expected(("a", 6379), ("b", 7000), type=RedisType.CLUSTER, tls=True)),
    ],
)
def test_every_form_says_where_redis_is(url: str, settings: RedisSettings) -> None:
    assert read_redis_url(url) == settings


@pytest.mark.parametrize(
    "url",
    ["", "cache:6379", "http://cache", "redis://", "unix://", "redis://cache:x", "redis://cache/a", "redis://cache/1/2",
     "redis+sentinel://a:1", "redis+cluster://a:1/1", "redis+ring://a", "redis://cache:70000"],
)  # fmt: skip
def test_what_is_no_such_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="redis_url"):
        read_redis_url(url)


def test_a_refusal_does_not_repeat_the_password() -> None:
    with pytest.raises(SettingsError) as refused:
        read_redis_url("http://me:secret@cache")

    assert "secret" not in str(refused.value)
