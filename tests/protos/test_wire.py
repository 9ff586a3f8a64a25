"""Bytes written by either side say the same to the other, for every field that both have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2, json_format, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Absent from envoy-data-plane 2.2; the twin tests here and in test_schema.py cover them.
NEWER_THAN_DATA_PLANE = frozenset({"typed_dynamic_metadata", "unit_multiplier"})
# No oneof has more members, so this many variants set each member of each at least once.
VARIANTS = range(8)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Envoy deprecates the field, envoy-data-plane warns whenever it is set, and older Envoys set it.
DEPRECATED = pytest.mark.filterwarnings("ignore:AccessLogCommon.intermediate_log_entry is deprecated")

# -- one message with every field set ---------------------------------------------------------------------------

SCALARS: dict[int, Callable[[int], Any]] = {
    FieldDescriptor.TYPE_BOOL: lambda _: True,
    FieldDescriptor.TYPE_BYTES: lambda number: b"\xff\x00%d" % number,
    FieldDescriptor.TYPE_STRING: lambda number: f"text ü {number}",
    FieldDescriptor.TYPE_FLOAT: lambda number: number + 0.5,
    FieldDescriptor.TYPE_DOUBLE: lambda number: number + 0.25,
    FieldDescriptor.TYPE_INT32: lambda number: -number,
    FieldDescriptor.TYPE_INT64: lambda number: -number << 32,
    FieldDescriptor.TYPE_UINT32: lambda number: number + 2**31,
    FieldDescriptor.TYPE_UINT64: lambda number: number + 2**63,
}


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update(values)
    return message


def packed(text: str) -> any_pb2.Any:
    message = any_pb2.Any()
    message.Pack(wrappers_pb2.StringValue(value=text))
    return message


def microseconds(kind: type[Any], number: int) -> Any:
    # betterproto2 keeps no nanoseconds and reads no negative duration.
    message = kind()
    message.FromMicroseconds(number)
    return message


WELL_KNOWN: dict[str, Callable[[int], Message]] = {
    "google.protobuf.Any": lambda number: packed(f"text {number}"),
    "google.protobuf.Duration": lambda number: microseconds(duration_pb2.Duration, number * 1_000_001),
    "google.protobuf.Struct": lambda number: struct({"n": number, "list": [None, True, "x", {"deep": 0.5}]}),
    "google.protobuf.Timestamp": lambda number: microseconds(timestamp_pb2.Timestamp, number * 1_000_000_007),
    "google.protobuf.UInt32Value": lambda number: wrappers_pb2.UInt32Value(value=number),
    "google.protobuf.UInt64Value": lambda number: wrappers_pb2.UInt64Value(value=number + 2**40),
    "google.protobuf.BoolValue": lambda _: wrappers_pb2.BoolValue(value=True),
}


def filled(message_class: type[Message], variant: int, without: frozenset[str] = frozenset()) -> Any:
    """A message with every field set, each to another value; of every oneof the member whose turn it is."""
    message = message_class()
    _fill(message, variant, without, count(1))
    return message


# Messages that hold themselves, of which we have none.
ENDLESS = {"envoy.service.discovery.v3.DynamicParameterConstraints"}


def _fill(message: Any, variant: int, without: frozenset[str], numbers: Iterator[int]) -> None:
    descriptor = message.DESCRIPTOR
    if descriptor.full_name in ENDLESS:
        return
    if descriptor.full_name in WELL_KNOWN:
        message.ParseFromString(WELL_KNOWN[descriptor.full_name](next(numbers)).SerializeToString())
        return
    turns = {oneof.fields[variant % len(oneof.fields)].name for oneof in descriptor.oneofs}
    for field in descriptor.fields:
        if field.name not in without and (field.containing_oneof is None or field.name in turns):
            _fill_field(message, field, variant, without, numbers)


def _fill_field(
    message: Any, field: FieldDescriptor, variant: int, without: frozenset[str], numbers: Iterator[int]
) -> None:
    value = getattr(message, field.name)
    if is_map(field):
        item = field.message_type.fields_by_name["value"]
        for key in ("", f"key {next(numbers)}"):
            if item.message_type:
                _fill(value[key], variant, without, numbers)
            else:
                value[key] = scalar(item, next(numbers))
    elif field.message_type:
        for target in (value.add(), value.add()) if field.is_repeated else (value,):
            target.SetInParent()
            _fill(target, variant, without, numbers)
    elif field.is_repeated:
        value.extend([scalar(field, next(numbers)), scalar(field, 0), scalar(field, next(numbers))])
    else:
        setattr(message, field.name, scalar(field, next(numbers)))


def scalar(field: FieldDescriptor, number: int) -> Any:
    if field.enum_type:
        return field.enum_type.values[-1 - number % (len(field.enum_type.values) - 1)].number
    return SCALARS[field.type](number)


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


# -- any message ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ANY_WELL_KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "google.protobuf.Any": st.text(max_size=8).map(packed),
    "google.protobuf.Duration": st.integers(0, 10**12).map(lambda n: microseconds(duration_pb2.Duration, n)),
    "google.protobuf.Struct": st.dictionaries(st.text(max_size=5), JSON, max_size=3).map(struct),
    "google.protobuf.Timestamp": st.integers(0, 4 * 10**15).map(lambda n: microseconds(timestamp_pb2.Timestamp, n)),
    "google.protobuf.UInt32Value": st.integers(0, 2**32 - 1).map(lambda n: wrappers_pb2.UInt32Value(value=n)),
    "google.protobuf.UInt64Value": st.integers(0, 2**64 - 1).map(lambda n: wrappers_pb2.UInt64Value(value=n)),
}
ANY_SCALAR: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=12),
    FieldDescriptor.TYPE_STRING: st.text(max_size=12),
    FieldDescriptor.TYPE_FLOAT: st.floats(allow_nan=False, width=32),
    # Adding 0.0 turns -0.0, which betterproto2 does not write, into 0.0.
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
}


@cache
def messages(descriptor: Descriptor, without: frozenset[str] = frozenset()) -> st.SearchStrategy[Any]:
    """Messages of one type with any of their fields set, and at most one member of each oneof."""
    if descriptor.full_name in ANY_WELL_KNOWN:
        return ANY_WELL_KNOWN[descriptor.full_name]
    fields = [field for field in descriptor.fields if field.name not in without]
    alone = {field.name: values(field, without) for field in fields if field.containing_oneof is None}
    choices = [
        st.one_of(st.just({}), *(st.fixed_dictionaries({field.name: values(field, without)}) for field in oneof.fields))
        for oneof in descriptor.oneofs
    ]
    message_class = GetMessageClass(descriptor)
    parts = st.tuples(st.fixed_dictionaries({}, optional=alone), *choices)
    return parts.map(lambda dicts: message_class(**{name: value for part in dicts for name, value in part.items()}))


def values(field: FieldDescriptor, without: frozenset[str]) -> st.SearchStrategy[Any]:
    if is_map(field):
        return st.dictionaries(
            st.text(max_size=5), _one(field.message_type.fields_by_name["value"], without), max_size=2
        )
    return st.lists(_one(field, without), max_size=2) if field.is_repeated else _one(field, without)


def _one(field: FieldDescriptor, without: frozenset[str]) -> st.SearchStrategy[Any]:
    if field.enum_type:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return messages(field.message_type, without) if field.message_type else ANY_SCALAR[field.type]


# -- what a message says ----------------------------------------------------------------------------------------


def said(message: Any, known: Descriptor) -> Any:
    """The content of a message by field name, as far as `known`, ours or the peer's type, has the fields."""
    if known.full_name in WELL_KNOWN:
        return message.SerializeToString(deterministic=True)
    return {
        field.name: _said_by(value, field, known.fields_by_name[field.name])
        for field, value in message.ListFields()
        if field.name in known.fields_by_name
    }


def _said_by(value: Any, field: FieldDescriptor, known: FieldDescriptor) -> Any:
    if is_map(field):
        item = known.message_type.fields_by_name["value"]
        return {key: said(value[key], item.message_type) if item.message_type else value[key] for key in value}
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    if field.is_repeated:
        return [said(item, known.message_type) for item in value]
    return said(value, known.message_type)


def assert_twins_agree(ours: Any, peer_class: Any) -> None:
    theirs = peer_class.FromString(ours.SerializeToString())
    assert said(theirs, peer_class.DESCRIPTOR) == said(ours, ours.DESCRIPTOR)
    assert type(ours).FromString(theirs.SerializeToString()) == ours


def assert_data_plane_agrees(ours: Any, peer_class: Any) -> None:
    # One is built from names (JSON), the other from numbers (bytes): neither can hide the other's mistake.
    by_name = peer_class.from_dict(json_format.MessageToDict(ours))
    by_number = peer_class.parse(ours.SerializeToString())
    assert by_number == by_name
    assert type(ours).FromString(bytes(by_name)) == ours


def test_a_message_of_ours_with_every_field_set_says_the_same_to_the_peer(twin: Any) -> None:
    for variant in VARIANTS:
        assert_twins_agree(filled(twin.ours, variant), twin.peer)


def test_a_message_of_the_peer_with_every_field_set_says_the_same_to_us_and_what_we_left_out_does_no_harm(
    twin: Any,
) -> None:
    for variant in VARIANTS:
        theirs = filled(twin.peer, variant)
        ours = twin.ours.FromString(theirs.SerializeToString())
        assert said(ours, ours.DESCRIPTOR) == said(theirs, ours.DESCRIPTOR)


@DEPRECATED
def test_a_message_with_every_field_set_says_the_same_to_envoy_data_plane_and_back(data_plane: Any) -> None:
    for variant in VARIANTS:
        assert_data_plane_agrees(filled(data_plane.ours, variant, NEWER_THAN_DATA_PLANE), data_plane.peer)


@QUICK
@given(data=st.data())
def test_any_message_says_the_same_to_the_peer_and_back(twin: Any, data: st.DataObject) -> None:
    assert_twins_agree(data.draw(messages(twin.ours.DESCRIPTOR)), twin.peer)


@DEPRECATED
@QUICK
@given(data=st.data())
def test_any_message_says_the_same_to_envoy_data_plane_and_back(data_plane: Any, data: st.DataObject) -> None:
    message = data.draw(messages(data_plane.ours.DESCRIPTOR, NEWER_THAN_DATA_PLANE))
    assert_data_plane_agrees(message, data_plane.peer)


def test_no_oneof_has_more_members_than_there_are_variants(twin: Any) -> None:
    assert max((len(oneof.fields) for oneof in twin.ours.DESCRIPTOR.oneofs), default=0) <= len(VARIANTS)
