"""What four gateways make of the same overload, in front of the same simulated cluster. README.md says how."""
