"""A whole policy file: what the sections say of each other, and that no file does worse than be refused."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.errors import PolicyError
from headgate.policy.load import load_policy
from headgate.policy.model import AnonymousIdentity, OnStoreFailure, Policy, Tenant
from headgate.settings import DEFAULT_POLICY

Accepted = Callable[..., Policy]
Refused = Callable[[str, str], list[str]]

DEFAULT = DEFAULT_POLICY.read_bytes()


def test_the_policy_headgate_ships_with_loads_and_has_the_five_slo_tiers() -> None:
    policy = load_policy(DEFAULT, "default.yaml")

    by_priority = sorted(policy.tiers.values(), key=lambda tier: tier.priority)
    assert [tier.name for tier in by_priority] == ["premium", "interactive", "async", "batch", "best_effort"]
    assert list(policy.models) == ["assistant", "sentiment"]
    assert list(policy.clusters) == ["best", "long-context", "standard", "fast", "sentiment"]


@pytest.mark.parametrize("tenant", ["acme", "globex", "hobby"])
def test_the_demo_keys_of_that_policy_belong_to_their_tenants(tenant: str) -> None:
    policy = load_policy(DEFAULT, "default.yaml")

    digest = hashlib.sha256(f"demo-{tenant}".encode()).hexdigest()
    assert policy.tenants_by_key[digest] == tenant


def test_the_version_is_that_of_the_bytes_and_of_nothing_else(good: str) -> None:
    policy = load_policy(good.encode(), "one.yaml")

    assert policy.version == hashlib.sha256(good.encode()).hexdigest()[:12]
    assert load_policy(good.encode(), "two.yaml").version == policy.version
    assert load_policy(good.encode() + b"# changed\n", "one.yaml").version != policy.version


def test_a_policy_cannot_be_changed(accepted: Accepted) -> None:
    policy = accepted()

    for mapping in (policy.tenants, policy.tiers, policy.models, policy.clusters, policy.tenants_by_key):
        with pytest.raises(TypeError):
            mapping["x"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        policy.version = "x"  # type: ignore[misc]


def test_a_store_that_fails_refuses_work_unless_the_policy_says_otherwise(accepted: Accepted) -> None:
    assert accepted().on_store_failure is OnStoreFailure.CLOSED
    open_policy = accepted("identity:\n", "on_store_failure: open\nidentity:\n")
    assert open_policy.on_store_failure is OnStoreFailure.OPEN


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("headgate/v1", "headgate/v2", ["policy.yaml:1 apiVersion: has to be 'headgate/v1', not 'headgate/v2'"]),
        ("apiVersion: headgate/v1\n", "", ["policy.yaml:1: 'apiVersion' is missing"]),
        ("apiVersion:", "apiversion:", [
            "policy.yaml:1: 'apiVersion' is missing",
            "policy.yaml:1 apiversion: unknown key; did you mean 'apiVersion'?",
        ]),
        ("models:\n", "modles:\n", [
            "policy.yaml:1: 'models' is missing",
            "policy.yaml:8 modles: unknown key; did you mean 'models'?",
        ]),
        ("identity:\n", "on_store_failure: ignore\nidentity:\n", [
            "policy.yaml:2 on_store_failure: has to be one of open, closed, local, not 'ignore'",
        ]),
        ("models:\n  chat:\n    routes:\n      - {cluster: big}\n", "models:\n", [
            "policy.yaml:8 models: names nothing",
        ]),
        ("clusters:\n  big: {protocol: openai, model: llama, endpoints: [\"127.0.0.1:8000\"]}\n", "clusters: {}\n", [
            "policy.yaml:11 models.chat.routes[0].cluster: no cluster named 'big'",
            "policy.yaml:12 clusters: names nothing",
        ]),
        ("tiers:\n  gold: {priority: 0}\n", "", ["policy.yaml:1: 'tiers' is missing"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_file_as_a_whole_is_named(
    old: str, new: str, expected: list[str], refused: Refused
) -> None:
    assert refused(old, new) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", "policy.yaml:1: has to be a mapping, not 'hello'"),
        ("- a\n- b\n", "policy.yaml:1: has to be a mapping, not a list"),
    ],
)
def test_a_document_that_is_no_mapping_is_refused_in_one_sentence(text: str, expected: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(text.encode(), "policy.yaml")

    assert str(caught.value) == expected


def test_an_empty_document_lacks_every_section() -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(b"---\n", "policy.yaml")

    assert [problem.message for problem in caught.value.problems] == [
        f"'{section}' is missing" for section in ("apiVersion", "clusters", "identity", "models", "tenants", "tiers")
    ]


def test_all_problems_of_a_file_are_found_in_one_go_and_listed_by_line() -> None:
    text = """\
apiVersion: headgate/v1
identity:
  - api_key: {header: Authorization}
  - anonymous: {tenant: public}
tenants:
  acme: {tier: glod, weight: -1}
tiers:
  gold: {priority: high, on_overload: [queue, reject]}
models:
  chat: {routes: [{when: "teir == 'gold'", cluster: hueg}]}
clusters:
  huge: {protocol: openai, model: llama, endpoints: [nowhere], capacity: lots}
"""
    with pytest.raises(PolicyError) as caught:
        load_policy(text.encode(), "deploy/policy.yaml")

    assert (
        str(caught.value)
        == """\
deploy/policy.yaml:3 identity[0].api_key.header: has to be a lower-case header name, not 'Authorization'
deploy/policy.yaml:4 identity[1].anonymous.tenant: no tenant named 'public'
deploy/policy.yaml:6 tenants.acme.tier: no tier named 'glod'
deploy/policy.yaml:6 tenants.acme.weight: has to be at least 0.001, not '-1'
deploy/policy.yaml:8 tiers.gold.on_overload: names queue, but the tier has no queue
deploy/policy.yaml:8 tiers.gold.priority: has to be a whole number, not 'high'
deploy/policy.yaml:10 models.chat.routes[0].cluster: no cluster named 'hueg'
deploy/policy.yaml:10 models.chat.routes[0].when: is not a condition: column 1: undeclared reference to 'teir'
 | teir == 'gold'
 | ^
deploy/policy.yaml:12 clusters.huge.capacity: has to be 'auto' or a mapping of requests and tokens, not 'lots'
deploy/policy.yaml:12 clusters.huge.endpoints[0]: has to be host:port, not 'nowhere'"""
    )


def test_anchors_may_be_used_to_say_a_thing_once(accepted: Accepted) -> None:
    policy = accepted("  acme: {tier: gold}", "  acme: &gold {tier: gold, weight: 2}\n  globex: *gold")

    assert {tenant.name: tenant.weight for tenant in policy.tenants.values()} == {"acme": 2.0, "globex": 2.0}


def test_loading_leaves_the_garbage_collector_as_it_was(good: str) -> None:
    assert gc.isenabled()
    load_policy(good.encode(), "policy.yaml")
    assert gc.isenabled()
    with pytest.raises(PolicyError):
        load_policy(b"broken", "policy.yaml")
    assert gc.isenabled()

    gc.disable()
    try:
        load_policy(good.encode(), "policy.yaml")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_policy_of_a_hundred_thousand_tenants_loads(good: str) -> None:
    tenants = "".join(f"  team-{i}: {{tier: gold, weight: {i % 7 + 1}}}\n" for i in range(100_000))

    policy = load_policy(good.replace("tenants:\n", f"tenants:\n{tenants}").encode(), "policy.yaml")

    assert len(policy.tenants) == 100_001
    assert policy.tenants["team-77777"] == Tenant(name="team-77777", tier="gold", weight=77_777 % 7 + 1)


WORDS = """
apiVersion identity tenants tiers models clusters on_store_failure jwt api_key mtls anonymous header payload_header
tenant_claim default_tier spiffe tenant acme gold tier weight limits api_key_sha256 priority reserved concurrency queue
max_wait max_depth on_overload output_tokens default max slo ttft max_body chat routes when cluster degrade big protocol
model endpoints frontends capacity requests tokens metrics price prompt
"""
KEYS = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    KEYS
    | st.sampled_from(["headgate/v1", "reject", "openai", "auto", "2s", "1MiB", "a:1", "true", "tier == 'gold'"])
    | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=40,
)  # fmt: skip


@given(VALUES)
@settings(max_examples=300)
def test_no_document_of_known_words_raises_anything_but_a_policy_error(value: object) -> None:
    _load_or_refuse(yaml.safe_dump(value).encode())


@given(st.data())
@settings(max_examples=300)
def test_a_policy_with_any_piece_of_it_replaced_is_refused_or_still_holds_together(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(DEFAULT)))
    end = data.draw(st.integers(start, min(start + 30, len(DEFAULT))))
    piece = data.draw(
        st.sampled_from([b"", b"null", b"[]", b"{}", b"-1", b"!!int x", b"*a", b"\n", b"'", b"1e999", b".inf", b"<<: "])
        | st.binary(max_size=6)
        | st.text(max_size=6).map(lambda text: text.encode())
    )

    policy = _load_or_refuse(DEFAULT[:start] + piece + DEFAULT[end:])

    if policy is not None:
        _check_references(policy)


def _load_or_refuse(text: bytes) -> Policy | None:
    try:
        return load_policy(text, "policy.yaml")
    except PolicyError as error:
        problems = error.problems
    assert problems
    assert all(problem.file == "policy.yaml" and problem.message for problem in problems)
    return None


def _check_references(policy: Policy) -> None:
    assert policy.identity
    for source in policy.identity:
        if isinstance(source, AnonymousIdentity):
            assert source.tenant in policy.tenants
    assert {tenant.tier for tenant in policy.tenants.values()} <= set(policy.tiers)
    assert set(policy.tenants_by_key.values()) <= set(policy.tenants)
    for model in policy.models.values():
        assert {route.cluster for route in model.routes} | set(model.degrade) <= set(policy.clusters)
    assert all(cluster.frontends for cluster in policy.clusters.values())
    assert sum(tier.reserved for tier in policy.tiers.values()) <= 1.000001
    assert policy.max_body_bytes > 0
