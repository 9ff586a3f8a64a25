"""Chat bodies of a given size, as OpenAI's Python SDK writes them: messages first, then the model and the rest."""

from __future__ import annotations

import json

MESSAGES = 20


def chat_body(prompt: str) -> bytes:
    """A conversation that holds the prompt, spread over up to twenty turns of at least 400 characters."""
    turns = max(1, min(MESSAGES, len(prompt) // 400))
    length = -(-len(prompt) // turns)
    messages = [
        {"role": "assistant" if turn % 2 else "user", "content": prompt[turn * length : (turn + 1) * length]}
        for turn in range(turns)
    ]
    rest = {"model": "assistant", "max_tokens": 5000, "stream": True, "temperature": 0.7}
    return json.dumps({"messages": messages, **rest}, ensure_ascii=False, separators=(",", ":")).encode()
