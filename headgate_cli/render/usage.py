"""The filters that read token usage from a model's response into metadata, natively: no message to a sidecar."""

from __future__ import annotations

from pathlib import Path

from envoy_data_plane.envoy.config.core.v3 import DataSource, TypedExtensionConfig
from envoy_data_plane.envoy.extensions.content_parsers.json.v3 import (
    JsonContentParser,
    JsonContentParserRuleConfig,
)
from envoy_data_plane.envoy.extensions.filters.http.json_to_metadata.v3 import (
    JsonToMetadata,
    JsonToMetadataKeyValuePair,
    JsonToMetadataMatchRules,
    JsonToMetadataRule,
    JsonToMetadataSelector,
    JsonToMetadataValueType,
)
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua
from envoy_data_plane.envoy.extensions.filters.http.sse_to_metadata.v3 import (
    SseToMetadata,
    SseToMetadataProcessingRules,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher
from envoy_data_plane.google.protobuf import Any

from headgate_cli.render.filters import METADATA, http_filter

USAGE_METADATA = f"{METADATA}.usage"
"""Namespace of what the response said it used; the last value wins, as a stream reports its total at the end."""

_PLACES = (
    ("prompt_tokens", ("usage", "prompt_tokens")),
    ("completion_tokens", ("usage", "completion_tokens")),
    ("total_tokens", ("usage", "total_tokens")),
    ("cached_tokens", ("usage", "prompt_tokens_details", "cached_tokens")),
    # OpenAI's responses and Anthropic's messages, whole ...
    ("prompt_tokens", ("usage", "input_tokens")),
    ("completion_tokens", ("usage", "output_tokens")),
    ("cached_tokens", ("usage", "input_tokens_details", "cached_tokens")),
    ("cached_tokens", ("usage", "cache_read_input_tokens")),
    # ... and in the last event of the one's stream, the first of the other's.
    ("prompt_tokens", ("response", "usage", "input_tokens")),
    ("completion_tokens", ("response", "usage", "output_tokens")),
    ("total_tokens", ("response", "usage", "total_tokens")),
    ("cached_tokens", ("response", "usage", "input_tokens_details", "cached_tokens")),
    ("prompt_tokens", ("message", "usage", "input_tokens")),
    ("cached_tokens", ("message", "usage", "cache_read_input_tokens")),
    # Triton's TensorRT-LLM ensemble answers these at the top level when asked for them.
    ("prompt_tokens", ("num_input_tokens",)),
)
# Only of a whole document: in a stream each of Triton's events counts its own tokens, and the script adds them up.
_COUNT_EVENTS = Path(__file__).with_name("count_events.lua")
_DOCUMENT_PLACES = (*_PLACES, ("completion_tokens", ("num_output_tokens",)))


def json_usage() -> HttpFilter:
    """Usage of a response that is one JSON document."""
    rules = JsonToMetadataMatchRules(
        rules=[_rule(key, path) for key, path in _DOCUMENT_PLACES],
        # Besides the bare type, which is Envoy's default.
        allow_content_types_regex=RegexMatcher(regex="application/json *;.*"),
    )
    return http_filter("envoy.filters.http.json_to_metadata", JsonToMetadata(response_rules=rules))


def sse_usage() -> HttpFilter:
    """Usage of a response that is a stream of server-sent events."""
    rules = [JsonContentParserRuleConfig(rule=_rule(key, path)) for key, path in _PLACES]
    parser = TypedExtensionConfig(
        name="envoy.content_parsers.json", typed_config=Any.pack(JsonContentParser(rules=rules))
    )
    config = SseToMetadata(response_rules=SseToMetadataProcessingRules(content_parser=parser))
    return http_filter("envoy.filters.http.sse_to_metadata", config)


def event_count() -> HttpFilter:
    """How many events a stream had, and the sum of what they say each produced."""
    script = DataSource(inline_string=_COUNT_EVENTS.read_text())
    return http_filter("envoy.filters.http.lua", Lua(default_source_code=script))


def _rule(key: str, path: tuple[str, ...]) -> JsonToMetadataRule:
    value = JsonToMetadataKeyValuePair(metadata_namespace=USAGE_METADATA, key=key, type=JsonToMetadataValueType.NUMBER)
    return JsonToMetadataRule(selectors=[JsonToMetadataSelector(key=part) for part in path], on_present=value)
