"""Decides: who is asking, for what, to which model cluster, and whether now.

A request's path, file by file: `service` reads Envoy's message, `wire` turns it into an event, `exchange` lives through
the request: `identity` -> `inspection` -> `routing` -> `admission` -> `rewrite`, or `refusal` at any point.
"""
