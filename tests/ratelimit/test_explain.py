from typing import Any

import pytest

from ratelimit.config import load_configuration
from ratelimit.explain import explain, parse_descriptor
from ratelimit.limits import Entry
from ratelimit.memory import MemoryStore

FILE = b"""domain: d
descriptors:
  - key: user
    value: vip
  - key: user
    value: "a*"
    rate_limit: {unlimited: true}
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 2}
    descriptors:
      - key: job
        headgate: {max_in_flight: 3}
"""


async def about(descriptor: str, domain: str = "d") -> dict[str, Any]:
    store = MemoryStore(lambda: 1_000_000.0)
    configuration = load_configuration([("a.yaml", FILE)])
    return dict(await explain(configuration, store, domain, parse_descriptor(descriptor)))


@pytest.mark.parametrize(
    ("descriptor", "result", "rule"),
    [
        ("user=vip", "no limit: a.yaml:3 has no rate_limit", "exact value"),
        ("user=anna", "unlimited by a.yaml:5", "first pattern in file order"),
        ("user=bob", "limited by a.yaml:8", "any value"),
        ("team=red", "no limit: nothing is configured for team=red here", "nothing configured here"),
        ("user=bob,job=1", "limited by a.yaml:11", "any value"),
    ],
)
async def test_the_line_and_the_rule_are_named(descriptor: str, result: str, rule: str) -> None:
    explained = await about(descriptor)

    assert explained["result"] == result
    assert explained["steps"][-1]["rule"] == rule


async def test_a_limit_is_shown_with_its_keys_and_how_it_stands() -> None:
    explained = await about("user=bob,job=1")

    assert explained["limit"] == {"algorithm": "concurrency", "max_in_flight": 3, "lease_seconds": 600}
    assert (explained["counter_key"], explained["metric_key"]) == ("d_user_bob_job_", "d.user.job")
    assert (explained["count"], explained["remaining"]) == (0, 3)


async def test_an_unknown_domain_and_an_empty_descriptor_are_said_to_be_that() -> None:
    assert (await about("user=bob", "x"))["result"] == "no limit: the domain is not configured"
    assert (await about(""))["result"] == "no limit: the descriptor has no entries"


def test_commas_in_values_are_written_with_a_backslash() -> None:
    assert parse_descriptor(r"a=1\,2,b=c=d,e") == (Entry("a", "1,2"), Entry("b", "c=d"), Entry("e", ""))
