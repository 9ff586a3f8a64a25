"""The command line, as its user sees it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headgate import __version__
from headgate.settings import DEFAULT_POLICY
from headgate_cli.__main__ import app
from headgate_cli.ports import Ports, PortTaken
from headgate_cli.trtllm_serve_standin import DISCLOSURE

run = CliRunner().invoke


def test_help_names_every_command() -> None:
    result = run(app, ["--help"])

    assert result.exit_code == 0
    for command in ("serve", "up", "demo", "check", "render"):
        assert command in result.output


def test_version_is_the_packages() -> None:
    assert run(app, ["--version"]).output == f"headgate {__version__}\n"


def test_check_says_what_a_good_policy_holds() -> None:
    result = run(app, ["check", str(DEFAULT_POLICY)])

    assert result.exit_code == 0
    assert "good (4 tenants, 5 tiers, 2 models, 5 clusters" in result.output


def test_check_lists_every_problem_with_its_place(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        DEFAULT_POLICY.read_text().replace("tier: premium\n", "tier: glod\n").replace("priority: 1", "priority: x")
    )

    result = run(app, ["check", str(policy)])

    assert result.exit_code == 64
    lines = result.output.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("tenants.acme.tier: no tier named 'glod'")
    assert lines[1].endswith("tiers.interactive.priority: has to be a whole number, not 'x'")
    assert all(line.startswith(f"{policy}:") for line in lines)


def test_check_of_a_file_that_is_not_there_is_no_traceback(tmp_path: Path) -> None:
    result = run(app, ["check", str(tmp_path / "nope.yaml")])

    assert result.exit_code == 64
    assert result.output == f"{tmp_path}/nope.yaml: No such file or directory\n"


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} \(envoy\)"):
            Ports(**{**dict.fromkeys(Ports.__slots__, 0), "envoy": port}).check_free()


def test_ports_are_replaced_in_the_shipped_policy() -> None:
    ports = Ports(triton_http=8001, triton_metrics=8010, trtllm_standard=8011, trtllm_fast=8000)

    text = ports.in_policy("127.0.0.1:8000 127.0.0.1:8002 127.0.0.1:8010 127.0.0.1:8011")

    assert text == "127.0.0.1:8001 127.0.0.1:8010 127.0.0.1:8011 127.0.0.1:8000"


def test_the_stand_in_says_that_it_is_one() -> None:
    assert "stand-in" in DISCLOSURE
