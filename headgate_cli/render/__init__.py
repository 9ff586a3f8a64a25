"""Configuration for other programs, rendered from the policy; knows nothing of requests."""
