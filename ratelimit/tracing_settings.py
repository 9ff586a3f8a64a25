"""Whether and how calls are traced, in the reference's settings; `tracing` does it.

Where spans go is said in OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_*.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headgate.errors import SettingsError
from ratelimit.environment import Environment


class TracingProtocol(StrEnum):
    """How spans travel."""

    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingSettings:
    """Spans over OTLP.

    Attributes:
        instance_id: empty for a random one.
        sampling_rate: the part of the traces begun here that is kept, 0 to 1; a caller's own decision holds.
    """

    protocol: TracingProtocol = TracingProtocol.HTTP
    service_name: str = "RateLimit"
    service_namespace: str = ""
    instance_id: str = ""
    sampling_rate: float = 1.0


def read_tracing_settings(environment: Environment) -> TracingSettings | None:
    """None unless TRACING_ENABLED.

    Raises:
        SettingsError: a value cannot be used.
    """
    if not environment.flag("TRACING_ENABLED"):
        return None
    defaults = TracingSettings()
    protocol = environment.text("TRACING_EXPORTER_PROTOCOL", defaults.protocol).lower()
    if protocol not in tuple(TracingProtocol):
        raise SettingsError(f"TRACING_EXPORTER_PROTOCOL: has to be http or grpc, not '{protocol}'")
    return TracingSettings(
        protocol=TracingProtocol(protocol),
        service_name=environment.text("TRACING_SERVICE_NAME", defaults.service_name),
        service_namespace=environment.text("TRACING_SERVICE_NAMESPACE"),
        instance_id=environment.text("TRACING_SERVICE_INSTANCE_ID"),
        sampling_rate=environment.ratio("TRACING_SAMPLING_RATE", defaults.sampling_rate),
    )
