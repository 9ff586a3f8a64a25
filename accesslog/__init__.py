"""Accounts: Envoy's gRPC access log read into one record per finished request, and what follows from it."""
