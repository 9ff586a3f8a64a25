"""What Envoy and Headgate say to each other in one life of a request, written by hand on either side."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.data.accesslog import v3 as data_accesslog
from envoy_data_plane.envoy.extensions.common.ratelimit import v3 as common_ratelimit
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc_filter
from envoy_data_plane.envoy.service.accesslog import v3 as accesslog
from envoy_data_plane.envoy.service.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.service.ratelimit import v3 as ratelimit
from envoy_data_plane.envoy.type import v3 as types
from envoy_data_plane.google.protobuf import Struct
from google.protobuf import json_format
from grpclib.health.v1 import health_pb2 as grpclib_health_pb2
from tritonclient.grpc import service_pb2 as triton_pb2

from headgate.pb import accesslog_pb2, ext_proc_pb2, health_pb2, kserve_pb2, ratelimit_pb2


def test_envoys_first_message_arrives_with_headers_attributes_metadata_and_protocol_config() -> None:
    sent = ext_proc.ProcessingRequest(
        request_headers=ext_proc.HttpHeaders(
            headers=core.HeaderMap(
                headers=[
                    core.HeaderValue(key=":path", raw_value=b"/v1/chat/completions"),
                    core.HeaderValue(key="x-name", raw_value=b"J\xf6rg"),
                ]
            )
        ),
        metadata_context=core.Metadata(
            filter_metadata={"envoy.filters.http.jwt_authn": Struct.from_dict({"payload": {"org": "acme"}})}
        ),
        attributes={"envoy.filters.http.ext_proc": Struct.from_dict({"request.id": "r-1", "source.port": 5123})},
        protocol_config=ext_proc.ProtocolConfiguration(
            request_body_mode=ext_proc_filter.ProcessingModeBodySendMode.BUFFERED
        ),
    )
    got = ext_proc_pb2.ProcessingRequest.FromString(bytes(sent))
    assert got.WhichOneof("request") == "request_headers"
    assert [(header.key, header.raw_value) for header in got.request_headers.headers.headers] == [
        (":path", b"/v1/chat/completions"),
        ("x-name", b"J\xf6rg"),
    ]
    assert not got.request_headers.end_of_stream
    assert got.metadata_context.filter_metadata["envoy.filters.http.jwt_authn"]["payload"]["org"] == "acme"
    assert got.attributes["envoy.filters.http.ext_proc"]["request.id"] == "r-1"
    assert got.attributes["envoy.filters.http.ext_proc"]["source.port"] == 5123
    assert got.protocol_config.request_body_mode == ext_proc_pb2.ProcessingMode.BUFFERED
    assert not got.observability_mode


def test_a_buffered_body_and_the_trailers_after_it_arrive_as_their_own_messages() -> None:
    body = ext_proc.ProcessingRequest(request_body=ext_proc.HttpBody(body=b'{"model":"\xff"}', end_of_stream=True))
    trailers = ext_proc.ProcessingRequest(
        response_trailers=ext_proc.HttpTrailers(
            trailers=core.HeaderMap(headers=[core.HeaderValue(key="grpc-status", raw_value=b"0")])
        )
    )
    first, second = (ext_proc_pb2.ProcessingRequest.FromString(bytes(message)) for message in (body, trailers))
    assert first.WhichOneof("request") == "request_body"
    assert (first.request_body.body, first.request_body.end_of_stream) == (b'{"model":"\xff"}', True)
    assert second.WhichOneof("request") == "response_trailers"
    assert second.response_trailers.trailers.headers[0].key == "grpc-status"


def test_an_admission_with_routing_headers_a_new_body_and_metadata_reaches_envoy() -> None:
    answer = ext_proc_pb2.ProcessingResponse()
    common = answer.request_body.response
    common.clear_route_cache = True
    common.body_mutation.body = b"{}"
    common.header_mutation.remove_headers.append("x-api-key")
    for key, value in (("x-model-cluster", b"best"), ("content-length", b"2")):
        common.header_mutation.set_headers.add(
            header=ext_proc_pb2.HeaderValue(key=key, raw_value=value),
            append_action=ext_proc_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
    answer.dynamic_metadata.update({"headgate": {"tenant": "acme", "charged_tokens": 640}})
    answer.mode_override.response_header_mode = ext_proc_pb2.ProcessingMode.SKIP
    answer.mode_override.response_trailer_mode = ext_proc_pb2.ProcessingMode.SEND
    answer.override_message_timeout.FromTimedelta(timedelta(seconds=2.5))

    got = ext_proc.ProcessingResponse.parse(answer.SerializeToString())
    overwrite = core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    assert got.request_body == ext_proc.BodyResponse(
        response=ext_proc.CommonResponse(
            header_mutation=ext_proc.HeaderMutation(
                set_headers=[
                    core.HeaderValueOption(
                        header=core.HeaderValue(key="x-model-cluster", raw_value=b"best"), append_action=overwrite
                    ),
                    core.HeaderValueOption(
                        header=core.HeaderValue(key="content-length", raw_value=b"2"), append_action=overwrite
                    ),
                ],
                remove_headers=["x-api-key"],
            ),
            body_mutation=ext_proc.BodyMutation(body=b"{}"),
            clear_route_cache=True,
        )
    )
    assert got.dynamic_metadata == Struct.from_dict({"headgate": {"tenant": "acme", "charged_tokens": 640}})
    assert got.mode_override == ext_proc_filter.ProcessingMode(
        response_header_mode=ext_proc_filter.ProcessingModeHeaderSendMode.SKIP,
        response_trailer_mode=ext_proc_filter.ProcessingModeHeaderSendMode.SEND,
    )
    assert got.override_message_timeout == timedelta(seconds=2.5)


def test_a_refusal_reaches_envoy_with_status_grpc_status_headers_body_and_details() -> None:
    answer = ext_proc_pb2.ProcessingResponse()
    refusal = answer.immediate_response
    refusal.status.code = ext_proc_pb2.TooManyRequests
    refusal.grpc_status.status = 8
    refusal.headers.set_headers.add(header=ext_proc_pb2.HeaderValue(key="retry-after", raw_value=b"1"))
    refusal.body = b'{"error":{}}'
    refusal.details = "headgate_tenant_concurrency"
    got = ext_proc.ProcessingResponse.parse(answer.SerializeToString()).immediate_response
    assert got == ext_proc.ImmediateResponse(
        status=types.HttpStatus(code=types.StatusCode.TooManyRequests),
        headers=ext_proc.HeaderMutation(
            set_headers=[core.HeaderValueOption(header=core.HeaderValue(key="retry-after", raw_value=b"1"))]
        ),
        body=b'{"error":{}}',
        grpc_status=ext_proc.GrpcStatus(status=8),
        details="headgate_tenant_concurrency",
    )


def test_a_status_that_envoys_enum_does_not_name_still_travels() -> None:
    answer = ext_proc_pb2.HttpStatus(code=529)
    assert ext_proc_pb2.HttpStatus.FromString(answer.SerializeToString()).code == 529


def test_a_rate_limit_question_tells_absent_hits_from_zero_hits_and_carries_override_and_refund() -> None:
    entry = common_ratelimit.RateLimitDescriptorEntry
    sent = ratelimit.RateLimitRequest(
        domain="headgate",
        hits_addend=2,
        descriptors=[
            common_ratelimit.RateLimitDescriptor(entries=[entry(key="tenant", value="acme"), entry(key="limit")]),
            common_ratelimit.RateLimitDescriptor(entries=[entry(key="tenant", value="acme")], hits_addend=0),
            common_ratelimit.RateLimitDescriptor(
                limit=common_ratelimit.RateLimitDescriptorRateLimitOverride(
                    requests_per_unit=77, unit=types.RateLimitUnit.MONTH
                ),
                hits_addend=2**40,
                is_negative_hits=True,
            ),
        ],
    )
    got = ratelimit_pb2.RateLimitRequest.FromString(bytes(sent))
    plain, zero, refund = got.descriptors
    assert (got.domain, got.hits_addend) == ("headgate", 2)
    assert [(item.key, item.value) for item in plain.entries] == [("tenant", "acme"), ("limit", "")]
    assert not plain.HasField("hits_addend")
    assert zero.HasField("hits_addend")
    assert zero.hits_addend.value == 0
    assert not zero.HasField("limit")
    assert (refund.hits_addend.value, refund.is_negative_hits) == (2**40, True)
    assert (refund.limit.requests_per_unit, refund.limit.unit) == (77, ratelimit_pb2.MONTH)


def test_a_rate_limit_verdict_reaches_envoy_with_limits_reset_headers_body_and_metadata() -> None:
    code, limit = ratelimit_pb2.RateLimitResponse, ratelimit_pb2.RateLimitResponse.RateLimit
    answer = ratelimit_pb2.RateLimitResponse(overall_code=code.OVER_LIMIT, raw_body=b"slow down")
    answer.statuses.add(code=code.OK)
    status = answer.statuses.add(code=code.OVER_LIMIT, limit_remaining=0)
    status.current_limit.CopyFrom(limit(name="tpm", requests_per_unit=100, unit=limit.WEEK))
    status.duration_until_reset.FromTimedelta(timedelta(seconds=30))
    answer.response_headers_to_add.add(key="retry-after", value="30")
    answer.request_headers_to_add.add(key="x-checked", value="1")
    answer.dynamic_metadata.update({"tenant": "acme"})
    assert ratelimit.RateLimitResponse.parse(answer.SerializeToString()) == ratelimit.RateLimitResponse(
        overall_code=ratelimit.RateLimitResponseCode.OVER_LIMIT,
        statuses=[
            ratelimit.RateLimitResponseDescriptorStatus(code=ratelimit.RateLimitResponseCode.OK),
            ratelimit.RateLimitResponseDescriptorStatus(
                code=ratelimit.RateLimitResponseCode.OVER_LIMIT,
                current_limit=ratelimit.RateLimitResponseRateLimit(
                    name="tpm", requests_per_unit=100, unit=ratelimit.RateLimitResponseRateLimitUnit.WEEK
                ),
                duration_until_reset=timedelta(seconds=30),
            ),
        ],
        response_headers_to_add=[core.HeaderValue(key="retry-after", value="30")],
        request_headers_to_add=[core.HeaderValue(key="x-checked", value="1")],
        raw_body=b"slow down",
        dynamic_metadata=Struct.from_dict({"tenant": "acme"}),
    )


STARTED = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def envoys_common_properties() -> data_accesslog.AccessLogCommon:
    return data_accesslog.AccessLogCommon(
        start_time=STARTED,
        time_to_first_upstream_rx_byte=timedelta(milliseconds=120),
        duration=timedelta(seconds=3, microseconds=7),
        tls_properties=data_accesslog.TlsProperties(tls_sni_hostname="api.example.com"),
        downstream_remote_address=core.Address(
            socket_address=core.SocketAddress(address="10.0.0.7", port_value=5123, ipv4_compat=True)
        ),
        upstream_cluster="best",
        response_flags=data_accesslog.ResponseFlags(downstream_connection_termination=True),
        metadata=core.Metadata(
            filter_metadata={"headgate": Struct.from_dict({"tenant": "acme", "prompt_tokens": 512})}
        ),
        upstream_request_attempt_count=2,
        custom_tags={"zone": "a"},
        downstream_wire_bytes_sent=2**33,
        stream_id="s-1",
        access_log_type=data_accesslog.AccessLogType.DownstreamEnd,
    )


def envoys_record() -> data_accesslog.HttpAccessLogEntry:
    return data_accesslog.HttpAccessLogEntry(
        common_properties=envoys_common_properties(),
        protocol_version=data_accesslog.HttpAccessLogEntryHttpVersion.HTTP2,
        request=data_accesslog.HttpRequestProperties(
            request_method=core.RequestMethod.POST, path="/v1/completions", request_headers={"a": "b"}
        ),
        response=data_accesslog.HttpResponseProperties(
            response_code=200, response_code_details="via_upstream", response_trailers={"grpc-status": "0"}
        ),
    )


def received(message: accesslog.StreamAccessLogsMessage) -> accesslog_pb2.StreamAccessLogsMessage:
    return accesslog_pb2.StreamAccessLogsMessage.FromString(bytes(message))


def received_record() -> accesslog_pb2.HTTPAccessLogEntry:
    logs = accesslog.StreamAccessLogsMessageHttpAccessLogEntries(log_entry=[envoys_record()])
    [entry] = received(accesslog.StreamAccessLogsMessage(http_logs=logs)).http_logs.log_entry
    return entry


def test_an_access_log_stream_says_first_which_envoy_and_which_log_it_is() -> None:
    node = core.Node(id="n1", cluster="edge", user_agent_name="envoy", metadata=Struct.from_dict({"x": 1}))
    identifier = accesslog.StreamAccessLogsMessageIdentifier(node=node, log_name="headgate")
    got = received(accesslog.StreamAccessLogsMessage(identifier=identifier)).identifier
    assert (got.node.id, got.node.cluster, got.log_name) == ("n1", "edge", "headgate")


def test_an_access_log_record_arrives_with_timings_flags_and_metadata_and_without_what_we_left_out() -> None:
    common = received_record().common_properties
    assert common.start_time.ToDatetime(tzinfo=UTC) == STARTED
    assert common.time_to_first_upstream_rx_byte.ToTimedelta() == timedelta(milliseconds=120)
    assert common.duration.ToTimedelta() == timedelta(seconds=3, microseconds=7)
    assert not common.HasField("time_to_last_downstream_tx_byte")
    peer = common.downstream_remote_address.socket_address
    assert (peer.address, peer.port_value) == ("10.0.0.7", 5123)
    assert common.upstream_cluster == "best"
    assert [flag.name for flag, _ in common.response_flags.ListFields()] == ["downstream_connection_termination"]
    metadata = json_format.MessageToDict(common.metadata.filter_metadata["headgate"])
    assert metadata == {"tenant": "acme", "prompt_tokens": 512}
    assert (common.upstream_request_attempt_count, common.stream_id) == (2, "s-1")
    assert dict(common.custom_tags) == {"zone": "a"}
    assert common.downstream_wire_bytes_sent == 2**33
    assert common.access_log_type == accesslog_pb2.DownstreamEnd


def test_an_access_log_record_arrives_with_request_and_response() -> None:
    entry = received_record()
    assert entry.protocol_version == accesslog_pb2.HTTPAccessLogEntry.HTTP2
    assert (entry.request.request_method, entry.request.path) == (accesslog_pb2.POST, "/v1/completions")
    assert dict(entry.request.request_headers) == {"a": "b"}
    assert entry.response.response_code.value == 200
    assert entry.response.response_code_details == "via_upstream"
    assert dict(entry.response.response_trailers) == {"grpc-status": "0"}


def test_a_triton_inference_request_arrives_with_tensors_raw_contents_and_parameters() -> None:
    sent = triton_pb2.ModelInferRequest(model_name="best", id="7", raw_input_contents=[b"\x02\x00\x00\x00hi"])
    sent.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    sent.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1]).contents.int_contents.append(64)
    sent.outputs.add(name="text_output")
    sent.parameters["priority"].uint64_param = 2**63
    sent.parameters["temperature"].double_param = 0.5
    got = kserve_pb2.ModelInferRequest.FromString(sent.SerializeToString())
    assert (got.model_name, got.id, list(got.raw_input_contents)) == ("best", "7", [b"\x02\x00\x00\x00hi"])
    assert [(item.name, item.datatype, list(item.shape)) for item in got.inputs] == [
        ("text_input", "BYTES", [1, 1]),
        ("max_tokens", "INT32", [1, 1]),
    ]
    assert list(got.inputs[1].contents.int_contents) == [64]
    assert [item.name for item in got.outputs] == ["text_output"]
    assert got.parameters["priority"].WhichOneof("parameter_choice") == "uint64_param"
    assert got.parameters["priority"].uint64_param == 2**63
    assert got.parameters["temperature"].double_param == 0.5


def test_an_error_inside_a_triton_stream_reaches_the_client_of_triton() -> None:
    answer = kserve_pb2.ModelStreamInferResponse(error_message="over limit")
    answer.infer_response.model_name = "best"
    answer.infer_response.parameters["triton_final_response"].bool_param = True
    got = triton_pb2.ModelStreamInferResponse.FromString(answer.SerializeToString())
    assert got.error_message == "over limit"
    assert got.infer_response.model_name == "best"
    assert got.infer_response.parameters["triton_final_response"].bool_param


def test_a_health_check_is_understood_both_ways() -> None:
    asked = grpclib_health_pb2.HealthCheckRequest(service="envoy.service.ext_proc.v3.ExternalProcessor")
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    assert health_pb2.HealthCheckRequest.FromString(asked.SerializeToString()).service == asked.service
    answered = grpclib_health_pb2.HealthCheckResponse.FromString(serving.SerializeToString())
    assert answered.status == grpclib_health_pb2.HealthCheckResponse.SERVING
