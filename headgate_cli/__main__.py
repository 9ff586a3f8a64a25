"""`headgate`: parse the command line and hand over. Heavy imports wait until their command is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from headgate import __version__
from headgate.errors import HeadgateError, PolicyError
from headgate.lifecycle import EXIT_USAGE, run_process
from headgate.policy.load import load_policy
from headgate.policy.model import Policy
from headgate.settings import DEFAULT_POLICY
from headgate_cli.render.command import render_envoy

if TYPE_CHECKING:
    from headgate_cli.stack import StackSettings

app = typer.Typer(
    name="headgate",
    help="Admission control and model routing for Envoy in front of Triton and TensorRT-LLM.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
render_app = typer.Typer(help="Write configuration for other programs from the policy.", no_args_is_help=True)
app.add_typer(render_app, name="render")
render_app.command("envoy")(render_envoy)

PolicyOption = Annotated[str | None, typer.Option(help="Policy file.", show_default="the one shipped with Headgate")]

StoreOption = Annotated[str | None, typer.Option(help="Where leases live: memory or redis.")]

RedisUrlOption = Annotated[str | None, typer.Option(help="redis://HOST:PORT of the store that sidecars share.")]

FreePortsOption = Annotated[bool, typer.Option("--free-ports", help="Use any free ports, not the usual ones.")]


def _version(value: bool) -> None:  # noqa: FBT001  (typer's callback form)
    if value:
        typer.echo(f"headgate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,  # noqa: FBT002
) -> None:
    pass


@app.command()
def serve(
    policy: PolicyOption = None,
    extproc_address: Annotated[str | None, typer.Option(help="gRPC ext_proc and access log.")] = None,
    ratelimit_address: Annotated[str | None, typer.Option(help="gRPC rate limit service.")] = None,
    ratelimit_http_address: Annotated[str | None, typer.Option(help="Its /json and /healthcheck.")] = None,
    admin_address: Annotated[str | None, typer.Option(help="/metrics /healthz /readyz /policy.")] = None,
    grace_seconds: Annotated[float | None, typer.Option(help="Wait for open calls when stopping.")] = None,
    signal_interval_seconds: Annotated[float | None, typer.Option(help="Ask the model servers so often.")] = None,
    signal_timeout_seconds: Annotated[float | None, typer.Option(help="Their time to answer.")] = None,
    signal_stale_seconds: Annotated[float | None, typer.Option(help="Their answers count so long.")] = None,
    region: Annotated[str | None, typer.Option(help="The value of `region` in routing rules.")] = None,
    affinity_salt: Annotated[str | None, typer.Option(help="A secret; better in the environment.")] = None,
    transport: Annotated[str | None, typer.Option(help="What serves gRPC: lean or grpcio.")] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Certificate chain of the gRPC listeners, PEM.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its key, PEM.")] = None,
    tls_client_ca: Annotated[str | None, typer.Option(help="Who has to have signed a client's certificate.")] = None,
    store: StoreOption = None,
    redis_url: RedisUrlOption = None,
    lease_seconds: Annotated[float | None, typer.Option(help="How long a lease outlives a dead sidecar.")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
    request_log_share: Annotated[
        float | None, typer.Option(help="Of good requests, how many are logged: 0..1.")
    ] = None,
    otlp_endpoint: Annotated[str | None, typer.Option(help="Where spans go: http://host:port (OTLP/HTTP).")] = None,
) -> None:
    """Run the three services Envoy calls. Every flag can be set as HEADGATE_<NAME>."""
    from headgate_cli.serve import serve as serve_all

    flags = {
        "policy": policy,
        "extproc_address": extproc_address,
        "ratelimit_address": ratelimit_address,
        "ratelimit_http_address": ratelimit_http_address,
        "admin_address": admin_address,
        "grace_seconds": grace_seconds,
        "signal_interval_seconds": signal_interval_seconds,
        "signal_timeout_seconds": signal_timeout_seconds,
        "signal_stale_seconds": signal_stale_seconds,
        "region": region,
        "affinity_salt": affinity_salt,
        "transport": transport,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "store": store,
        "redis_url": redis_url,
        "lease_seconds": lease_seconds,
        "log_level": log_level,
        "request_log_share": request_log_share,
        "otlp_endpoint": otlp_endpoint,
    }
    raise typer.Exit(run_process(serve_all, **flags))


@app.command()
def check(
    policy: Annotated[Path | None, typer.Argument(help="Policy file.")] = None,
    ratelimit: Annotated[Path | None, typer.Option(help="Directory of rate limit files.")] = None,
    merge_domains: Annotated[bool, typer.Option("--merge-domains", help="Files may share a domain.")] = False,  # noqa: FBT002
) -> None:
    """List everything that is wrong in a policy file, or in a directory of rate limit files."""
    if policy is None and ratelimit is None:
        raise typer.BadParameter("a policy file or --ratelimit is needed")
    if ratelimit is not None:
        _check_ratelimit(ratelimit, merge_domains=merge_domains)
    if policy is not None:
        _check_policy(policy)


def _check_ratelimit(directory: Path, *, merge_domains: bool) -> None:
    from ratelimit.config import load_configuration
    from ratelimit.directory import Selection, read_files
    from ratelimit.listing import listing

    try:
        configuration = load_configuration(read_files(directory, Selection()), merge_domains=merge_domains)
    except PolicyError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(EXIT_USAGE) from None
    except OSError as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(EXIT_USAGE) from None
    limits = sum(1 for _ in listing(configuration))
    counts = f"{len(configuration.domains)} domains, {limits} limits"
    Console().print(f"{directory}: good ({counts})", highlight=False, soft_wrap=True)


def _check_policy(policy: Path) -> None:
    loaded = _load(policy)
    tenants, tiers = len(loaded.tenants), len(loaded.tiers)
    counts = f"{tenants} tenants, {tiers} tiers, {len(loaded.models)} models, {len(loaded.clusters)} clusters"
    Console().print(f"{policy}: good ({counts}; version {loaded.version})", highlight=False, soft_wrap=True)


@app.command()
def up(
    policy: PolicyOption = None,
    store: StoreOption = None,
    redis_url: RedisUrlOption = None,
    free_ports: FreePortsOption = False,  # noqa: FBT002
) -> None:
    """Start Envoy, Triton, the stand-ins for trtllm-serve and the sidecar on this machine; Ctrl-C stops all."""
    from headgate_cli.up import up as run_stack

    given = {"HEADGATE_STORE": store, "HEADGATE_REDIS_URL": redis_url}
    sidecar = {name: value for name, value in given.items() if value is not None}
    settings = replace(_stack_settings(policy, free_ports=free_ports), sidecar=sidecar)
    raise typer.Exit(_run(lambda: run_stack(settings, Console())))


@app.command()
def demo(
    free_ports: FreePortsOption = False,  # noqa: FBT002
    output: Annotated[Path, typer.Option(help="Where the rows go.")] = Path("build/demo.json"),
) -> None:
    """Start the local stack, send it real requests, and check and show what was decided."""
    from headgate_cli.demo import demo as run_demo

    raise typer.Exit(_run(lambda: run_demo(_stack_settings(None, free_ports=free_ports), output, Console())))


def _stack_settings(policy: str | None, *, free_ports: bool) -> StackSettings:
    from headgate_cli.ports import Ports
    from headgate_cli.stack import StackSettings

    ports = Ports.free() if free_ports else Ports()
    return StackSettings(ports=ports, policy=Path(policy) if policy else DEFAULT_POLICY)


def _run(command: Callable[[], int]) -> int:
    try:
        return command()
    except PolicyError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        return EXIT_USAGE
    except (HeadgateError, OSError) as error:
        typer.echo(f"headgate: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _load(path: Path) -> Policy:
    try:
        return load_policy(path.read_bytes(), str(path))
    except PolicyError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
    except OSError as error:
        typer.echo(f"{path}: {error.strerror}", err=True)
    raise typer.Exit(EXIT_USAGE)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
