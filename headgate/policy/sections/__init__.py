"""The sections of a policy file, one module each: nodes -> the values of `headgate.policy.model`."""
