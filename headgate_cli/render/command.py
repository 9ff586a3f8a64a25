"""`headgate render envoy`: write the Envoy configuration of a policy into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from headgate.errors import HeadgateError, PolicyError
from headgate.lifecycle import EXIT_USAGE
from headgate.policy.load import load_policy
from headgate.settings import DEFAULT_POLICY
from headgate_cli.render.settings import EnvoySettings

_DEFAULT = EnvoySettings()


def render_envoy(
    output: Annotated[Path, typer.Option(help="Folder to write into.")],
    policy: Annotated[
        Path, typer.Option(help="Policy file.", show_default="the one shipped with Headgate")
    ] = DEFAULT_POLICY,
    listen: Annotated[str, typer.Option(help="Where clients connect.")] = _DEFAULT.listen,
    admin: Annotated[str, typer.Option(help="Envoy's admin page.")] = _DEFAULT.admin,
    extproc: Annotated[str, typer.Option(help="The ext_proc service, host:port or unix:/path.")] = _DEFAULT.extproc,
    ratelimit: Annotated[str, typer.Option(help="The rate limit service, likewise.")] = _DEFAULT.ratelimit,
    accesslog: Annotated[str, typer.Option(help="The access log service, likewise.")] = _DEFAULT.accesslog,
    stream_usage: Annotated[bool, typer.Option(help="Read token usage from event streams.")] = True,  # noqa: FBT002
) -> None:
    """Write Envoy's configuration: all of it, and the two filters alone."""
    settings = EnvoySettings(
        listen=listen,
        admin=admin,
        extproc=extproc,
        ratelimit=ratelimit,
        accesslog=accesslog,
        stream_usage=stream_usage,
    )
    try:
        texts = _render(policy, settings)
        for name, text in texts.items():
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text)
            typer.echo(str(output / name))
    except (HeadgateError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_USAGE) from None


def _render(policy_path: Path, settings: EnvoySettings) -> dict[str, str]:
    # Half a second of imports that no other command needs.
    from headgate_cli.render.crossref import undefined_clusters
    from headgate_cli.render.envoy import render_all

    policy = load_policy(policy_path.read_bytes(), str(policy_path))
    texts = render_all(policy, settings)
    if problems := undefined_clusters(yaml.safe_load(texts["envoy.yaml"]), policy, "envoy.yaml"):
        raise PolicyError(problems)
    return texts
