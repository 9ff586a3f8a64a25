"""Fetching from the Debian archive into a folder, with a pretended apt: tests that need the real one use it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headgate_cli.debian import DebianError, unpack

APT_GET = """#!/bin/sh
printf '%s\\n' "$*" >>"$APT_LOG"
for option in "$@"; do case "$option" in Dir::Cache=*) cache="${option#*=}" ;; esac; done
case "$*" in
  *" install "*) touch "$cache/archives/needed.deb" ;;
  *" download "*) touch program.deb ;;
esac
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/bin" && touch "$3/usr/bin/$(basename "$2" .deb)"
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What apt-get was told, a call a line."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.defpath}")
    monkeypatch.setenv("APT_LOG", str(tmp_path / "apt.log"))
    return tmp_path / "apt.log"


def test_a_package_comes_with_what_it_needs(apt: Path, tmp_path: Path) -> None:
    unpack(["program"], tmp_path / "root", with_dependencies=True)

    assert sorted(os.listdir(tmp_path / "root/usr/bin")) == ["needed", "program"]
    assert [line.split()[-1] for line in apt.read_text().splitlines()] == ["update", "program", "program"]


def test_or_alone(apt: Path, tmp_path: Path) -> None:
    unpack(["program"], tmp_path / "root", with_dependencies=False)

    assert os.listdir(tmp_path / "root/usr/bin") == ["program"]
    assert " install " not in apt.read_text()


def test_nothing_of_the_system_is_written(apt: Path, tmp_path: Path) -> None:
    unpack(["program"], tmp_path / "root", with_dependencies=True)

    for line in apt.read_text().splitlines():
        places = [option for option in line.split() if option.startswith(("Dir::State=", "Dir::Cache="))]
        assert len(places) == 2
        assert not any("=/var" in place for place in places)


def test_a_folder_may_be_named_from_where_we_are(apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    unpack(["program"], Path("root"), with_dependencies=False)

    assert (tmp_path / "root/usr/bin/program").exists()


def test_without_apt_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(DebianError, match="there is no apt-get here"):
        unpack(["program"], tmp_path / "root", with_dependencies=False)
