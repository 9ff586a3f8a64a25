"""Settings: flags over environment over defaults, and a clear word for what cannot be used."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest

from headgate.errors import SettingsError
from headgate.settings import DEFAULT_POLICY, Settings, read_settings


def test_without_flags_and_environment_the_defaults_hold() -> None:
    settings = read_settings({}, {})

    assert settings == Settings()
    assert settings.policy_path == DEFAULT_POLICY
    assert DEFAULT_POLICY.is_file()


def test_no_server_listens_beyond_this_machine_unless_told_to() -> None:
    settings = Settings()

    for address in (
        settings.extproc_address,
        settings.ratelimit_address,
        settings.ratelimit_http_address,
        settings.admin_address,
    ):
        assert address.startswith("127.0.0.1:")


def test_settings_can_be_made_in_the_environment() -> None:
    environment = {
        "HEADGATE_POLICY": "/etc/headgate/policy.yaml",
        "HEADGATE_EXTPROC_ADDRESS": "unix:/run/headgate/extproc.sock",
        "HEADGATE_RATELIMIT_ADDRESS": "0.0.0.0:8081",
        "HEADGATE_RATELIMIT_HTTP_ADDRESS": "localhost:8080",
        "HEADGATE_ADMIN_ADDRESS": "[::1]:9090",
        "HEADGATE_GRACE_SECONDS": "2.5",
        "HEADGATE_REGION": "eu",
        "HEADGATE_LOG_LEVEL": "DEBUG",
    }

    settings = read_settings({}, environment)

    assert settings == Settings(
        policy="/etc/headgate/policy.yaml",
        extproc_address="unix:/run/headgate/extproc.sock",
        ratelimit_address="0.0.0.0:8081",
        ratelimit_http_address="localhost:8080",
        admin_address="[::1]:9090",
        grace_seconds=2.5,
        region="eu",
        log_level="DEBUG",
    )
    assert settings.policy_path == Path("/etc/headgate/policy.yaml")


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_setting_has_a_variable_that_takes_its_default(field: dataclasses.Field[object]) -> None:
    variable, wrong = f"HEADGATE_{field.name.upper()}", "a\tvalue"

    assert read_settings({}, {variable: str(field.default)}) == Settings()
    with contextlib.suppress(SettingsError):
        assert getattr(read_settings({}, {variable: wrong}), field.name) == wrong


def test_a_flag_wins_over_the_environment_and_an_absent_one_does_not() -> None:
    environment = {"HEADGATE_REGION": "eu", "HEADGATE_GRACE_SECONDS": "1"}

    settings = read_settings({"region": "us", "grace_seconds": None}, environment)

    assert (settings.region, settings.grace_seconds) == ("us", 1.0)


def test_a_flag_may_be_a_number() -> None:
    assert read_settings({"grace_seconds": 0.5}, {}).grace_seconds == 0.5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("grace_seconds", "soon", "grace_seconds: has to be a number of seconds, not 'soon'"),
        ("grace_seconds", "-1", "grace_seconds: has to be between 0 and 3600 seconds, not '-1'"),
        ("grace_seconds", "nan", "grace_seconds: has to be between 0 and 3600 seconds, not 'nan'"),
        ("grace_seconds", "inf", "grace_seconds: has to be between 0 and 3600 seconds, not 'inf'"),
        ("grace_seconds", "", "grace_seconds: has to be a number of seconds, not ''"),
        ("request_log_share", "all", "request_log_share: has to be a number, not 'all'"),
        ("request_log_share", "1.5", "request_log_share: has to be between 0 and 1, not '1.5'"),
        ("log_level", "loud", "log_level: has to be DEBUG, INFO, WARNING or ERROR, not 'loud'"),
        ("extproc_address", "9002", "extproc_address: has to be host:port or unix:/path, not '9002'"),
        ("extproc_address", "", "extproc_address: has to be host:port or unix:/path, not ''"),
        ("extproc_address", "unix:", "extproc_address: has to be host:port or unix:/path, not 'unix:'"),
        ("ratelimit_address", ":8081", "ratelimit_address: has to be host:port or unix:/path, not ':8081'"),
        (
            "ratelimit_address",
            "127.0.0.1:70000",
            "ratelimit_address: has to be host:port or unix:/path, not '127.0.0.1:70000'",
        ),
        ("admin_address", "localhost:http", "admin_address: has to be host:port, not 'localhost:http'"),
        ("admin_address", "unix:/run/admin", "admin_address: has to be host:port, not 'unix:/run/admin'"),
        ("admin_address", "::1:9090", "admin_address: has to be host:port, not '::1:9090'"),
        ("tls_cert", "/c.pem", "tls_key: has to be set with tls_cert"),
        ("tls_key", "/c.key", "tls_cert: has to be set with tls_key"),
        ("tls_client_ca", "/a.pem", "tls_cert: has to be set with tls_client_ca"),
        ("ratelimit_http_address", "http://h:1", "ratelimit_http_address: has to be host:port, not 'http://h:1'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({}, {f"HEADGATE_{name.upper()}": value})

    assert str(caught.value) == message


def test_the_receiver_of_spans_may_have_opentelemetrys_own_name() -> None:
    common = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}

    assert read_settings({}, common).otlp_endpoint == "http://collector:4318"
    assert (
        read_settings({}, common | {"HEADGATE_OTLP_ENDPOINT": "http://mine:4318"}).otlp_endpoint == "http://mine:4318"
    )
