"""The ground floor of Headgate: policy, stores, transport, telemetry, settings, wire messages.

Imports none of the services that stand on it (`extproc`, `ratelimit`, `accesslog`).
"""

__version__ = "0.1.0"
