from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from headgate.policy.model import OnStoreFailure
from headgate.record import RequestRecord
from ratelimit.charges import Charge
from ratelimit.open_charges import MAX_USED_TOKENS, OpenCharge, OpenCharges, used_tokens

CHARGE = Charge(key="k", limit=1000, window_seconds=60, hits=400, window_start=1_000_020)
FIELDS: dict[str, Any] = dict.fromkeys(RequestRecord.__struct_fields__, "")
OWN: dict[str, Any] = {
    "request_id": "r1",
    "tenant": "acme",
    "charged_tokens": 400,
    "verdict": "ADMIT",
    "prompt_tokens": 100,
    "output_tokens": 50,
    "cached_tokens": None,
}
RECORD = RequestRecord(**(FIELDS | OWN))


def made(request_id: str = "r1", *, start: int = 1_000_020) -> OpenCharge:
    return OpenCharge(request_id, "acme", replace(CHARGE, window_start=start))


def test_a_correction_is_pinned_to_the_window_and_pays_from_no_other_store() -> None:
    correction = made().correction(150)

    assert correction is not None
    assert (correction.hits, correction.window_start) == (-250, 1_000_020)
    assert correction.on_store_failure is OnStoreFailure.OPEN
    assert made().correction(400) is None


def test_no_model_server_can_make_a_tenant_pay_for_ever() -> None:
    correction = made().correction(10**18)

    assert correction is not None
    assert correction.hits == MAX_USED_TOKENS - 400


def test_charges_are_forgotten_when_their_window_ends() -> None:
    charges = OpenCharges()
    for at in range(5):
        charges.add(made(f"r{at}"), 1_000_030.0)

    charges.add(made("next", start=1_000_080), 1_000_080.0)

    assert len(charges) == 1
    assert charges.take(RECORD, 0, 1_000_080.0) is None


def test_beyond_the_bound_the_oldest_keep_their_estimate() -> None:
    charges = OpenCharges(max_open=3)
    for at in range(9):
        charges.add(made(f"r{at}"), 1_000_030.0)

    assert len(charges) == 3
    assert charges.take(structs.replace(RECORD, request_id="r5"), 0, 1_000_031.0) is None
    assert charges.take(structs.replace(RECORD, request_id="r6"), 0, 1_000_031.0) is not None


def test_an_id_used_twice_stays_ambiguous_as_long_as_its_window() -> None:
    charges = OpenCharges()
    for _ in range(3):
        charges.add(made(), 1_000_030.0)

    assert [charges.take(RECORD, 0, 1_000_031.0) for _ in range(3)] == [None] * 3

    charges.add(made("r2", start=1_000_080), 1_000_081.0)
    charges.add(made(start=1_000_080), 1_000_081.0)
    assert charges.take(RECORD, 0, 1_000_082.0) is not None


@pytest.mark.parametrize(
    ("facts", "weight", "used"),
    [
        ({}, 1.0, 150),
        ({"cached_tokens": 80}, 1.0, 150),
        ({"cached_tokens": 80}, 0.25, 90),
        ({"cached_tokens": 80}, 0.0, 70),
        ({"cached_tokens": 10_000}, 0.0, 50),
        ({"output_tokens": None}, 1.0, None),
        ({"output_tokens": None, "operation": "embeddings"}, 1.0, 100),
        ({"prompt_tokens": None, "output_tokens": None, "estimated_output_tokens": 7}, 1.0, None),
        ({"prompt_tokens": None, "output_tokens": None, "estimated_output_tokens": 0}, 1.0, None),
        ({"prompt_tokens": None, "output_tokens": None, "estimated_output_tokens": None}, 1.0, 0),
        ({"verdict": "REJECT"}, 1.0, 0),
    ],
)
def test_what_a_request_costs_is_what_its_model_server_reports(
    facts: dict[str, Any], weight: float, used: int | None
) -> None:
    assert used_tokens(structs.replace(RECORD, **facts), weight) == used
