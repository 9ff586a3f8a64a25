from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool

from headgate import pb

ROOT = Path(__file__).resolve().parents[2]
GENERATE = runpy.run_path(str(ROOT / "protos" / "generate.py"))
generate: Callable[[Path], None] = GENERATE["generate"]
stale: Callable[[Path], list[str]] = GENERATE["stale"]
main: Callable[..., int] = GENERATE["main"]


def generated_files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "headgate" / "pb").glob("*_pb2.py*")}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fresh")
    generate(root)
    return root


def test_the_checked_in_files_are_byte_for_byte_what_the_sources_give(fresh: Path) -> None:
    assert generated_files(ROOT) == generated_files(fresh)


EXPECTED = {"accesslog", "discovery", "ext_proc", "health", "kserve", "ratelimit", "ratelimit_config", "reflection"}


def test_every_source_gives_one_module_and_its_types(fresh: Path) -> None:
    names = {source.stem for source in (ROOT / "protos").glob("*.proto")}
    assert names == EXPECTED
    assert set(generated_files(fresh)) == {f"{name}_pb2{suffix}" for name in names for suffix in (".py", ".pyi")}


def test_check_passes_on_fresh_files_and_names_each_changed_missing_or_left_over_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generate(tmp_path)
    assert main(["--check"], root=tmp_path) == 0
    package = tmp_path / "headgate" / "pb"
    (package / "health_pb2.py").write_bytes(b"# edited by hand\n")
    (package / "kserve_pb2.pyi").unlink()
    (package / "retired_pb2.py").touch()
    assert stale(tmp_path) == ["health_pb2.py", "kserve_pb2.pyi", "retired_pb2.py"]
    assert main(["--check"], root=tmp_path) == 1
    assert capfd.readouterr().err.count("run `make protos`") == 3


def test_generating_repairs_all_that_check_complains_about_and_keeps_the_package_file(tmp_path: Path) -> None:
    package = tmp_path / "headgate" / "pb"
    package.mkdir(parents=True)
    for name in ("__init__.py", "health_pb2.py", "retired_pb2.py", "retired_pb2.pyi"):
        (package / name).touch()
    assert main([], root=tmp_path) == 0
    assert stale(tmp_path) == []
    assert (package / "__init__.py").exists()


def test_a_source_that_does_not_compile_fails_and_removes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "sources"
    package = tmp_path / "headgate" / "pb"
    sources.mkdir()
    package.mkdir(parents=True)
    (sources / "broken.proto").write_text('syntax = "proto3"; message {')
    (package / "kept_pb2.py").touch()
    monkeypatch.setitem(main.__globals__, "SOURCES", sources)
    assert main([], root=tmp_path) == 1
    assert main(["--check"], root=tmp_path) == 1
    assert "broken.proto:1:" in capfd.readouterr().err
    assert [path.name for path in package.iterdir()] == ["kept_pb2.py"]


def test_the_command_of_the_makefile_finds_the_repository_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "protos" / "generate.py"), "--check"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0


@pytest.mark.parametrize("name", ["ext_proc", "ratelimit", "accesslog", "kserve", "health", "reflection"])
def test_our_names_live_in_our_own_package_and_under_our_own_file_name(name: str) -> None:
    file: Any = descriptor_pool.Default().FindFileByName(f"headgate/pb/{name}.proto")
    assert file.package == f"headgate.wire.{name}"


def test_the_package_says_that_it_is_generated() -> None:
    assert pb.__doc__ is not None
    assert "make protos" in pb.__doc__
