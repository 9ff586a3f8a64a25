"""The texts of the benchmark: English, code and JSON of this repository, Chinese and Japanese, random base64."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_CHINESE = (
    "人工智能是计算机科学的一个分支，它企图了解智能的实质，并生产出一种新的能以人类智能相似的方式做出反应的智能机器。"
    "该领域的研究包括机器人、语言识别、图像识别、自然语言处理和专家系统等。从诞生以来，理论和技术日益成熟，应用领域也不断扩大。"
)
_JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。"
    "吾輩はここで始めて人間というものを見た。しかもあとで聞くとそれは書生という人間中で一番獰悪な種族であったそうだ。"
)


def texts() -> Mapping[str, str]:
    """Kind of text -> some tens of thousands of characters of it, the same in every run of one checkout."""
    return {
        "english": _joined("LICENSE", "README.md", "docs/*.md", "bench/*.md"),
        "code": _joined("extproc/*.py", "headgate/*.py", "ratelimit/*.py"),
        "json": json.dumps(_records(600), indent=2),
        "cjk": (_CHINESE + "\n" + _JAPANESE + "\n") * 200,
        "base64": base64.b64encode(random.Random(7).randbytes(45_000)).decode(),
    }


def mixed(size_bytes: int) -> str:
    """A prompt of about so many UTF-8 bytes as long ones are: documents, code and records, some of it not English."""
    kinds = texts()
    plan = (("english", 3000), ("code", 2500), ("json", 1000), ("cjk", 150))
    parts: list[str] = []
    total, position = 0, 0
    while total < size_bytes:
        for kind, length in plan:
            text = kinds[kind]
            start = position * length % max(1, len(text) - length)
            parts.append(text[start : start + length] + "\n")
            total += len(parts[-1].encode())
        position += 1
    return "".join(parts).encode()[:size_bytes].decode(errors="ignore")


def _joined(*patterns: str) -> str:
    return "\n".join(path.read_text() for pattern in patterns for path in sorted(_ROOT.glob(pattern)))


def _records(count: int) -> list[dict[str, object]]:
    draw = random.Random(7)
    return [
        {"id": number, "name": f"user{number}", "score": draw.random(), "active": number % 2 == 0, "tags": ["a", "b"]}
        for number in range(count)
    ]
