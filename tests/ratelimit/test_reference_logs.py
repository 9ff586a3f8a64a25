import json
import logging

import pytest

from headgate.errors import SettingsError
from headgate.logs import FIELDS
from ratelimit.environment import Environment
from ratelimit.reference_logs import LogFormat, LogSettings, ReferenceFormatter, read_log_settings


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.WARNING, "f.py", 1, "new rate limits", None, None)
    made.created = 0.0
    setattr(made, FIELDS, fields)
    return made


def test_text_lines_are_the_references() -> None:
    line = ReferenceFormatter(LogFormat.TEXT).format(record(domain="shop", text='a "b"', list=[1]))

    assert line == (
        'time=1970-01-01T00:00:00Z level=warning msg="new rate limits" domain=shop text="a \\"b\\"" list="[1]"'
    )


def test_json_lines_have_the_references_keys() -> None:
    line = json.loads(ReferenceFormatter(LogFormat.JSON).format(record(domain="shop")))

    assert line == {
        "@timestamp": "1970-01-01T00:00:00Z",
        "level": "warning",
        "@message": "new rate limits",
        "domain": "shop",
    }


def test_levels_are_the_references_and_nothing_set_changes_nothing() -> None:
    assert read_log_settings(Environment({})) == LogSettings()
    assert read_log_settings(Environment({"LOG_LEVEL": "WARN", "LOG_FORMAT": "json"})) == LogSettings(
        logging.WARNING, LogFormat.JSON
    )


@pytest.mark.parametrize(("name", "value"), [("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml")])
def test_a_level_or_format_nobody_knows_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_log_settings(Environment({name: value}))
