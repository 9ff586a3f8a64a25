"""The policy as immutable values: who the tenants are, what each tier is owed, where models run.

Knows no YAML, no files and no clock; `headgate.policy.load` builds these values and nothing changes them.
Units are in the names; a limit of None means "no limit", a limit of 0 means "nothing is let through".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from headgate.policy.rules import Rule, RuleEngine, RuleTable
from headgate.remembered import Remembered

DEFAULT_MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024
"""The most any tier may be allowed."""
DEFAULT_QUEUE_BYTES = 256 * 1024 * 1024
DEFAULT_IMAGE_TOKENS = 1024
DEFAULT_AUDIO_TOKENS_PER_SECOND = 25.0
DEFAULT_OPERATIONS = frozenset({"chat", "text_completion"})
"""What a server of OpenAI's API is asked for where the policy does not say more."""
_MAX_STANDINGS = 4096

Decoding = float | int | str | tuple[str, ...]


class Protocol(StrEnum):
    """The API a client speaks. Anthropic's is served where OpenAI's is: on the same port, as one more operation."""

    OPENAI = "openai"
    TRITON = "triton"
    KSERVE_GRPC = "kserve_grpc"
    ANTHROPIC = "anthropic"


class Affinity(StrEnum):
    """What keeps requests on one endpoint of a cluster, so that its prefix cache is used again."""

    OFF = "off"
    SESSION = "session"
    PREFIX = "prefix"


class OpenAiOperation(StrEnum):
    """What can be asked of a server of OpenAI's API, besides its metadata; `messages` is Anthropic's."""

    CHAT = "chat"
    TEXT_COMPLETION = "text_completion"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"


class Backend(StrEnum):
    """The program behind a cluster, where its dialect of an API matters."""

    TRTLLM = "trtllm"
    VLLM = "vllm"
    TRITON = "triton"


class Rung(StrEnum):
    """One step of a tier's overload ladder, tried in the order the tier names them."""

    QUEUE = "queue"
    DEGRADE = "degrade"
    REJECT = "reject"


class OnStoreFailure(StrEnum):
    """What a sidecar does while the store gives no answer."""

    OPEN = "open"
    CLOSED = "closed"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtIdentity:
    """A JWT that Envoy's jwt_authn has verified; its payload travels base64url-encoded in a header."""

    payload_header: str
    tenant_claim: str
    default_tier: str | None = None

    @property
    def header(self) -> str:
        """Where the credential stands."""
        return self.payload_header


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyIdentity:
    """An API key in a header; `authorization` means `Bearer KEY`. Keys are known by their sha256 only."""

    header: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MtlsIdentity:
    """A SPIFFE id from `x-forwarded-client-cert`; the pattern holds `{tenant}` once and `*` for one segment."""

    header: ClassVar[str] = "x-forwarded-client-cert"
    spiffe: str
    default_tier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymousIdentity:
    """Requests without any credential belong to this tenant. Always the last source."""

    tenant: str


IdentitySource = JwtIdentity | ApiKeyIdentity | MtlsIdentity | AnonymousIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """What one tenant may use, whatever its tier allows.

    Attributes:
        cached_token_weight: how much of a prompt token counts that the model server found in its cache, 0 to 1.
    """

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    cached_token_weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Who pays."""

    name: str
    tier: str
    api_key_sha256: tuple[str, ...] = ()
    weight: float = 1.0
    limits: TenantLimits = field(default_factory=TenantLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """How long and how deep a tier may wait for a cluster; the depth counts requests and the bytes they hold."""

    max_wait_seconds: float
    max_depth: int
    max_bytes: int = DEFAULT_QUEUE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTokens:
    """The tier's output-token default (for requests that name none) and cap (for all)."""

    default: int | None = None
    max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """The class of service a tenant bought. A lower `priority` number is served first."""

    name: str
    priority: int
    reserved: float = 0.0
    tier_concurrency: int | None = None
    tenant_concurrency: int | None = None
    queue: Queue | None = None
    on_overload: tuple[Rung, ...] = (Rung.REJECT,)
    output_tokens: OutputTokens = field(default_factory=OutputTokens)
    ttft_slo_seconds: float | None = None
    preemptible: bool = False
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of a model's routing table; the first whose `when` holds (or is None) is taken.

    `overrides` are decoding parameters the request gets whatever it asked for: OpenAI's name -> value.
    """

    cluster: str
    when: Rule | None = None
    max_output_tokens: int | None = None
    reason: str | None = None
    overrides: Mapping[str, Decoding] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A stable name product teams use, where it runs, and what its prompts cost.

    Attributes:
        tokenizer: the path of the `tokenizer.json` that counts exactly where an estimate might decide wrongly.
    """

    name: str
    routes: tuple[Route, ...]
    degrade: tuple[str, ...] = ()
    image_tokens: int = DEFAULT_IMAGE_TOKENS
    audio_tokens_per_second: float = DEFAULT_AUDIO_TOKENS_PER_SECOND
    tokenizer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """One API of a cluster: its protocol, the model's name there, and its `host:port` endpoints.

    Attributes:
        envoy_cluster: the name in Envoy's configuration and the value of `x-model-cluster`.
        operations: of OpenAI's API, the `OpenAiOperation`s it can be asked for.
    """

    protocol: Protocol
    model: str
    endpoints: tuple[str, ...]
    envoy_cluster: str
    operations: frozenset[str] = DEFAULT_OPERATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How much a cluster holds at once, and how fast it computes prompts. `auto` finds the request limit by itself."""

    requests: int | None = None
    tokens: int | None = None
    prompt_tokens_per_minute: int | None = None
    auto: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens."""

    prompt: float = 0.0
    cached_prompt: float | None = None
    output: float = 0.0


@dataclass(frozen=True, slots=True)
class MetricsAddress:
    """Where a model server tells how it is: a page at `path` (empty: the usual ones), or Triton's gRPC API."""

    address: str
    path: str = ""
    is_grpc: bool = False

    def __str__(self) -> str:
        return f"grpc://{self.address}" if self.is_grpc else f"{self.address}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One pool of GPUs behind one or more APIs; capacity is shared by all of them.

    Attributes:
        backend: what runs there; None where nothing depends on it.
        sends_priority: whether requests carry the tier's priority in the backend's own field.
        asks_for_usage: whether streams are asked to end with their token usage.
        priority_levels: how many Triton's scheduler has there.
    """

    name: str
    frontends: Mapping[Protocol, Frontend]
    capacity: Capacity = field(default_factory=Capacity)
    metrics: tuple[MetricsAddress, ...] = ()
    price: Price = field(default_factory=Price)
    affinity: Affinity = Affinity.OFF
    backend: Backend | None = None
    sends_priority: bool = False
    asks_for_usage: bool = False
    priority_levels: int | None = None

    def frontend_for(self, protocol: Protocol, operation: str) -> Frontend | None:
        """The API that takes such a request; None where the cluster has none."""
        api = Protocol.OPENAI if protocol is Protocol.ANTHROPIC else protocol
        frontend = self.frontends.get(api)
        if frontend is None or (api is Protocol.OPENAI and operation not in frontend.operations):
            return None
        return frontend


@dataclass(frozen=True, slots=True)
class Place:
    """Where a route leads: the cluster, and the API of it that takes the request.

    Attributes:
        is_degraded: whether a request that comes here gets less than it could.
    """

    route: Route
    cluster: Cluster
    frontend: Frontend
    is_degraded: bool


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Places in the order their routes are tried, and the conditions of those."""

    places: tuple[Place, ...]
    conditions: RuleTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The whole policy file as one value.

    Attributes:
        version: first 12 hex digits of the sha256 of the file's bytes.
        tenants_by_key: sha256 hex digest of an API key -> tenant name.
        rules: evaluates the conditions of this policy's routes.
        reservations: tier name -> its reserved share of every cluster, of those that have one.
        credential_headers: those by which `identity` tells who is asking.
        standings: what was found out from heads that may come again, kept by `extproc.early`.
    """

    version: str
    identity: tuple[IdentitySource, ...]
    tenants: Mapping[str, Tenant]
    tiers: Mapping[str, Tier]
    models: Mapping[str, Model]
    clusters: Mapping[str, Cluster]
    tenants_by_key: Mapping[str, str]
    rules: RuleEngine
    on_store_failure: OnStoreFailure = OnStoreFailure.CLOSED
    _routing_tables: dict[tuple[str, Protocol, str], RoutingTable] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _served: dict[tuple[Protocol, str], bool] = field(init=False, repr=False, compare=False, default_factory=dict)
    reservations: Mapping[str, float] = field(init=False, repr=False, compare=False)
    credential_headers: frozenset[str] = field(init=False, repr=False, compare=False)
    standings: dict[Any, Any] = field(
        init=False, repr=False, compare=False, default_factory=lambda: Remembered(_MAX_STANDINGS)
    )

    def __post_init__(self) -> None:
        headers = (each.header for each in self.identity if not isinstance(each, AnonymousIdentity))
        object.__setattr__(self, "credential_headers", frozenset(headers))
        # Every request asks for them.
        reservations = {name: tier.reserved for name, tier in self.tiers.items() if tier.reserved}
        object.__setattr__(self, "reservations", reservations)

    def routing_table(self, model: str, protocol: Protocol, operation: str) -> RoutingTable:
        """Where the routes of a model lead such a request, of those whose cluster takes it; worked out once."""
        kind = (model, protocol, operation)
        found = self._routing_tables.get(kind)
        if found is None:
            found = self._routing_tables[kind] = self._routing_table(*kind)
        return found

    def _routing_table(self, name: str, protocol: Protocol, operation: str) -> RoutingTable:
        model = self.models[name]
        places: list[Place] = []
        for route in model.routes:
            # A cheaper cluster is a degradation only for a request that some condition sent there.
            is_degraded = route.when is not None and route.cluster in model.degrade
            place = self.place(route, protocol, operation, is_degraded=is_degraded)
            places += [place] if place is not None else []
        return RoutingTable(tuple(places), self.rules.table([place.route.when for place in places]))

    def place(self, route: Route, protocol: Protocol, operation: str, *, is_degraded: bool) -> Place | None:
        """Where the route leads such a request; None where its cluster does not take it."""
        cluster = self.clusters[route.cluster]
        frontend = cluster.frontend_for(protocol, operation)
        return None if frontend is None else Place(route, cluster, frontend, is_degraded)

    def is_served(self, protocol: Protocol, operation: str) -> bool:
        """Whether any cluster takes such a request."""
        kind = (protocol, operation)
        found = self._served.get(kind)
        if found is None:
            clusters = self.clusters.values()
            found = self._served[kind] = any(each.frontend_for(protocol, operation) is not None for each in clusters)
        return found

    @property
    def max_body_bytes(self) -> int:
        """The largest body any tier may send: what Envoy has to be able to buffer."""
        return max(tier.max_body_bytes for tier in self.tiers.values())
