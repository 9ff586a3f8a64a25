"""Finding libpython for a program that will not start without it."""

from __future__ import annotations

import os
import sys
import sysconfig

import pytest

from headgate_cli.libpython import LibpythonError, provide_libpython

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SONAME = f"libpython{VERSION}.so.1.0"
APT_GET = f"""#!/bin/sh
printf '%s\\n' "$@" >>"$APT_LOG"
case "$*" in *" download "*) touch libpython{VERSION}.deb ;; esac
"""
DPKG_DEB = f"""#!/bin/sh
mkdir -p "$3/usr/lib/any-gnu" && touch "$3/usr/lib/any-gnu/{SONAME}"
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def program(tmp_path):
    """Starts only with the library on LD_LIBRARY_PATH, and otherwise ends as the dynamic loader does."""
    return script(tmp_path / "stub", f'#!/bin/sh\n[ -e "$LD_LIBRARY_PATH/{SONAME}" ] || exit 127\nexit 1\n')


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """Nothing on PATH, and a Python without a shared library."""
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "python"))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path / "python" / "lib"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def test_nothing_is_done_when_the_system_has_it(tmp_path):
    program = script(tmp_path / "stub", "#!/bin/sh\nexit 1\n")
    provide_libpython(program, tmp_path / "lib", print)
    assert os.listdir(tmp_path / "lib") == []


def test_the_running_interpreters_library_is_linked_alone(tmp_path, program):
    library = tmp_path / "python" / "lib" / SONAME
    script(library, "")
    script(library.with_name("libstdc++.so.6"), "")
    provide_libpython(program, tmp_path / "lib", print)
    assert os.listdir(tmp_path / "lib") == [SONAME]
    assert (tmp_path / "lib" / SONAME).readlink() == library


def test_a_debian_package_is_unpacked_without_touching_the_system(tmp_path, program, monkeypatch):
    script(tmp_path / "bin" / "apt-get", APT_GET)
    script(tmp_path / "bin" / "dpkg-deb", DPKG_DEB)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.defpath}")
    monkeypatch.setenv("APT_LOG", str(tmp_path / "apt.log"))
    said = []
    provide_libpython(program, tmp_path / "lib", said.append)
    assert (tmp_path / "lib" / SONAME).is_file()
    assert len(said) == 1
    told = (tmp_path / "apt.log").read_text().splitlines()
    assert {"update", "download", f"libpython{VERSION}"} <= set(told)
    places = [line for line in told if line.startswith(("Dir::State=", "Dir::Cache="))]
    assert len(places) == 4
    assert not any(line.partition("=")[2].startswith("/var") for line in places)


def test_a_failing_download_says_why(tmp_path, program, monkeypatch):
    script(tmp_path / "bin" / "apt-get", "#!/bin/sh\necho 'Temporary failure resolving the archive' >&2\nexit 100\n")
    script(tmp_path / "bin" / "dpkg-deb", DPKG_DEB)
    with pytest.raises(LibpythonError, match="Temporary failure resolving the archive"):
        provide_libpython(program, tmp_path / "lib", print)


def test_without_apt_the_error_says_what_to_install(tmp_path, program):
    with pytest.raises(LibpythonError, match=rf"needs {SONAME}.*apt-get install libpython{VERSION}"):
        provide_libpython(program, tmp_path / "lib", print)
