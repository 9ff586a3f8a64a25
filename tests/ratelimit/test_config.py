import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import PolicyError
from ratelimit.config import load_configuration
from ratelimit.limits import Entry, Limit, Unit

LIMITED = "rate_limit: {unit: minute, requests_per_unit: 5}"


def problems(*texts: str, merge_domains: bool = False) -> list[str]:
    files = [(f"{name}.yaml", text.encode()) for name, text in zip("abcdef", texts, strict=False)]
    try:
        load_configuration(files, merge_domains=merge_domains)
    except PolicyError as error:
        return [f"{problem.file}:{problem.line} {problem.message}" for problem in error.problems]
    return []


def limit_of(text: str, *pairs: tuple[str, str]) -> Limit | None:
    (domain,) = load_configuration([("a.yaml", text.encode())]).domains.values()
    match = domain.match([Entry(*pair) for pair in pairs])
    return match.limit if match else None


def one_descriptor(descriptor: str) -> str:
    return f"domain: d\ndescriptors:\n  - {descriptor}\n"


def test_a_full_file_becomes_domains_limits_and_nested_descriptors() -> None:
    text = """
        domain: d
        descriptors:
          - key: tenant
            value: acme
            quota_mode: yes
            detailed_metric: true
            value_to_metric: on
            metadata: {anything: [1, 2.5, {not: checked}]}
            rate_limit: {unit: Hour, requests_per_unit: 1_000, name: acme, replaces: [{name: all}]}
            descriptors:
              - {key: path, value: /v*, share_threshold: true, shadow_mode: true, rate_limit: {unit: DAY}}
              - {key: free, rate_limit: {unlimited: true}}
              - key: none
    """

    assert limit_of(text, ("tenant", "acme")) == Limit(
        requests_per_unit=1000, unit=Unit.HOUR, name="acme", replaces=frozenset(["all"]), quota_mode=True
    )
    nested = limit_of(text, ("tenant", "acme"), ("path", "/v1"))
    assert nested == Limit(requests_per_unit=0, unit=Unit.DAY, shadow_mode=True)
    free = limit_of(text, ("tenant", "acme"), ("free", "x"))
    assert free is not None
    assert free.unlimited
    assert limit_of(text, ("tenant", "acme"), ("none", "x")) is None


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("007", "007"),
        ("0xFF", "0xFF"),
        ("yes", "yes"),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("'1.5'", "1.5"),
    ],
)
def test_a_value_keeps_its_raw_text(written: str, value: str) -> None:
    text = one_descriptor(f"{{key: k, value: {written}, {LIMITED}}}")

    assert limit_of(text, ("k", value)) is not None


@pytest.mark.parametrize(("written", "number"), [("1_000", 1000), ("0x10", 16), ("010", 8), ("0b11", 3), ("~", 0)])
def test_numbers_may_be_written_in_every_way_the_reference_reads(written: str, number: int) -> None:
    limit = limit_of(one_descriptor(f"{{key: k, rate_limit: {{unit: day, requests_per_unit: {written}}}}}"), ("k", ""))

    assert limit is not None
    assert limit.requests_per_unit == number


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("domain: d", id="no_descriptors"),
        pytest.param("domain: d\ndescriptors: ~", id="null_descriptors"),
        pytest.param("domain: d\nunit: x", id="a_known_key_in_the_wrong_place"),
        pytest.param("domain: x\ndomain: d", id="a_key_twice"),
        pytest.param("\ufeffdomain: d", id="byte_order_mark"),
        pytest.param("domain: d\n---\nfoo: 1", id="a_second_document"),
        pytest.param(one_descriptor("{key: k, rate_limit: {unlimited: true, unit: unknown}}"), id="unlimited_unknown"),
        pytest.param(one_descriptor(f"&x {{key: k, {LIMITED}}}\n  - {{<<: *x, key: l}}"), id="merge_key"),
    ],
)
def test_oddities_the_reference_accepts_are_accepted(text: str) -> None:
    assert problems(text) == []


def test_a_merge_key_brings_what_the_mapping_does_not_say_itself() -> None:
    text = one_descriptor(f"&x {{key: k, {LIMITED}}}\n  - {{<<: *x, key: l}}")

    assert limit_of(text, ("l", "v")) == Limit(requests_per_unit=5, unit=Unit.MINUTE)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("descriptors:", "1 config file cannot have empty domain", id="no_domain"),
        pytest.param("", "0 config file cannot have empty domain", id="empty_file"),
        pytest.param("~", "1 config file cannot have empty domain", id="null_file"),
        pytest.param("domain: headgate", "1 domain 'headgate' is made from the policy's tenants", id="our_domain"),
        pytest.param("domain: d\nfoo: 1", "2 config error, unknown key 'foo'", id="unknown_key"),
        pytest.param("domain: d\non: 1", "2 config error, key is not of type string: true", id="boolean_key"),
        pytest.param("domain: d\n0.25: 1", "2 config error, key is not of type string: 0.25", id="number_key"),
        pytest.param(
            "domain: d\ndescriptors:\n  - a",
            "3 config error, yaml file contains list of type other than map: a",
            id="list_of_text",
        ),
        pytest.param(one_descriptor("{key: k, value: 1.5}"), "3 error checking config", id="fraction"),
        pytest.param(one_descriptor("{value: v}"), "3 descriptor has empty key", id="no_key"),
        pytest.param(
            one_descriptor("key: k\n  - key: k"), "4 duplicate descriptor composite key 'd.k'", id="descriptor_twice"
        ),
        pytest.param(
            one_descriptor("{key: k_v}\n  - {key: k, value: v}"),
            "4 duplicate descriptor composite key 'd.k_v'",
            id="underscores_meet",
        ),
        pytest.param(
            one_descriptor("key: k\n    descriptors: [{key: l, value: v}, {key: l, value: v}]"),
            "4 duplicate descriptor composite key 'd.k.l_v'",
            id="nested_twice",
        ),
        pytest.param(one_descriptor("{key: k, rate_limit: {unit: foo}}"), "3 invalid rate limit unit 'foo'", id="unit"),
        pytest.param(one_descriptor("{key: k, rate_limit: {}}"), "3 invalid rate limit unit ''", id="no_unit"),
        pytest.param(
            one_descriptor("{key: k, rate_limit: {unlimited: true, unit: day}}"),
            "3 should not specify rate limit unit when unlimited",
            id="unlimited_with_unit",
        ),
        pytest.param(
            one_descriptor("{key: k, rate_limit: {unit: day, name: x, replaces: [{name: x}]}}"),
            "3 replaces should not contain name of same descriptor",
            id="replaces_itself",
        ),
        pytest.param(
            one_descriptor("{key: k, rate_limit: {unit: day, replaces: [{name: ''}]}}"),
            "3 should not have an empty replaces entry",
            id="replaces_nothing",
        ),
        pytest.param(
            one_descriptor("{key: k, value: v, share_threshold: true}"),
            "3 share_threshold can only be used with wildcard values (containing '*'), but found key 'k_v'",
            id="share_threshold",
        ),
    ],
)
def test_what_the_reference_refuses_is_refused_in_its_words_with_the_line(text: str, problem: str) -> None:
    assert problems(text) == [f"a.yaml:{problem}"]


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        pytest.param("'''\n", "2 error loading config file: yaml: line 2: found unexpected end of stream", id="syntax"),
        pytest.param(
            "domain: d\ndescriptors: abc", "!!str `abc` into []config.YamlDescriptor", id="descriptors_is_text"
        ),
        pytest.param("domain: [d]", "!!seq into string", id="domain_is_a_list"),
        pytest.param(one_descriptor("{key: k, metadata: 5}"), "!!int `5` into map[string]interface {}", id="metadata"),
        pytest.param(one_descriptor("{key: k, rate_limit: 5}"), "!!int `5` into config.YamlRateLimit", id="rate_limit"),
        pytest.param(one_descriptor("{key: k, shadow_mode: 'true'}"), "!!str `true` into bool", id="flag_is_text"),
        *(
            pytest.param(
                one_descriptor(f"{{key: k, rate_limit: {{unit: day, requests_per_unit: {written}}}}}"),
                f"{shown} into uint32",
                id=f"requests_per_unit_{name}",
            )
            for name, written, shown in [
                ("text", '"5"', "!!str `5`"),
                ("true", "true", "!!bool `true`"),
                ("negative", "-1", "!!int `-1`"),
                ("33_bits", "4294967296", "!!int `4294967296`"),
            ]
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_a_load_error(text: str, ending: str) -> None:
    found = problems(text)

    assert any("error loading config file: yaml: " in problem and problem.endswith(ending) for problem in found), found


def test_every_problem_of_every_file_is_listed_with_its_place() -> None:
    broken = one_descriptor("{key: '', rate_limit: {unit: foo}}\n  - {key: k, value: x, share_threshold: y, foo: 1}")

    assert problems(broken, "domain: d\n", "'") == [
        "a.yaml:3 descriptor has empty key",
        "a.yaml:3 invalid rate limit unit 'foo'",
        "a.yaml:4 config error, unknown key 'foo'",
        "a.yaml:4 share_threshold can only be used with wildcard values (containing '*'), but found key 'k_x'",
        "b.yaml:1 duplicate domain 'd' in config file",
        "c.yaml:1 error loading config file: yaml: line 1: found unexpected end of stream",
    ]


def test_problems_name_the_key_path() -> None:
    with pytest.raises(PolicyError) as raised:
        load_configuration([("a.yaml", one_descriptor("{key: k, rate_limit: {unit: foo}}").encode())])

    assert str(raised.value) == "a.yaml:3 descriptors[0].rate_limit.unit: invalid rate limit unit 'foo'"


def test_files_may_share_a_domain_only_when_told_so() -> None:
    one, other = one_descriptor(f"{{key: k, {LIMITED}}}"), one_descriptor(f"{{key: l, {LIMITED}}}")

    assert problems(one, other) == ["b.yaml:1 duplicate domain 'd' in config file"]
    assert problems(one, other, merge_domains=True) == []
    assert problems(one, one, merge_domains=True) == ["b.yaml:3 duplicate descriptor composite key 'd.k'"]


def test_files_are_read_in_the_order_of_their_names_whatever_order_they_come_in() -> None:
    later = one_descriptor("{key: k, value: a*, rate_limit: {unit: day}}")
    earlier = one_descriptor("{key: k, value: '*', rate_limit: {unit: hour}}")
    files = [("2.yaml", later.encode()), ("1.yaml", earlier.encode())]

    match = load_configuration(files, merge_domains=True).domains["d"].match([Entry("k", "a1")])

    assert match is not None
    assert match.limit.unit is Unit.HOUR


FRAGMENTS = (
    "domain: d\n",
    "descriptors:\n",
    "  - key: k\n",
    "    value: '*'\n",
    "    rate_limit: &a\n",
    "      unit: day\n",
    "    descriptors: *a\n",
    "    metadata: [\n",
    "<<: *a\n",
    "? [1]\n",
    "- 1\n",
    "5: x\n",
    "  replaces: [{}]\n",
    "]\n",
)


@given(text=st.lists(st.sampled_from(FRAGMENTS), max_size=10).map("".join))
def test_no_file_raises_anything_but_a_policy_error(text: str) -> None:
    problems(text, text)
