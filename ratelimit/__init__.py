"""Limits: Envoy's RateLimitService; descriptors -> limits -> verdicts."""
