"""Every field of ours has the peer's number, name, type, cardinality and oneof, every enum the peer's values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import betterproto2
import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from headgate.pb import accesslog_pb2, discovery_pb2, ext_proc_pb2, ratelimit_pb2

# envoy-data-plane 2.2 follows Envoy 1.39. These came with 1.40; the twin test has them from Envoy itself.
NEWER_THAN_DATA_PLANE = {
    "ProcessingResponse.typed_dynamic_metadata",
    "RateLimitDescriptor.RateLimitOverride.unit_multiplier",
    "RateLimitResponse.RateLimit.unit_multiplier",
}
ENVOY_FILES = (ext_proc_pb2, ratelimit_pb2, accesslog_pb2, discovery_pb2)


@dataclass(frozen=True, slots=True)
class Field:
    """One field, described in the same words whatever library it comes from."""

    number: int
    type: str
    cardinality: str
    has_presence: bool
    is_packed: bool
    oneof: str | None
    enum: frozenset[tuple[str, int]] | None
    key: str | None = None
    message: Any = field(default=None, compare=False)


def described(message: Any) -> dict[str, Field]:
    """The fields of a protobuf descriptor or of a betterproto2 class, by name."""
    if isinstance(message, Descriptor):
        return {item.name: _from_descriptor(item) for item in message.fields}
    return {item.name: _from_betterproto(message, item.name) for item in fields(message) if item.name[0] != "_"}


def _from_descriptor(item: FieldDescriptor) -> Field:
    entry = item.message_type if item.message_type and item.message_type.GetOptions().map_entry else None
    value = entry.fields_by_name["value"] if entry else item
    return Field(
        number=item.number,
        type=_type_name(value),
        cardinality="map" if entry else "repeated" if item.is_repeated else "single",
        has_presence=item.has_presence,
        is_packed=item.is_packed,
        oneof=item.containing_oneof.name if item.containing_oneof else None,
        enum=_values(value.enum_type) if value.enum_type else None,
        key=_type_name(entry.fields_by_name["key"]) if entry else None,
        message=value.message_type,
    )


def _type_name(item: FieldDescriptor) -> str:
    if item.message_type and item.message_type.full_name.startswith("google.protobuf."):
        return item.message_type.full_name
    return FieldDescriptorProto.Type.Name(item.type).removeprefix("TYPE_").lower()


def _values(enum: EnumDescriptor) -> frozenset[tuple[str, int]]:
    return frozenset((value.name, value.number) for value in enum.values)


def _from_betterproto(message: Any, name: str) -> Field:
    meta: betterproto2.FieldMetadata = message._betterproto.meta_by_field_name[name]
    key, value = meta.map_meta or (None, meta)
    target = value.unwrap() if value.unwrap else message._betterproto.cls_by_field[f"{name}.value" if key else name]
    is_well_known = target.__module__ == "envoy_data_plane.google.protobuf"
    return Field(
        number=meta.number,
        type=f"google.protobuf.{target.__name__}" if is_well_known else value.proto_type,
        cardinality="map" if key else "repeated" if meta.repeated else "single",
        has_presence=bool(meta.optional),
        # betterproto2 has no switch for it: repeated numbers are packed.
        is_packed=bool(meta.repeated) and value.proto_type not in ("message", "string", "bytes"),
        oneof=meta.group,
        enum=frozenset((item.name, item.value) for item in target) if value.proto_type == "enum" else None,
        key=key.proto_type if key else None,
        message=target if value.proto_type == "message" else None,
    )


def local_name(descriptor: Descriptor) -> str:
    return descriptor.full_name.removeprefix(f"{descriptor.file.package}.")


def differences(ours: Descriptor, peer: Any, known_newer: Iterable[str] = ()) -> Iterator[str]:
    """One line for each field of ours, however deep, that the peer has not or has otherwise."""
    if isinstance(peer, Descriptor) and local_name(ours) != local_name(peer):
        yield f"{local_name(ours)} is called {local_name(peer)}"
    theirs = described(peer)
    for name, mine in described(ours).items():
        path = f"{local_name(ours)}.{name}"
        if path in known_newer:
            continue
        if theirs.get(name) != mine:
            yield f"{path}: {mine} is {theirs.get(name)}"
        elif mine.type == "message":
            yield from differences(mine.message, theirs[name].message, known_newer)


def reached(message: Descriptor) -> set[str]:
    """The full names of the messages and enums that a message is made of, its own included."""
    names = {message.full_name} | {item.enum_type.full_name for item in message.fields if item.enum_type}
    for item in described(message).values():
        if item.type == "message":
            names |= reached(item.message)
    return names


def declared(container: Any) -> set[str]:
    """The full names of all messages and enums in a file or message, without the entries that maps are made of."""
    nested = container.nested_types if isinstance(container, Descriptor) else container.message_types_by_name.values()
    names = {enum.full_name for enum in container.enum_types_by_name.values()}
    for message in nested:
        if not message.GetOptions().map_entry:
            names |= {message.full_name} | declared(message)
    return names


def test_every_field_is_the_one_that_envoy_triton_and_grpc_have_themselves(twin: Any) -> None:
    assert list(differences(twin.ours.DESCRIPTOR, twin.peer.DESCRIPTOR)) == []


def test_every_field_is_the_one_in_envoy_data_plane_except_those_newer_than_it(data_plane: Any) -> None:
    assert list(differences(data_plane.ours.DESCRIPTOR, data_plane.peer, NEWER_THAN_DATA_PLANE)) == []


def test_the_fields_called_newer_than_envoy_data_plane_really_are_missing_there(data_plane: Any) -> None:
    missing = {line.partition(":")[0] for line in differences(data_plane.ours.DESCRIPTOR, data_plane.peer)}
    expected = {path for path in NEWER_THAN_DATA_PLANE if owner_of(path) in reached(data_plane.ours.DESCRIPTOR)}
    assert missing == expected


def owner_of(path: str) -> str:
    message = path.rpartition(".")[0]
    file = "ext_proc" if message.startswith("Processing") else "ratelimit"
    return f"headgate.wire.{file}.{message}"


@pytest.mark.parametrize("module", ENVOY_FILES, ids=lambda module: module.__name__)
def test_no_message_or_enum_escapes_the_comparison(module: Any, envoy_roots: list[Descriptor]) -> None:
    roots = [root for root in envoy_roots if root.file is module.DESCRIPTOR]
    assert declared(module.DESCRIPTOR) == set().union(*map(reached, roots))
