"""A stand-in for TensorRT-LLM on a machine without a GPU: the same models, tensors and metrics, no neural network.

Read `engine` (what Triton calls), `call` (tensors), `scheduler` (the thread), `batcher` (slots and the waiting line),
`generation` (one request).
"""
