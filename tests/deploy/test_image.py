"""deploy/Dockerfile without an engine: what goes in, who runs it, and whether it can tell that it is alive."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from urllib.parse import urlparse

import pytest

from headgate.settings import Settings, read_settings

Instructions = list[tuple[str, str]]


@pytest.fixture(scope="module")
def instructions(repository: Path) -> Instructions:
    text = (repository / "deploy/Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line)]


@pytest.fixture(scope="module")
def final(instructions: Instructions) -> Instructions:
    """The stage that becomes the image."""
    starts = [index for index, (name, _) in enumerate(instructions) if name == "FROM"]
    assert len(starts) == 2
    return instructions[starts[-1] :]


def _values(instructions: Instructions, name: str) -> list[str]:
    return [value for found, value in instructions if found == name]


def test_all_it_copies_exists_and_is_not_ignored(instructions: Instructions, repository: Path) -> None:
    ignore = (repository / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignore if line.startswith("!")}

    for copied in _values(instructions, "COPY"):
        if copied.startswith("--from="):
            continue
        for source in copied.split()[:-1]:
            assert (repository / source).exists()
            assert source in kept or f"{Path(source).parent}/*{Path(source).suffix}" in kept


def test_all_the_wheel_is_made_of_is_copied(instructions: Instructions, repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = {source for value in _values(instructions, "COPY") for source in value.split()[:-1]}

    assert {*wheel["packages"], *wheel["force-include"], project["project"]["readme"]} <= copied
    assert set(project["project"]["license-files"]) <= copied


def test_everything_installed_is_locked_by_hash(instructions: Instructions) -> None:
    installs = [step for run in _values(instructions, "RUN") for step in run.split("&&") if "pip install" in step]

    assert installs
    for step in installs:
        assert "--require-hashes" in step or ("--no-deps" in step and "/wheel/" in step)


def test_it_does_not_run_as_root(final: Instructions) -> None:
    (user,) = _values(final, "USER")

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number: Kubernetes cannot judge a name"


def test_its_settings_listen_on_all_addresses_of_the_container(final: Instructions) -> None:
    settings = read_settings(environment=_environment(final))

    defaults = Settings()
    for name in ("extproc_address", "ratelimit_address", "ratelimit_http_address", "admin_address"):
        assert getattr(settings, name) == getattr(defaults, name).replace("127.0.0.1", "0.0.0.0")


def test_it_exposes_the_ports_it_listens_on(final: Instructions) -> None:
    listens = {value.rpartition(":")[2] for name, value in _environment(final).items() if name.endswith("_ADDRESS")}

    (exposed,) = _values(final, "EXPOSE")
    assert set(exposed.split()) == listens


def test_its_health_check_asks_the_admin_address(final: Instructions) -> None:
    (check,) = _values(final, "HEALTHCHECK")
    program, option, script = ast.literal_eval(check.partition("CMD ")[2])
    compile(script, "HEALTHCHECK", "exec")
    url = urlparse(re.search(r"http://[^']+", script)[0])  # type: ignore[index]

    assert (program, option, url.path) == ("python", "-c", "/healthz")
    assert str(url.port) == _environment(final)["HEADGATE_ADMIN_ADDRESS"].rpartition(":")[2]


def _environment(final: Instructions) -> dict[str, str]:
    pairs = (pair.partition("=") for value in _values(final, "ENV") for pair in value.split())
    return {name: value for name, _, value in pairs}
