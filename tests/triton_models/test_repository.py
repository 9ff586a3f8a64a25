"""The files of the model repository: what Triton's own rules and the two sizes ask of them."""

from __future__ import annotations

import pytest

from headgate_cli.home import triton_models

DIFFERENT = {"slots", "prefill_tokens_per_second", "tokens_per_second"}


def test_every_folder_is_a_model_and_no_python_file_lies_beside_them():
    # Triton takes each folder for a model, a __pycache__ too, and is never ready when one is not.
    folders = [entry for entry in triton_models().iterdir() if entry.is_dir()]
    assert [folder.name for folder in folders if not (folder / "config.pbtxt").is_file()] == []
    assert [folder.name for folder in folders if not any((folder / "1").iterdir())] == []
    assert list(triton_models().glob("*.py")) == []


@pytest.mark.parametrize("part", ["", "_preprocessing", "_tensorrt_llm", "_postprocessing"])
def test_the_two_sizes_differ_in_name_and_speed_only(part):
    best, fast = (triton_models().joinpath(f"{size}{part}", "config.pbtxt").read_text() for size in ("best", "fast"))
    pairs = zip(best.replace('"best', '"fast').splitlines(), fast.splitlines(), strict=True)
    changed = [line for line, other in pairs if line != other]
    assert {line.split('"')[1] for line in changed} == (DIFFERENT if part == "_tensorrt_llm" else set())


def test_all_models_run_on_the_cpu():
    configs = {path.parent.name: path.read_text() for path in triton_models().glob("*/config.pbtxt")}
    assert {name for name, text in configs.items() if "KIND_CPU" not in text} == {"best", "fast"}
