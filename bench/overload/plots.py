"""The figures as PNG. matplotlib is an extra: without it all numbers are there and only the pictures are missing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.overload.score import Slos, SystemScore
from bench.overload.table import Scores

Value = Callable[[SystemScore], float | None]

_PANEL_INCHES = (3.4, 3.8)
_OF_TIERS = ("slo_attainment", "served", "ttft_p95_s")
_TOTALS = ("goodput_tokens_per_s", "utilisation", "refusal_p99_ms", "jain")
_LOGARITHMIC = ("ttft_p95_s", "refusal_p99_ms")


class NoPlots(Exception):  # noqa: N818  (says what happened)
    """Raised when matplotlib is not installed; says how to get it."""


def draw(scores: Scores, slos: Slos, folder: Path) -> list[Path]:
    """Write the pictures: one per figure of the tiers, and one with all totals. Returns where they are.

    Raises:
        NoPlots: matplotlib is not installed.
    """
    try:
        figure_type = importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise NoPlots("No plots: matplotlib is not installed here (pip install matplotlib).") from None
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in _OF_TIERS:
        values = {tier: _of_tier(name, tier) for tier in slos}
        figure = _panels(figure_type, scores, values, is_logarithmic=name in _LOGARITHMIC)
        if name == "ttft_p95_s":
            for axes, slo in zip(figure.axes, slos.values(), strict=True):
                axes.axhline(slo, color="grey", linestyle=":")
        figure.suptitle(name)
        paths.append(_save(figure, folder / f"{name}.png"))
    figure = _panels(figure_type, scores, {name: _of_system(name) for name in _TOTALS}, is_logarithmic=False)
    return [*paths, _save(figure, folder / "totals.png")]


def _of_tier(name: str, tier: str) -> Value:
    def value(score: SystemScore) -> float | None:
        found: float | None = getattr(score.tiers[tier], name)
        return found

    return value


def _of_system(name: str) -> Value:
    def value(score: SystemScore) -> float | None:
        found: float | None = getattr(score, name)
        return found

    return value


def _panels(figure_type: Any, scores: Scores, values: Mapping[str, Value], *, is_logarithmic: bool) -> Any:
    """One panel per value, one line per system over the loads."""
    width, height = _PANEL_INCHES
    figure = figure_type(figsize=(width * len(values), height), layout="constrained")
    for axes, (title, value) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        for system, points in series(scores, value).items():
            axes.plot(list(points), list(points.values()), marker="o", label=system)
        axes.set_title(title)
        axes.set_xlabel("offered load, x of capacity")
        axes.grid(visible=True, alpha=0.3)
        if is_logarithmic or title in _LOGARITHMIC:
            axes.set_yscale("log")
    return figure


def series(scores: Scores, value: Value) -> dict[str, dict[float, float]]:
    """System -> load -> value, without the points that have none."""
    found: dict[str, dict[float, float]] = {}
    for load, systems in scores.items():
        for system, score in systems.items():
            if (point := value(score)) is not None:
                found.setdefault(system, {})[float(load)] = point
    return found


def _save(figure: Any, path: Path) -> Path:
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)
    return path
