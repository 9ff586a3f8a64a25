"""Counters and histograms that cost a dictionary look-up to feed and a string to show.

prometheus_client takes a lock for every count and some 8 us for every line it shows; a thousand tenants are thousands
of lines, shown on the loop that decides. These are fed on the event loop only and show themselves in the same format.
Knows no metric by name.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

MAX_LABEL_VALUES = 1000
MAX_SERIES = 50_000
OTHER = "other"


class CappedLabel:
    """Lets the first `MAX_LABEL_VALUES` distinct values through; the rest become `other`."""

    def __init__(self, cap: int = MAX_LABEL_VALUES) -> None:
        self._cap = cap
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value, or `other`."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._cap:
            return OTHER
        self._seen.add(value)
        return value


class Count:
    """One counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add."""
        self.value += amount


class Distribution:
    """One histogram; `counts` are those of each bucket alone, the last one's has no upper bound."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value in its bucket."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


_Series = TypeVar("_Series", Count, Distribution)


class Family(Collector, Generic[_Series]):
    """All series of one name. A label's values are capped the first time a combination is seen, so that a known
    combination costs one look-up and nobody outside can make more series than the caps allow.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str], caps: Iterable[CappedLabel]) -> None:
        self.name = name
        self.text = text
        self.label_names = tuple(labels)
        self._caps = tuple(caps)
        self._series: dict[tuple[str, ...], _Series] = {}
        self._rendered: dict[tuple[str, ...], str] = {}

    def labels(self, *values: str) -> _Series:
        """The series of these label values, in the order of the family's labels."""
        known = self._series.get(values)
        return known if known is not None else self._first(values)

    def _first(self, values: tuple[str, ...]) -> _Series:
        capped = tuple(cap(value) for cap, value in zip(self._caps, values, strict=True))
        if capped not in self._series:
            if len(self._series) >= MAX_SERIES:
                capped = (OTHER,) * len(values)
            named = sorted(zip(self.label_names, capped, strict=True))
            self._rendered[capped] = ",".join(f'{name}="{_escaped(value)}"' for name, value in named)
            self._series.setdefault(capped, self._new())
        return self._series[capped]

    @abstractmethod
    def _new(self) -> _Series:
        """A series nothing has been counted in."""

    def _shown(self) -> Iterator[tuple[str, _Series]]:
        rendered = self._rendered
        return ((rendered[values], series) for values, series in self._series.items())


class CounterFamily(Family[Count]):
    """Counters; the series are called `<name>_total`."""

    def render(self) -> Iterator[str]:
        """Its lines."""
        name = f"{self.name}_total"
        yield f"# HELP {name} {self.text}\n# TYPE {name} counter\n"
        for labels, series in self._shown():
            yield f"{name}{{{labels}}} {series.value!r}\n" if labels else f"{name} {series.value!r}\n"

    def describe(self) -> Iterator[Metric]:
        """The family without samples, so that registering reads nothing."""
        yield CounterMetricFamily(self.name, self.text, labels=self.label_names)

    def collect(self) -> Iterator[Metric]:
        """The values of now, for whoever reads the registry instead of the page."""
        family = CounterMetricFamily(self.name, self.text, labels=self.label_names)
        for values, series in self._series.items():
            family.add_metric(values, series.value)
        yield family

    def _new(self) -> Count:
        return Count()


class HistogramFamily(Family[Distribution]):
    """Histograms with the same upper bounds."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], caps: Iterable[CappedLabel], bounds: Sequence[float]
    ) -> None:
        super().__init__(name, text, labels, caps)
        self._bounds = tuple(bounds)
        self._bound_names = (*(repr(float(bound)) for bound in bounds), "+Inf")

    def render(self) -> Iterator[str]:
        """Its lines."""
        name = self.name
        yield f"# HELP {name} {self.text}\n# TYPE {name} histogram\n"
        for labels, series in self._shown():
            inside, around = (f"{labels},", f"{{{labels}}}") if labels else ("", "")
            counts = list(accumulate(series.counts))
            yield "".join(
                f'{name}_bucket{{{inside}le="{bound}"}} {count}\n'
                for bound, count in zip(self._bound_names, counts, strict=True)
            )
            yield f"{name}_sum{around} {series.total!r}\n{name}_count{around} {counts[-1]}\n"

    def describe(self) -> Iterator[Metric]:
        """The family without samples."""
        yield HistogramMetricFamily(self.name, self.text, labels=self.label_names)

    def collect(self) -> Iterator[Metric]:
        """The values of now."""
        family = HistogramMetricFamily(self.name, self.text, labels=self.label_names)
        for values, series in self._series.items():
            buckets = list(zip(self._bound_names, map(float, accumulate(series.counts)), strict=True))
            family.add_metric(values, buckets, series.total)
        yield family

    def _new(self) -> Distribution:
        return Distribution(self._bounds)


class Registry(CollectorRegistry):
    """What Prometheus shows: the families here, and any collector of prometheus_client's."""

    def __init__(self) -> None:
        super().__init__()
        self._families: list[CounterFamily | HistogramFamily] = []
        self._others = CollectorRegistry()

    def register(self, collector: Collector) -> None:
        """Show a collector from now on.

        Raises:
            ValueError: one of its names is taken.
        """
        super().register(collector)
        if isinstance(collector, CounterFamily | HistogramFamily):
            self._families.append(collector)
        else:
            self._others.register(collector)

    def exposition(self) -> bytes:
        """Everything in Prometheus's text format."""
        lines = (line for family in self._families for line in family.render())
        return generate_latest(self._others) + "".join(lines).encode()


def capped_labels() -> Callable[[str], CappedLabel]:
    """One cap for each label name, shared by all families that have it."""
    caps: dict[str, CappedLabel] = {}
    return lambda name: caps.setdefault(name, CappedLabel())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
