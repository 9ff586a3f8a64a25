"""How Redis and Valkey are reached: settings, connections and a breaker, for whoever keeps something there."""
