"""A stand-in for `trtllm-serve`: the same HTTP API, but no TensorRT-LLM, no GPU and no model behind it.

The text it answers is made up; its batching, its queue and its rates are simulated. It says so in `--help`, in the
line it prints at start, in the `server` header of every answer and in `/server_info`. Names, defaults and error
bodies follow trtllm-serve as of 2026; where this one is kinder or poorer than the real one, the module that does it
says so. Stands in for `/v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/v1/messages` (Anthropic's API),
`/v1/embeddings` and the health, metric and version pages. Knows nothing of the rest of Headgate.
"""

DISCLOSURE = "a stand-in for trtllm-serve: no GPU, no model, made-up text"
"""The sentence every place that must be honest about it repeats."""

SERVER_HEADER = "trtllm-serve-standin (no GPU, no model, made-up text)"
