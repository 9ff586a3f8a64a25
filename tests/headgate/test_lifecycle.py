"""A real process from start to end: what keeps it from starting, how it stops, and a policy that changes under it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headgate.pb.accesslog_pb2 import StreamAccessLogsMessage
from headgate.settings import DEFAULT_POLICY

PATIENCE_SECONDS = 30.0
ADDRESSES = ("extproc", "ratelimit", "ratelimit_http", "admin")
DEFAULT = DEFAULT_POLICY.read_text()
BROKEN = DEFAULT.replace("tier: premium", "tier: premuim").replace("max_wait: 2s", "max_wait: 2")
BOTH_TRANSPORTS = pytest.mark.parametrize("transport", ["lean", "grpcio"])


class Headgate:
    """A process on free ports; its log is read line by line, so that nobody has to look twice."""

    def __init__(self, *arguments: str) -> None:
        free_ports = {f"HEADGATE_{name.upper()}_ADDRESS": "127.0.0.1:0" for name in ADDRESSES}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=os.environ | free_ports,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(PATIENCE_SECONDS, self.process.kill)
        self._watchdog.start()

    def until(self, message: str) -> Mapping[str, object]:
        """The next log line with this message."""
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            record = json.loads(line)
            if record["message"] == message:
                return dict(record)
        raise AssertionError(f"the process ended without saying '{message}' but: {''.join(lines)}")

    def serving(self) -> Mapping[str, object]:
        """The addresses it listens on."""
        return self.until("serving")

    def end(self) -> tuple[int, str, str]:
        """Exit code, standard output and the rest of standard error."""
        output, errors = self.process.communicate()
        return self.process.returncode, output, errors

    def close(self) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def started() -> Iterator[list[Headgate]]:
    processes: list[Headgate] = []
    yield processes
    for process in processes:
        process.close()


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(DEFAULT)
    return path


def start(started: list[Headgate], *flags: str) -> Headgate:
    started.append(Headgate("headgate_cli", "serve", *flags))
    return started[-1]


def page(address: object, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()


def samples(address: object) -> dict[str, float]:
    """The samples of `/metrics`, labels left out: the last of a name wins."""
    _, text = page(address, "/metrics")
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_a_broken_policy_ends_the_start_with_every_error_and_no_traceback(
    started: list[Headgate], policy_file: Path
) -> None:
    policy_file.write_text(BROKEN)

    code, output, errors = start(started, "--policy", str(policy_file)).end()

    assert (code, output) == (64, "")
    assert errors == (
        "the policy cannot be used (2 problems):\n"
        f"  {policy_file}:16 tenants.acme.tier: no tier named 'premuim'\n"
        f"  {policy_file}:37 tiers.premium.queue.max_wait: "
        "has to be a duration such as 200ms, 2s or 5m, not '2'\n"
    )


def test_a_policy_with_one_error_has_one_problem(started: list[Headgate], policy_file: Path) -> None:
    policy_file.write_text("")

    code, _, errors = start(started, "--policy", str(policy_file)).end()

    assert (code, errors) == (64, f"the policy cannot be used (1 problem):\n  {policy_file}: is empty\n")


@pytest.mark.parametrize(("name", "reason"), [("missing.yaml", "No such file or directory"), (".", "Is a directory")])
def test_a_policy_that_cannot_be_read_ends_the_start(
    name: str, reason: str, started: list[Headgate], tmp_path: Path
) -> None:
    path = tmp_path / name

    code, _, errors = start(started, "--policy", str(path)).end()

    assert (code, errors) == (64, f"the policy cannot be read: {path}: {reason}\n")


def test_a_setting_that_cannot_be_used_ends_the_start(started: list[Headgate]) -> None:
    code, _, errors = start(started, "--admin-address", "9090").end()

    assert (code, errors) == (64, "a setting cannot be used: admin_address: has to be host:port, not '9090'\n")


@BOTH_TRANSPORTS
def test_a_certificate_that_cannot_be_read_ends_the_start(transport: str, started: list[Headgate]) -> None:
    absent = ["--tls-cert", "/absent.pem", "--tls-key", "/absent.key"]

    code, _, errors = start(started, "--transport", transport, *absent).end()

    assert (code, errors) == (
        64,
        "a setting cannot be used: TLS: /absent.pem cannot be read: No such file or directory\n",
    )


@pytest.mark.parametrize("name", ["extproc", "admin"])
def test_an_address_in_use_ends_the_start_with_the_address_and_the_reason(name: str, started: list[Headgate]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        code, _, errors = start(started, f"--{name}-address", address).end()

    assert code == 69
    assert re.search(rf"cannot start: cannot listen on {address}: .*address already in use", errors, re.IGNORECASE)
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_process_cleanly(number: signal.Signals, started: list[Headgate]) -> None:
    headgate = start(started)
    headgate.serving()

    headgate.process.send_signal(number)

    assert headgate.until("stopped")["level"] == "info"
    assert headgate.end() == (0, "", "")


@BOTH_TRANSPORTS
def test_a_stopping_process_says_so_and_waits_for_its_open_calls(transport: str, started: list[Headgate]) -> None:
    headgate = start(started, "--grace-seconds", "20", "--transport", transport)
    addresses = headgate.serving()
    admin = addresses["admin"]
    assert [page(admin, path) for path in ("/healthz", "/readyz")] == [(200, "ok\n"), (200, "ready\n")]

    with access_log_stream(addresses["extproc"], headgate):
        assert watch_health(addresses["extproc"], headgate) == ["SERVING", "NOT_SERVING"]
        assert page(admin, "/readyz") == (503, "draining\n")
        assert page(admin, "/healthz") == (200, "ok\n")
        assert page(admin, "/metrics")[0] == 200

    headgate.until("stopped")
    assert headgate.end()[0] == 0


@BOTH_TRANSPORTS
def test_a_call_that_does_not_end_is_cut_when_the_grace_is_over(transport: str, started: list[Headgate]) -> None:
    headgate = start(started, "--grace-seconds", "0.05", "--transport", transport)

    with access_log_stream(headgate.serving()["extproc"], headgate):
        headgate.process.terminate()
        headgate.until("stopped")

    assert headgate.end()[0] == 0


@contextlib.contextmanager
def access_log_stream(address: object, headgate: Headgate) -> Iterator[None]:
    """A stream that ends when we say so; what Envoy keeps open as long as it lives."""
    is_over = threading.Event()
    record = StreamAccessLogsMessage()
    record.http_logs.log_entry.add()

    def messages() -> Iterator[bytes]:
        yield record.SerializeToString()
        is_over.wait(PATIENCE_SECONDS)

    with grpc.insecure_channel(str(address)) as channel:
        call = channel.stream_stream("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs")(messages())
        headgate.until("request")
        try:
            yield
        finally:
            is_over.set()
            call.cancel()


def watch_health(address: object, headgate: Headgate) -> list[str]:
    """The states a load balancer hears of when the process is told to stop."""
    names = {1: "SERVING", 2: "NOT_SERVING"}
    states = []
    with grpc.insecure_channel(str(address)) as channel:
        watch = channel.stream_stream("/grpc.health.v1.Health/Watch")
        for answer in watch(iter([b""]), timeout=PATIENCE_SECONDS):
            states.append(names[answer[1]])
            if len(states) == 1:
                headgate.process.terminate()
    return states


def test_a_policy_is_changed_broken_and_mended_while_it_is_in_force(started: list[Headgate], policy_file: Path) -> None:
    headgate = start(started, "--policy", str(policy_file))
    addresses = headgate.serving()
    admin = addresses["admin"]
    first = json.loads(page(admin, "/policy")[1])["version"]
    assert samples(admin)["headgate_policy_reload_failed"] == 0
    assert first == addresses["policy_version"]

    policy_file.write_text(DEFAULT.replace("tier: premium", "tier: batch"))
    second = headgate.until("a new policy is in force")["policy_version"]
    shown = json.loads(page(admin, "/policy")[1])
    assert (shown["version"], shown["tenants"]["acme"]) == (second, {"tier": "batch"})

    policy_file.write_text(BROKEN)
    refusal = headgate.until("the new policy is refused; the old one stays")
    assert (refusal["level"], refusal["logger"]) == ("error", "headgate.policy")
    assert refusal["problems"] == [
        f"{policy_file}:16 tenants.acme.tier: no tier named 'premuim'",
        f"{policy_file}:37 tiers.premium.queue.max_wait: has to be a duration such as 200ms, 2s or 5m, not '2'",
    ]
    broken = samples(admin)
    assert (broken["headgate_policy_reload_failed"], broken["headgate_policy_reload_errors_total"]) == (1, 1)
    assert json.loads(page(admin, "/policy")[1])["version"] == second
    assert f'headgate_policy_version{{version="{second}"}} 1.0' in page(admin, "/metrics")[1]

    policy_file.write_text(DEFAULT)
    assert headgate.until("a new policy is in force")["policy_version"] == first
    mended = samples(admin)
    assert (mended["headgate_policy_reload_failed"], mended["headgate_policy_reload_errors_total"]) == (0, 1)
    assert json.loads(page(admin, "/policy")[1])["version"] == first


def test_a_policy_mounted_by_kubernetes_is_changed_broken_and_mended(started: list[Headgate], tmp_path: Path) -> None:
    publish(tmp_path, DEFAULT, "..2026_01")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    headgate = start(started, "--policy", str(tmp_path / "policy.yaml"))
    admin = headgate.serving()["admin"]
    assert samples(admin)["headgate_policy_reload_failed"] == 0

    publish(tmp_path, DEFAULT + "# changed\n", "..2026_02")
    headgate.until("a new policy is in force")
    publish(tmp_path, BROKEN, "..2026_03")
    headgate.until("the new policy is refused; the old one stays")
    assert samples(admin)["headgate_policy_reload_failed"] == 1
    publish(tmp_path, DEFAULT, "..2026_04")
    headgate.until("a new policy is in force")

    assert samples(admin)["headgate_policy_reload_failed"] == 0


def publish(mount: Path, text: str, version: str) -> None:
    """Swap a ConfigMap's content as the kubelet does: a new folder, a link renamed over the old one."""
    (mount / version).mkdir()
    (mount / version / "policy.yaml").write_text(text)
    (mount / "..data_tmp").symlink_to(version)
    (mount / "..data_tmp").rename(mount / "..data")


def test_the_metrics_the_page_names_are_those_a_running_process_shows(started: list[Headgate]) -> None:
    """Read the page, ask the process."""
    headgate = start(started)

    _, text = page(headgate.serving()["admin"], "/metrics")

    shown = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    documented = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    named = set(re.findall(r"^\| `((?:headgate|gen_ai)_\w+)`", documented, re.MULTILINE))
    assert len(named) > 30
    assert named - shown == set()
    assert {name for name in shown if name.startswith(("headgate_", "gen_ai_"))} - named == set()


@pytest.mark.parametrize(
    ("package", "listeners"),
    [
        ("extproc", {"admin", "extproc"}),
        ("ratelimit", {"admin", "http", "ratelimit"}),
        ("accesslog", {"admin", "accesslog"}),
    ],
)
def test_a_service_can_be_run_alone(package: str, listeners: set[str], started: list[Headgate]) -> None:
    headgate = Headgate(package)
    started.append(headgate)

    serving = headgate.serving()
    headgate.process.terminate()

    assert listeners <= set(serving)
    assert headgate.end()[0] == 0
