"""Routing conditions: CEL expressions, type-checked when the policy loads and asked for each request.

The one place that knows the CEL library. Variables and functions are those a policy author may use; their values
come in as `RuleFacts`, and CEL is run only for those not seen before (`headgate.policy.decisive`). An expression that
fails at run time (a division by zero, say) does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cel_expr_python import cel

from headgate.policy.decisive import Ask, decisive_facts
from headgate.remembered import Remembered

VARIABLES: Mapping[str, Any] = {
    "tenant": cel.Type.STRING,
    "tier": cel.Type.STRING,
    "model": cel.Type.STRING,
    "protocol": cel.Type.STRING,
    "stream": cel.Type.BOOL,
    "prompt_tokens": cel.Type.INT,
    "prompt_bytes": cel.Type.INT,
    "max_output_tokens": cel.Type.INT,
    "expected_output_tokens": cel.Type.INT,
    "tools": cel.Type.INT,
    "images": cel.Type.INT,
    "audio_seconds": cel.Type.INT,
    "operation": cel.Type.STRING,
    "service_tier": cel.Type.STRING,
    "messages": cel.Type.INT,
    "session": cel.Type.STRING,
    "region": cel.Type.STRING,
}
_NUMBERS = frozenset(name for name, kind in VARIABLES.items() if kind == cel.Type.INT)
_MAX_ANSWERS, _UNKNOWN = 4096, -1
_CLUSTER_ARGUMENT = re.compile(r"\b(?:saturation|queue_depth)\s*\(\s*(['\"])(.*?)\1")
_WORD = re.compile(r"[A-Za-z_]+")
_NUMBER = re.compile(r"(?<![\w.])[0-9]{1,15}(?![\w.])")
_STATUS = re.compile(r"([A-Z_]+): (.*) \[\1\]", re.DOTALL)


class RuleFacts(Protocol):
    """What a rule may ask about one request; answers at once, whatever the name."""

    def variable(self, name: str) -> object:
        """The value of a name of `VARIABLES`."""

    def saturation(self, cluster: str) -> float:
        """0.0 (idle) .. 1.0 (full)."""

    def queue_depth(self, cluster: str) -> int:
        """Requests waiting for the cluster."""

    def header(self, name: str) -> str:
        """The value of the header of that lower-case name, "" when absent."""


class RuleError(Exception):
    """Raised when an expression does not compile; the message shows the place with a caret."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled condition.

    Attributes:
        mentions: every variable it may ask for.
    """

    source: str
    expression: Any
    mentions: frozenset[str]

    @property
    def prompt_sizes(self) -> frozenset[int]:
        """Numbers it may compare `prompt_tokens` with; none when it does not ask for that."""
        if "prompt_tokens" not in self.mentions:
            return frozenset()
        return frozenset(int(number) for number in _NUMBER.findall(self.source))

    def clusters(self) -> list[str]:
        """The clusters whose saturation or queue depth the rule asks for by literal name."""
        return [match[2] for match in _CLUSTER_ARGUMENT.finditer(self.source)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTable:
    """Rules in the order they are tried.

    Attributes:
        otherwise: the index of the rule that always holds; None without one.
        mentions: every variable any of the conditions may ask for.
        first: all conditions as one expression for the index of the first that holds.
        asks: for the facts its answer depends on; None when nobody can tell.
        answers: those given before, by these facts.
    """

    conditions: tuple[Rule, ...]
    otherwise: int | None
    mentions: tuple[str, ...]
    first: Any
    asks: list[Ask] | None
    answers: dict[Hashable, int | None] = field(default_factory=lambda: Remembered(_MAX_ANSWERS))


class RuleEngine:
    """Compiles rules and evaluates them; one per policy version."""

    def __init__(self) -> None:
        # CEL functions are bound when the environment is made; they look up the request under evaluation here.
        # Evaluation never awaits, so one slot is enough.
        self._facts: RuleFacts | None = None
        self._environment = cel.NewEnv(
            variables=VARIABLES,
            functions=[
                _function("saturation", cel.Type.DOUBLE, lambda name: self._current.saturation(name)),
                _function("queue_depth", cel.Type.INT, lambda name: self._current.queue_depth(name)),
                _function("header", cel.Type.STRING, lambda name: self._current.header(name.lower())),
            ],
        )
        self._no_variables = self._environment.Activation({})

    @property
    def _current(self) -> RuleFacts:
        if self._facts is None:
            raise RuleError("no request is being evaluated")
        return self._facts

    def compile(self, source: str) -> Rule:
        """Type-check `source`, which has to be a boolean expression."""
        try:
            expression = self._environment.compile(source)
        except RuntimeError as error:
            raise RuleError(_readable(str(error))) from None
        if expression.return_type() != cel.Type.BOOL:
            raise RuleError(f"is {expression.return_type().name().lower()}, has to be true or false")
        # Words in strings and comments count too: a variable too many costs little.
        return Rule(source, expression, frozenset(_WORD.findall(source)) & VARIABLES.keys())

    def table(self, rules: Sequence[Rule | None]) -> RuleTable:
        """Rules in the order they are tried, of which None always holds, ready to be asked for many requests."""
        end = rules.index(None) if None in rules else len(rules)
        conditions = tuple(rule for rule in rules[:end] if rule is not None)
        mentions = tuple(sorted(frozenset[str]().union(*[rule.mentions for rule in conditions])))
        return RuleTable(
            conditions=conditions,
            otherwise=end if end < len(rules) else None,
            mentions=mentions,
            first=self._first(conditions) if conditions else None,
            asks=decisive_facts([rule.source for rule in conditions], mentions, _NUMBERS),
        )

    def first_match(self, table: RuleTable, facts: RuleFacts) -> int | None:
        """The index of the first rule that holds."""
        if not table.conditions:
            return table.otherwise
        if table.asks is None:
            return self._evaluate(table, facts)
        known, answers = tuple([ask(facts) for ask in table.asks]), table.answers
        answer = answers.get(known, _UNKNOWN)
        if answer == _UNKNOWN:
            answer = answers[known] = self._evaluate(table, facts)
        return answer

    def _evaluate(self, table: RuleTable, facts: RuleFacts) -> int | None:
        self._facts = facts
        try:
            index = self._index(table, facts)
        finally:
            self._facts = None
        return table.otherwise if index is None else index

    def _index(self, table: RuleTable, facts: RuleFacts) -> int | None:
        activation = self._activation(table.mentions, facts)
        if table.first is not None and type(index := table.first.eval(activation).value()) is int:
            return index if index >= 0 else None
        # One that failed took all behind it down with it.
        for index, rule in enumerate(table.conditions):
            if rule.expression.eval(activation).value() is True:
                return index
        return None

    def _activation(self, mentions: Sequence[str], facts: RuleFacts) -> Any:
        if not mentions:
            return self._no_variables
        return self._environment.Activation({name: facts.variable(name) for name in mentions})

    def _first(self, conditions: Sequence[Rule]) -> Any:
        """One expression for the index of the first that holds, or -1; None where that would be too long for CEL."""
        choices = "".join(f"({rule.source}\n) ? {index} : " for index, rule in enumerate(conditions))
        try:
            return self._environment.compile(f"{choices}-1")
        except RuntimeError:
            return None


def _function(name: str, result: Any, look_up: Callable[[str], object]) -> Any:
    overload = cel.Overload(f"{name}_string", result, [cel.Type.STRING], impl=look_up)
    return cel.FunctionDecl(name, [overload])


def _readable(message: str) -> str:
    """The library's own text without its wrapping: `column N: what is wrong`, then the line with a caret."""
    status = _STATUS.fullmatch(message)
    message = status[2] if status else message
    return re.sub(r"ERROR: <input>:\d+:(\d+): ", r"column \1: ", message).replace(" (in container '')", "")
