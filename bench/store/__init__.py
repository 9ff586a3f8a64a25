"""What a lease costs: taken and given back, in memory and in Redis."""
