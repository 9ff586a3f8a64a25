"""The policy file: one YAML document that says who may use what, how much of it, and where it runs."""
