"""Messages compiled from `protos/`: run `make protos`, never edit. Named by `wire.py` and the health service only."""
