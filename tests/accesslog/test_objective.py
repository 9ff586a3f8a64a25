"""What counts as having met a tier's objective, and what is not judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from accesslog.objective import has_met
from headgate.record import Outcome, RequestRecord

LEFT = {"outcome": Outcome.CLIENT_LEFT}


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ({"first_byte_seconds": 0.5}, True),
        ({"first_byte_seconds": 0.501}, False),
        ({"first_byte_seconds": None}, False),
        ({"is_stream": False, "first_byte_seconds": 9.0}, True),
        ({"is_stream": False, "first_byte_seconds": 9.0, "queue_wait_seconds": 0.6}, False),
        ({"outcome": Outcome.REFUSED, "status": 429}, False),
        ({"outcome": Outcome.REFUSED, "status": 503}, False),
        ({"outcome": Outcome.REFUSED, "status": 400}, None),
        ({"outcome": Outcome.MODEL_ERROR, "status": 500}, False),
        ({"outcome": Outcome.MODEL_ERROR, "status": 200}, False),
        ({"outcome": Outcome.MODEL_ERROR, "status": 400}, None),
        ({"outcome": Outcome.GATEWAY_ERROR, "status": 504}, False),
        (LEFT | {"first_byte_seconds": 0.2}, True),
        (LEFT | {"first_byte_seconds": 0.7}, False),
        (LEFT | {"status": 0, "first_byte_seconds": None, "is_stream": False, "duration_seconds": 0.3}, None),
        (LEFT | {"status": 0, "first_byte_seconds": None, "is_stream": False, "duration_seconds": 0.7}, False),
    ],
)
def test_a_request_is_judged_by_its_first_token(
    finished: Callable[..., RequestRecord], fields: dict[str, Any], met: bool | None
) -> None:
    assert has_met(finished(**fields), 0.5) is met
