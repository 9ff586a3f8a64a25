"""The policy file -> `Policy`: every section, then what the sections say of each other.

Finds all problems of a file in one go. Reads bytes it is given; opens nothing and watches nothing.
"""

from __future__ import annotations

import gc
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from headgate.errors import PolicyError
from headgate.policy.document import parse_document
from headgate.policy.model import IdentitySource, OnStoreFailure, Policy, Tier
from headgate.policy.node import Node
from headgate.policy.rules import RuleEngine
from headgate.policy.sections.clusters import read_cluster
from headgate.policy.sections.identity import read_identity
from headgate.policy.sections.models import read_model
from headgate.policy.sections.tenants import read_tenant
from headgate.policy.sections.tiers import check_reservations, read_tier

API_VERSION = "headgate/v1"
NAME = r"[A-Za-z0-9][A-Za-z0-9._@:/-]{0,127}"
"""Names travel in headers, metric labels and rate limit descriptors."""

Value = TypeVar("Value")


def load_policy(text: bytes, file: str) -> Policy:
    """Read a whole policy.

    Args:
        text: the file's bytes.
        file: its name, for the messages.

    Raises:
        PolicyError: with every problem of the file.
    """
    with _collector_paused():
        root = parse_document(text, file)
        sections = root.fields(
            "on_store_failure", required=("apiVersion", "identity", "tenants", "tiers", "models", "clusters")
        )
        policy = _policy(sections, version=hashlib.sha256(text).hexdigest()[:12])
    if root.problems:
        raise PolicyError(root.problems)
    return policy


@dataclass(frozen=True, slots=True)
class _NameForm:
    """What the names of a section look like, as a pattern and in words."""

    pattern: str
    meaning: str


_ANY_NAME = _NameForm(NAME, "up to 128 letters, digits and ._@:/-, the first a letter or a digit")
_CLUSTER_NAME = _NameForm(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", "up to 63 letters, digits, - and _, the first a letter or a digit"
)


def _policy(sections: Mapping[str, Node], version: str) -> Policy:
    """The policy as far as it can be read; problems are noted on the nodes."""
    # All names are known before any section is read, so that every reference is checked where it stands.
    tiers, tenants, clusters = (_names(sections.get(section)) for section in ("tiers", "tenants", "clusters"))
    engine, key_owners = RuleEngine(), dict[str, str]()
    tenant = partial(read_tenant, tiers=tiers, key_owners=key_owners)
    model = partial(read_model, clusters=clusters, engine=engine)
    if "apiVersion" in sections:
        sections["apiVersion"].text(re.escape(API_VERSION), f"'{API_VERSION}'")
    return Policy(
        version=version,
        identity=_identity(sections.get("identity"), tenants, tiers),
        tiers=_tiers(sections.get("tiers")),
        tenants=_entries(sections.get("tenants"), tenant, empty=""),
        clusters=_entries(sections.get("clusters"), read_cluster, form=_CLUSTER_NAME),
        models=_entries(sections.get("models"), model),
        tenants_by_key=MappingProxyType(key_owners),
        rules=engine,
        on_store_failure=_on_store_failure(sections.get("on_store_failure")),
    )


def _names(section: Node | None) -> set[str] | None:
    """The names a section defines; None where it cannot be told, so that no reference to them is called wrong."""
    if section is None or not section.is_mapping:
        return None
    return {name for name, _ in section.silent().named()}


def _entries(
    section: Node | None,
    read: Callable[[str, Node], Value],
    *,
    form: _NameForm = _ANY_NAME,
    empty: str = "names nothing",
) -> Mapping[str, Value]:
    values: dict[str, Value] = {}
    for name, node in section.named(empty=empty) if section else ():
        if not re.fullmatch(form.pattern, name):
            node.report(f"cannot be a name: {form.meaning}")
        values[name] = read(name, node)
    return MappingProxyType(values)


def _identity(section: Node | None, tenants: set[str] | None, tiers: set[str] | None) -> tuple[IdentitySource, ...]:
    return tuple(read_identity(section, tenants=tenants, tiers=tiers)) if section else ()


def _tiers(section: Node | None) -> Mapping[str, Tier]:
    tiers = _entries(section, read_tier)
    if section:
        check_reservations(section, tiers)
    return tiers


def _on_store_failure(node: Node | None) -> OnStoreFailure:
    chosen = node.choice(OnStoreFailure) if node else None
    return chosen or OnStoreFailure.CLOSED


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking a growing tree over and over: three quarters of a large file's time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
