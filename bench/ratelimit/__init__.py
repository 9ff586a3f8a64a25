"""What ShouldRateLimit costs: against an echo of the same messages, per configured descriptor, per key in memory."""
