"""A control plane's messages to files of configuration and back; besides `wire` the only module that names protobuf.

A resource becomes a file as somebody would have written it, so that both are checked by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
from google.protobuf.message import DecodeError

from headgate.pb import discovery_pb2 as discovery
from headgate.pb import ratelimit_config_pb2 as pb
from ratelimit.limits import Json

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
TYPE_URL = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"
_INVALID_ARGUMENT = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """One response of the control plane.

    Attributes:
        files: pairs of name and contents; None when a resource cannot be read.
    """

    version: str
    nonce: str
    files: tuple[tuple[str, bytes], ...] | None


@dataclass(frozen=True, slots=True)
class Question:
    """What the control plane is told: who asks, and what became of its last answer.

    Attributes:
        version: the last one that was taken.
        nonce: of the last answer; empty for the first question of a stream.
        problem: why that answer is refused; empty when it is not.
    """

    node_id: str
    node_metadata: Mapping[str, str]
    version: str = ""
    nonce: str = ""
    problem: str = ""


def encode_question(question: Question) -> bytes:
    """Write a DiscoveryRequest."""
    node = discovery.Node(id=question.node_id)
    if question.node_metadata:
        node.metadata.update(dict(question.node_metadata))
    message = discovery.DiscoveryRequest(
        node=node, type_url=TYPE_URL, version_info=question.version, response_nonce=question.nonce
    )
    if question.problem:
        message.error_detail.code = _INVALID_ARGUMENT
        message.error_detail.message = question.problem
    return bytes(message.SerializeToString())


def decode_answer(message: bytes) -> Answer:
    """Read a DiscoveryResponse.

    Raises:
        ValueError: the bytes are none.
    """
    try:
        response = discovery.DiscoveryResponse.FromString(message)
    except DecodeError as error:
        raise ValueError("not a DiscoveryResponse") from error
    try:
        files = tuple(_file(pb.RateLimitConfig.FromString(resource.value)) for resource in response.resources)
    except DecodeError:
        return Answer(response.version_info, response.nonce, None)
    return Answer(response.version_info, response.nonce, files)


def _file(config: pb.RateLimitConfig) -> tuple[str, bytes]:
    # JSON is YAML.
    return config.name, msgspec.json.encode({"domain": config.domain, "descriptors": _descriptors(config.descriptors)})


def _descriptors(messages: Iterable[pb.RateLimitDescriptor]) -> list[Json]:
    return [
        {
            "key": message.key,
            "value": message.value,
            "rate_limit": _policy(message.rate_limit) if message.HasField("rate_limit") else None,
            "descriptors": _descriptors(message.descriptors),
            "shadow_mode": message.shadow_mode,
            "detailed_metric": message.detailed_metric,
            "quota_mode": message.quota_mode,
        }
        for message in messages
    ]


def _policy(message: pb.RateLimitPolicy) -> dict[str, Json]:
    return {
        "unit": pb.RateLimitUnit.Name(message.unit) if message.unit in pb.RateLimitUnit.values() else str(message.unit),
        "requests_per_unit": message.requests_per_unit,
        "unlimited": message.unlimited,
        "name": message.name,
        "replaces": [{"name": replaced.name} for replaced in message.replaces],
    }
