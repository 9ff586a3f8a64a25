"""A small good policy, and what becomes of it when one place in it is changed."""

from __future__ import annotations

from typing import Protocol

import pytest

from headgate.errors import PolicyError
from headgate.policy.load import load_policy
from headgate.policy.model import Policy

GOOD = """\
apiVersion: headgate/v1
identity:
  - api_key: {header: authorization}
tenants:
  acme: {tier: gold}
tiers:
  gold: {priority: 0}
models:
  chat:
    routes:
      - {cluster: big}
clusters:
  big: {protocol: openai, model: llama, endpoints: ["127.0.0.1:8000"]}
"""


class Accepted(Protocol):
    """The policy that comes of replacing text in the good one."""

    def __call__(self, old: str = "", new: str = "") -> Policy: ...


class Refused(Protocol):
    """What is said of it when it is wrong, one line a problem."""

    def __call__(self, old: str, new: str) -> list[str]: ...


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def accepted() -> Accepted:
    def load(old: str = "", new: str = "") -> Policy:
        return load_policy(_edited(old, new).encode(), "policy.yaml")

    return load


@pytest.fixture
def refused() -> Refused:
    def load(old: str, new: str) -> list[str]:
        with pytest.raises(PolicyError) as caught:
            load_policy(_edited(old, new).encode(), "policy.yaml")
        return [str(problem) for problem in caught.value.problems]

    return load


def _edited(old: str, new: str) -> str:
    assert not old or GOOD.count(old) == 1, f"{old!r} has to stand once in the good policy"
    return GOOD.replace(old, new) if old else GOOD
