"""A record in metrics: counted once, under names the policy knows, without a word of the client's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from accesslog.report import Reporter
from accesslog.wire import parse_records
from headgate.metrics import Metrics
from headgate.pb import accesslog_pb2 as pb
from headgate.policy.load import load_policy
from headgate.record import Outcome, RequestRecord

FINISHED = Callable[..., RequestRecord]
POLICY = load_policy(
    b"""
apiVersion: headgate/v1
identity: [{anonymous: {tenant: acme}}]
tenants: {acme: {tier: premium}}
tiers:
  premium: {priority: 0, on_overload: [reject], slo: {ttft: 500ms}}
  batch: {priority: 1, on_overload: [reject]}
models: {assistant: {routes: [{cluster: best}]}}
clusters:
  best: {protocol: openai, model: m, endpoints: ["a:1"], price: {prompt: 1, cached_prompt: 0.5, output: 2}}
""",
    "policy.yaml",
)


class Counted:
    """Records reported into metrics of their own."""

    def __init__(self, *records: RequestRecord) -> None:
        self.metrics = Metrics()
        reporter = Reporter(self.metrics, lambda: POLICY)
        for record in records:
            reporter.report(record)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def requests(self, **labels: str) -> float | None:
        known = {"tier": "premium", "model": "assistant", "cluster": "best", "code": "200", "outcome": "served"}
        return self.value("headgate_requests_total", **known | labels)

    def tokens(self, kind: str, source: str = "reported", tenant: str = "acme") -> float | None:
        return self.value("headgate_tokens_total", tenant=tenant, model="assistant", kind=kind, source=source)


TIER = {"tier": "premium", "model": "assistant"}
PLACE = {"model": "assistant", "cluster": "best"}
GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "assistant",
}


def test_a_request_is_counted_by_tier_model_cluster_status_and_outcome(finished: FINISHED) -> None:
    counted = Counted(finished(), finished(), finished(status=500, outcome=Outcome.MODEL_ERROR))

    assert (counted.requests(), counted.requests(code="500", outcome="model_error")) == (2.0, 1.0)
    assert counted.value("headgate_tenant_requests_total", tenant="acme", outcome="served") == 2.0


def test_a_stream_is_timed_as_a_whole_and_in_its_parts(finished: FINISHED) -> None:
    counted = Counted(finished(), finished(verdict="QUEUE", duration_seconds=1.5, first_byte_seconds=0.5))

    assert counted.value("headgate_request_duration_seconds_sum", **TIER) == 5.0
    assert counted.value("headgate_time_to_first_token_seconds_sum", **TIER) == 0.75
    assert counted.value("headgate_upstream_time_to_first_token_seconds_sum", **PLACE) == 0.5
    assert counted.value("headgate_time_per_output_token_seconds_sum", **PLACE) == pytest.approx(
        (3.4 - 0.25) / 63 + (3.4 - 0.5) / 63
    )


def test_an_answer_in_one_piece_has_a_duration_and_no_first_token(finished: FINISHED) -> None:
    counted = Counted(finished(is_stream=False))

    assert counted.value("headgate_request_duration_seconds_count", **TIER) == 1.0
    assert counted.value("headgate_time_to_first_token_seconds_count", **TIER) is None
    assert counted.value("headgate_time_per_output_token_seconds_count", **PLACE) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"verdict": "REJECT", "status": 429, "outcome": Outcome.REFUSED},
        {"verdict": "", "status": 404, "outcome": Outcome.REFUSED},
    ],
)
def test_a_refused_request_counts_but_its_times_and_tokens_do_not(
    finished: FINISHED, fields: dict[str, object]
) -> None:
    counted = Counted(finished(prompt_tokens=None, output_tokens=None, **fields))

    assert counted.requests(code=str(fields["status"]), outcome="refused") == 1.0
    assert counted.value("headgate_request_duration_seconds_count", **TIER) is None
    assert counted.value("gen_ai_server_request_duration_seconds_count", **GEN_AI, error_type="429") is None
    assert (counted.tokens("prompt"), counted.tokens("prompt", "estimated")) == (None, None)


@pytest.mark.parametrize("fields", [{"status": 500}, {"status": 0, "first_byte_seconds": None}])
def test_only_an_answer_has_a_first_token(finished: FINISHED, fields: dict[str, object]) -> None:
    counted = Counted(finished(outcome=Outcome.MODEL_ERROR, **fields))

    assert counted.value("headgate_request_duration_seconds_count", **TIER) == 1.0
    assert counted.value("headgate_time_to_first_token_seconds_count", **TIER) is None


def test_reported_tokens_are_counted_by_tenant_model_and_kind(finished: FINISHED) -> None:
    counted = Counted(finished(), finished(cached_tokens=5, prompt_tokens=9))

    assert [counted.tokens(kind) for kind in ("prompt", "output", "cached")] == [140.0, 128.0, 5.0]
    assert counted.tokens("output", "estimated") is None


def test_tokens_nobody_reported_are_counted_apart(finished: FINISHED) -> None:
    counted = Counted(
        finished(prompt_tokens=None, output_tokens=None, estimated_output_tokens=30),
        finished(output_tokens=None, estimated_output_tokens=12),
    )

    assert (counted.tokens("prompt", "estimated"), counted.tokens("prompt")) == (120.0, 131.0)
    assert counted.tokens("output", "estimated") == 42.0
    assert counted.tokens("output") is None


def test_a_request_costs_what_its_tokens_cost_on_its_cluster(finished: FINISHED) -> None:
    counted = Counted(finished(cached_tokens=31))

    dollars = counted.value("headgate_cost_dollars_total", tenant="acme", model="assistant")
    assert dollars == pytest.approx((100 * 1 + 31 * 0.5 + 64 * 2) / 1e6)


def test_a_cluster_of_an_older_policy_has_no_price(finished: FINISHED) -> None:
    counted = Counted(finished(cluster="gone"))

    assert counted.value("headgate_cost_dollars_total", tenant="acme", model="assistant") is None
    assert counted.tokens("output") == 64.0


def test_an_estimate_is_compared_with_what_was_reported(finished: FINISHED) -> None:
    counted = Counted(finished(prompt_tokens=100, estimated_prompt_tokens=120), finished(prompt_tokens=None))

    assert counted.value("headgate_token_estimate_error_ratio_sum", model="assistant") == 1.2
    assert counted.value("headgate_token_estimate_error_ratio_count", model="assistant") == 1.0


def test_goodput_is_what_met_the_objective_of_its_tier(finished: FINISHED) -> None:
    counted = Counted(
        finished(),
        finished(first_byte_seconds=0.6),
        finished(verdict="REJECT", status=429, outcome=Outcome.REFUSED),
        finished(verdict="REJECT", status=401, outcome=Outcome.REFUSED),
        finished(tier="batch"),
    )

    assert counted.value("headgate_slo_requests_total", tier="premium") == 3.0
    assert counted.value("headgate_goodput_requests_total", tier="premium") == 1.0
    assert counted.value("headgate_slo_requests_total", tier="batch") is None


def test_attempts_beyond_the_first_are_retries(finished: FINISHED) -> None:
    assert Counted(finished(attempts=3)).value("headgate_retries_total", cluster="best") == 2.0


def test_the_names_of_opentelemetry_show_the_model_servers_part(finished: FINISHED) -> None:
    counted = Counted(finished(), finished(status=500, outcome=Outcome.MODEL_ERROR, is_stream=False))

    assert counted.value("gen_ai_client_token_usage_sum", **GEN_AI, gen_ai_token_type="input") == 262.0
    assert counted.value("gen_ai_client_token_usage_sum", **GEN_AI, gen_ai_token_type="output") == 128.0
    assert counted.value("gen_ai_server_request_duration_seconds_sum", **GEN_AI, error_type="") == 3.375
    assert counted.value("gen_ai_server_request_duration_seconds_sum", **GEN_AI, error_type="500") == 3.375
    assert counted.value("gen_ai_server_time_to_first_token_seconds_sum", **GEN_AI) == 0.125
    assert counted.value("gen_ai_server_time_per_output_token_seconds_sum", **GEN_AI) == pytest.approx(3.15 / 63)


def test_triton_has_a_provider_name_and_its_generate_is_a_text_completion(finished: FINISHED) -> None:
    counted = Counted(finished(protocol="triton", operation="generate_stream"))

    labels = GEN_AI | {"gen_ai_operation_name": "text_completion", "gen_ai_provider_name": "nvidia.triton"}
    assert counted.value("gen_ai_server_time_to_first_token_seconds_count", **labels) == 1.0


def test_what_was_never_sent_to_a_model_is_no_work_of_a_model(finished: FINISHED) -> None:
    counted = Counted(finished(upstream_sent_seconds=None, status=503, outcome=Outcome.GATEWAY_ERROR))

    assert counted.value("gen_ai_server_request_duration_seconds_count", **GEN_AI, error_type="503") is None


def test_a_model_the_policy_does_not_know_is_no_label(finished: FINISHED) -> None:
    counted = Counted(
        finished(
            model="gpt-9", cluster="", verdict="REJECT", reason="unknown_model", status=404, outcome=Outcome.REFUSED
        )
    )

    assert counted.requests(model="", cluster="", code="404", outcome="refused") == 1.0
    assert b"gpt-9" not in counted.metrics.exposition()


def test_tenants_beyond_the_cap_count_as_other(finished: FINISHED) -> None:
    counted = Counted(*(finished(tenant=f"tenant-{number}", prompt_tokens=1) for number in range(1003)))

    assert counted.tokens("prompt", tenant="other") == 3.0


def test_no_header_no_path_and_no_address_reaches_the_metrics(
    logged: Callable[..., pb.HTTPAccessLogEntry], batch: Callable[..., bytes]
) -> None:
    message = batch(logged())
    assert b"header-secret" in message

    written = Counted(*parse_records(message)).metrics.exposition().decode()

    assert "acme" in written
    assert "secret" not in written
    assert "203.0.113.7" not in written
