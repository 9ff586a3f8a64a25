"""`make bench-latency`: what Headgate adds to a request through Envoy, in time, in CPU and in memory."""
