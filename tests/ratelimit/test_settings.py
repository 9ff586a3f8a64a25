import pytest

from headgate.errors import SettingsError
from headgate.policy.model import OnStoreFailure
from headgate.redis.settings import Credentials, RedisType
from ratelimit.durations import parse_bool, parse_duration
from ratelimit.serving_settings import TlsFiles
from ratelimit.settings import Backend, RatelimitSettings, read_ratelimit_settings
from ratelimit.statsd_settings import StatsdProtocol, StatsdSettings, TagStyle
from ratelimit.xds_settings import XdsSettings, XdsTls


def read(**variables: str) -> RatelimitSettings:
    return read_ratelimit_settings(variables)


def test_nothing_set_is_counters_in_memory_on_the_references_ports() -> None:
    settings = read()

    assert settings == RatelimitSettings()
    assert settings.serving.grpc_address == "127.0.0.1:8081"
    assert settings.serving.http_address == "127.0.0.1:8080"
    assert settings.serving.debug_address == "127.0.0.1:6070"


def test_the_references_names_set_what_they_set_there() -> None:
    settings = read(
        HOST="0.0.0.0",
        GRPC_UDS="/run/rl.sock",
        SHADOW_MODE="T",
        QUOTA_MODE="1",
        NEAR_LIMIT_RATIO="0.5",
        LIMIT_RESPONSE_HEADERS_ENABLED="true",
        LIMIT_RESET_HEADER="X-Reset",
        EXPIRATION_JITTER_MAX_SECONDS="7",
        MERGE_DOMAIN_CONFIG="",
    )

    assert settings.serving.http_address == "0.0.0.0:8080"
    assert settings.serving.grpc_address == "unix:/run/rl.sock"
    assert (settings.shadow_mode, settings.quota_mode, settings.merge_domains) == (True, True, False)
    assert settings.response_headers == ("RateLimit-Limit", "RateLimit-Remaining", "X-Reset")
    assert (settings.near_limit_ratio, settings.expiration_jitter_max_seconds) == (0.5, 7)


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, ("", "")),
        ({"RUNTIME_ROOT": "/r"}, ("/r", "config.")),
        ({"RUNTIME_ROOT": "/r", "RUNTIME_SUBDIRECTORY": "s"}, ("/r/s", "config.")),
        ({"RUNTIME_SUBDIRECTORY": "s"}, ("/srv/runtime_data/current/s", "config.")),
        ({"RUNTIME_ROOT": "/r", "RUNTIME_WATCH_ROOT": "false", "RUNTIME_APPDIRECTORY": "a"}, ("/r/a", "")),
    ],
)
def test_files_are_looked_for_where_the_reference_looks(variables: dict[str, str], place: tuple[str, str]) -> None:
    settings = read(**variables)

    assert (settings.directory, settings.files_prefix) == place


class TestRedis:
    """How Redis is reached."""

    def test_an_address_alone_chooses_redis_and_the_backend_can_be_named(self) -> None:
        assert read(REDIS_URL="r:6379").backend is Backend.REDIS
        assert read(REDIS_URL="r:6379", BACKEND_TYPE="memory").backend is Backend.MEMORY
        assert read(BACKEND_TYPE="redis").redis.addresses == (("localhost", 6379),)

    def test_a_single_redis_by_address_socket_or_url(self) -> None:
        assert read(REDIS_URL="[::1]:7000").redis.addresses == (("::1", 7000),)
        assert read(REDIS_URL="/run/redis.sock").redis.socket_path == "/run/redis.sock"
        by_url = read(REDIS_URL="rediss://u:p%40@r:1/2").redis
        assert (by_url.addresses, by_url.tls, by_url.database) == ((("r", 1),), True, 2)
        assert by_url.credentials == Credentials(username="u", password="p@")

    def test_sentinels_come_after_their_masters_name_and_have_their_own_password(self) -> None:
        settings = read(
            REDIS_TYPE="sentinel", REDIS_URL="main,a:1,b:2", REDIS_AUTH="u:p", REDIS_SENTINEL_AUTH="s"
        ).redis

        assert (settings.type, settings.master, settings.addresses) == (
            RedisType.SENTINEL,
            "main",
            (("a", 1), ("b", 2)),
        )
        assert settings.credentials == Credentials(username="u", password="p")
        assert settings.sentinel_credentials == Credentials(password="s")

    def test_a_cluster_is_a_list_of_nodes(self) -> None:
        settings = read(REDIS_TYPE="CLUSTER", REDIS_URL="a:1,b:2").redis

        assert (settings.type, settings.addresses) == (RedisType.CLUSTER, (("a", 1), ("b", 2)))

    def test_limits_per_second_may_have_their_own(self) -> None:
        assert read(REDIS_URL="r:1").redis_per_second is None
        own = read(REDIS_URL="r:1", REDIS_PERSECOND="true", REDIS_PERSECOND_URL="s:2", REDIS_PERSECOND_AUTH="x")
        assert own.redis_per_second is not None
        assert own.redis_per_second.addresses == (("s", 2),)

    def test_a_password_is_never_printed(self) -> None:
        assert "secret" not in repr(read(REDIS_URL="r:1", REDIS_AUTH="secret"))

    def test_trouble_is_handled_as_said(self) -> None:
        settings = read(
            HEADGATE_RATELIMIT_ON_REDIS_FAILURE="local",
            HEADGATE_RATELIMIT_REDIS_DEADLINE="5ms",
            HEADGATE_RATELIMIT_LOCAL_SHARE="0.25",
        )

        assert settings.on_redis_failure is OnStoreFailure.LOCAL
        assert (settings.redis_deadline_seconds, settings.local_share) == (0.005, 0.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "-1"),
        ("SHADOW_MODE", "yes"),
        ("NEAR_LIMIT_RATIO", "2"),
        ("REDIS_TIMEOUT", "10"),
        ("REDIS_TIMEOUT", "-1s"),
        ("REDIS_TYPE", "TWINS"),
        ("REDIS_URL", "http://r"),
        ("REDIS_URL", "r:x"),
        ("BACKEND_TYPE", "memcache"),
        ("BACKEND_TYPE", "disk"),
        ("CONFIG_TYPE", "HTTP"),
        ("PROMETHEUS_ADDR", "9090"),
        ("PROMETHEUS_PATH", "metrics"),
        ("PROMETHEUS_MAPPER_YAML", "/mapper.yaml"),
        ("USE_DOG_STATSD_MOGRIFIERS", "FOO"),
        ("LOG_LEVEL", "loud"),
        ("HEADGATE_RATELIMIT_ON_REDIS_FAILURE", "panic"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name.removesuffix('_X')}"):
        read(**{name: value})


def test_tls_needs_its_two_files_and_takes_a_clients_authority() -> None:
    files = {"GRPC_SERVER_TLS_CERT": "c", "GRPC_SERVER_TLS_KEY": "k"}

    assert read(GRPC_SERVER_USE_TLS="1", **files).serving.tls == TlsFiles(certificate="c", key="k")
    mutual = read(GRPC_SERVER_USE_TLS="1", GRPC_CLIENT_TLS_CACERT="a", **files).serving.tls
    assert mutual == TlsFiles(certificate="c", key="k", client_authority="a")
    for name in files:
        with pytest.raises(SettingsError, match=name):
            read(**(files | {"GRPC_SERVER_USE_TLS": "1", name: ""}))
    with pytest.raises(SettingsError, match="GRPC_CLIENT_TLS_SAN"):
        read(GRPC_SERVER_USE_TLS="1", GRPC_CLIENT_TLS_SAN="envoy.test", **files)


def test_statsd_is_reported_to_when_it_is_asked_for_or_named() -> None:
    assert read().statsd is None
    assert read(USE_STATSD="true").statsd == StatsdSettings()
    named = read(
        STATSD_HOST="s", STATSD_PORT="9", STATSD_PROTOCOL="udp", EXTRA_TAGS="a:b,c:d", STATS_FLUSH_INTERVAL="1s"
    )
    assert named.statsd == StatsdSettings(
        host="s", port=9, protocol=StatsdProtocol.UDP, tags={"a": "b", "c": "d"}, flush_seconds=1.0
    )
    assert read(STATSD_HOST="s", USE_STATSD="false").statsd is None
    assert read(STATSD_HOST="s", DISABLE_STATS="true").statsd is None
    dog = read(STATSD_HOST="s", USE_DOG_STATSD="true").statsd
    assert dog is not None
    assert (dog.protocol, dog.tag_style) == (StatsdProtocol.UDP, TagStyle.DOG)
    for name, value in {"USE_DOG_STATSD": "true", "EXTRA_TAGS": "a", "STATS_FLUSH_INTERVAL": "0s"}.items():
        with pytest.raises(SettingsError, match=name):
            read(USE_STATSD="true", **{name: value})


def test_a_control_plane_is_asked_instead_of_files() -> None:
    assert read(CONFIG_TYPE="FILE").xds is None
    assert read(CONFIG_TYPE="GRPC_XDS_SOTW").xds == XdsSettings()
    xds = read(
        CONFIG_TYPE="GRPC_XDS_SOTW",
        CONFIG_GRPC_XDS_SERVER_URL="plane:1",
        CONFIG_GRPC_XDS_NODE_ID="n",
        CONFIG_GRPC_XDS_NODE_METADATA="a=b,c=d",
        CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS="x-a:b",
        CONFIG_GRPC_XDS_SERVER_USE_TLS="true",
        CONFIG_GRPC_XDS_SERVER_TLS_CACERT="ca",
        CONFIG_GRPC_XDS_CLIENT_TLS_CERT="cert",
        CONFIG_GRPC_XDS_CLIENT_TLS_KEY="key",
        CONFIG_GRPC_XDS_SERVER_TLS_SAN="san",
        XDS_CLIENT_BACKOFF_INITIAL_INTERVAL="1s",
        XDS_CLIENT_BACKOFF_MAX_INTERVAL="2s",
        XDS_CLIENT_BACKOFF_RANDOM_FACTOR="0.25",
        XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES="1000",
    ).xds
    assert xds == XdsSettings(
        address="plane:1",
        node_id="n",
        node_metadata={"a": "b", "c": "d"},
        headers={"x-a": "b"},
        tls=XdsTls(authority="ca", certificate="cert", key="key", server_name="san"),
        retry_seconds=1.0,
        longest_retry_seconds=2.0,
        jitter=0.25,
        max_message_bytes=1000,
    )
    calm = read(CONFIG_TYPE="GRPC_XDS_SOTW", XDS_CLIENT_BACKOFF_JITTER="false").xds
    assert calm is not None
    assert calm.jitter == 0.0


def test_a_prometheus_address_without_a_host_is_every_address() -> None:
    assert read(PROMETHEUS_ADDR=":9191").serving.prometheus_address == "0.0.0.0:9191"
    assert read(PROMETHEUS_ADDR="10.0.0.1:9191").serving.prometheus_address == "10.0.0.1:9191"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10.0), ("150us", 150e-6), ("1h30m", 5400.0), ("1.5s", 1.5), ("0", 0.0), ("-2ms", -0.002), ("100ns", 1e-7)],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "1 s", "1d", "1s2", "--1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


def test_booleans_are_gos() -> None:
    assert [parse_bool(text) for text in ("1", "t", "TRUE", "0", "f", "False")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    with pytest.raises(ValueError, match="neither"):
        parse_bool("on")
