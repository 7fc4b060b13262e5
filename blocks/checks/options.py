"""Every option value runs, and is a function of its own."""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from blocks.checks.judging import require_map
from blocks.facts import ALIAS_SIZE
from blocks.options import MapShape, Option, OptionValue
from blocks.subject import ConformanceError, Size, Subject

Behaviour = tuple[Size, list[Tensor], dict[str, OptionValue]]

LARGE = 300.0  # relu and relu6 are one function of small numbers
DRAWS = 2  # of the weights: with a narrow layer shut, what comes before it has no effect


def option_values_run(subject: Subject) -> str:
    """Every value worth trying gives a map."""
    for option in subject.row.options:
        for value in option.values:
            given = {option.name: value}
            size = subject.map_size((7, 5), given)
            x = subject.maps(2, size)
            require_map(subject.at(2, size, given), subject.built(size, given)(x.clone()), x)
    return ""


def option_values_differ(subject: Subject) -> str:
    """Every pair of values of an option is two functions, or a stated alias."""
    remarks = []
    for option in subject.row.options:
        if len(option.values) == 1:
            remarks.append(_some_value_matters(subject, option))
            continue
        stated = subject.facts.alias_values(option.name) if subject.aliases_are_stated else ()
        values = {(type(v), v): v for v in (*option.values, *stated)}.values()
        built = [(value, _behaviour(subject, option, value)) for value in values]
        for (one, first), (other, second) in combinations(built, 2):
            if first[0] == second[0]:
                _judge_pair(subject, option, (one, first), (other, second))
    return "; ".join(filter(None, remarks))


def _behaviour(subject: Subject, option: Option, value: OptionValue) -> Behaviour:
    """What a value does: the map, what can be observed, and its identity there.

    Observed are the output in training and then in evaluation, that for large numbers, and the
    first weights: an option may matter to any of them alone.
    """
    channels, given = subject.option_channels, {option.name: value}
    size = subject.map_size(ALIAS_SIZE, given, channels=channels)
    x = subject.maps(2, size, channels=channels, dtype=torch.float64)
    observed = list(subject.fresh(size, given, channels=channels).state_dict().values())
    for draw in range(DRAWS):
        block = subject.built(size, given, channels=channels, draw=draw).double()
        with torch.no_grad():
            observed += [block.train()(x.clone()), block.eval()(x.clone()), block(LARGE * x)]
    return size, observed, subject.row.in_use(given, MapShape(channels, *size))


def _same_function(one: Behaviour, other: Behaviour) -> bool:
    return len(one[1]) == len(other[1]) and all(
        a.shape == b.shape
        and torch.allclose(a.double(), b.double(), rtol=1e-9, atol=1e-12, equal_nan=True)
        for a, b in zip(one[1], other[1], strict=True)
    )


def _judge_pair(
    subject: Subject,
    option: Option,
    one: tuple[OptionValue, Behaviour],
    other: tuple[OptionValue, Behaviour],
) -> None:
    """Same function, stated alias and same identity: all three hold, or none does."""
    same, one_identity = _same_function(one[1], other[1]), one[1][2] == other[1][2]
    stated = one_identity
    if subject.aliases_are_stated:
        stated = subject.facts.are_aliases(option.name, one[0], other[0])
    where = (
        f"{subject.row.name}.{option.name}: {one[0]!r} and {other[0]!r} at"
        f" {subject.option_channels} x {one[1][0][0]} x {one[1][0][1]}"
    )
    if same and not stated:
        raise ConformanceError(
            f"{where} build the same function; needed: two functions, or an alias that is stated"
        )
    if stated and not same:
        raise ConformanceError(f"{where} are stated to be one function; they build two")
    if one_identity != same:
        raise ConformanceError(
            f"{where} are {'one function' if same else 'two functions'}, but their identity (the"
            f" option's `effect`) says {'two' if same else 'one'}"
        )


def _some_value_matters(subject: Subject, option: Option) -> str:
    """Look for another value that changes something, where the default alone is declared."""
    tried, default = [], _behaviour(subject, option, option.default)
    for value in made_up_values(option.default):
        try:
            found = _behaviour(subject, option, value)
        except Exception:
            continue  # a value that we made up need not be one
        if found[1][-1].shape != default[1][-1].shape:
            continue
        if not _same_function(found, default):
            return ""
        tried.append(value)
    if not tried:
        return f"{option.name}: its values are not known, so it was not tried"
    raise ConformanceError(
        f"{subject.row.name}.{option.name}: {option.default!r} and"
        f" {', '.join(map(repr, tried))} build the same function; needed: an option that changes"
        " something"
    )


def made_up_values(default: OptionValue) -> tuple[OptionValue, ...]:
    """Values to try beside a default that is all we know of an option."""
    if isinstance(default, bool):
        return (not default,)
    if isinstance(default, int):
        return (2 * default, default + 2, default + 1, default - 1)
    if isinstance(default, float):
        return (2 * default, default / 2, default + 1.0)
    return ()
