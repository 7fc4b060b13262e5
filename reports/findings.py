"""What the trials of a study say, in plain sentences that claim no more than the data carry.

Selection is by validation accuracy alone. The binomial standard error of an accuracy p measured on
n images is sqrt(p (1 - p) / n): it says how far chance in the choice of the images reaches. Two
single trainings whose accuracies differ by less than 1.96 sqrt(2) standard errors cannot be told
apart, and which seed was used adds to that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from reports import wording
from reports.records import Baseline, StudyRecords
from search.front import front_means, non_dominated
from search.outcome import DIVERGED, FAILED, PRUNED, RUNNING, WAITING
from search.records import TrialRecord

Z95 = 1.96
COSTS_SHOWN = ("flops", "macs", "params")
LATENCY = "latency_ratio"


def standard_error(share: float, images: int) -> float:
    """Binomial standard error of a share of images, as if one at least was right and one wrong."""
    inside = min(max(share, 1 / images), 1 - 1 / images)
    return math.sqrt(inside * (1 - inside) / images)


class Words(NamedTuple):
    """A piece of a sentence."""

    text: str
    strong: bool = False


Sentence = tuple[Words, ...]


def _sentence(*parts: str | Words) -> Sentence:
    return tuple(part if isinstance(part, Words) else Words(part) for part in parts)


@dataclass(frozen=True)
class Contender:
    """A candidate with its complete trials, each at another seed.

    Args:
        trials: Its trials, by number.
        accuracy: Validation accuracy, averaged over the trials.
        test_accuracy: Test accuracy, averaged; shown, never selected on.
    """

    trials: tuple[TrialRecord, ...]
    accuracy: float
    test_accuracy: float | None

    @property
    def first(self) -> TrialRecord:
        """The trial with the lowest number: label and costs are those of all."""
        return self.trials[0]

    @property
    def baseline(self) -> bool:
        """Whether it is no attention, a baseline of the study or at other settings."""
        plain = not self.first.architecture.get("placements", [None])
        return plain or any(trial.baseline for trial in self.trials)

    def cost(self, metric: str) -> float:
        """An exact cost, or the latency; infinite where that was not measured."""
        value = getattr(self.first, metric)
        return math.inf if value is None else float(value)


def _plain_words(contender: Contender) -> str:
    first = contender.first
    return "the baseline" if first.baseline else f"{first.label} (trial {first.number})"


def contenders(records: StudyRecords) -> list[Contender]:
    """The candidates with complete trials, in the order of their first trial."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in records.successes:
        groups.setdefault(trial.digest, []).append(trial)
    return [_contender(group) for group in groups.values()]


def _contender(trials: list[TrialRecord]) -> Contender:
    tested = [t.test_accuracy for t in trials if t.test_accuracy is not None]
    return Contender(
        tuple(trials),
        fmean(t.accuracy for t in trials if t.accuracy is not None),
        fmean(tested) if len(tested) == len(trials) else None,
    )


@dataclass(frozen=True)
class Findings:
    """What is read off the records of one study."""

    records: StudyRecords

    @cached_property
    def contenders(self) -> list[Contender]:
        """All candidates with a result."""
        return contenders(self.records)

    @cached_property
    def ranked(self) -> list[Contender]:
        """The candidates that may be compared: with replicates in the study, those that have some.

        One lucky seed would else beat a mean of several.
        """
        most = max((len(c.trials) for c in self.contenders), default=0)
        return [c for c in self.contenders if len(c.trials) >= min(most, 2)]

    @property
    def replicated(self) -> bool:
        """Whether any candidate has more than one seed."""
        return any(len(c.trials) > 1 for c in self.contenders)

    @cached_property
    def leading(self) -> str:
        """The cost that decides between candidates: the study's first objective that is one."""
        named = (name for name in self.records.study.objectives if name in self.axes)
        return next(named, COSTS_SHOWN[0])

    @cached_property
    def best(self) -> Contender | None:
        """The most accurate candidate; of equals the cheapest."""
        return min(
            self.ranked,
            key=lambda c: (-c.accuracy, c.cost(self.leading), c.first.number),
            default=None,
        )

    @property
    def images(self) -> int | None:
        """Images of the validation split."""
        return self.records.sizes[1] if self.records.sizes else None

    @cached_property
    def error(self) -> float | None:
        """Binomial standard error of the best validation accuracy."""
        if self.best is None or not self.images:
            return None
        return standard_error(self.best.accuracy, self.images)

    @property
    def chance(self) -> float | None:
        """The difference that two single trainings show by chance in 1 of 20 comparisons."""
        return None if self.error is None else Z95 * math.sqrt(2) * self.error

    @property
    def decimals(self) -> int:
        """Decimals that a percentage carries here."""
        return 2 if self.error is not None and self.error < 0.001 else 1

    @cached_property
    def cheapest(self) -> Contender | None:
        """The least of the leading cost within one standard error of the best.

        Of equals the smallest, then the most accurate.
        """
        if self.best is None or self.error is None:
            return None
        least = self.best.accuracy - self.error
        near = [c for c in self.ranked if c.accuracy >= least]
        return min(near, key=lambda c: (c.cost(self.leading), c.cost("params"), -c.accuracy))

    def baseline_of(self, contender: Contender) -> Baseline | None:
        """No attention on the same backbone."""
        return self.records.baseline_of(contender.first)

    # Words for one candidate. --------------------------------------------------------------------

    def percent(self, share: float | None) -> str:
        """An accuracy with the decimals that it carries here."""
        return wording.percent(share, self.decimals)

    def points(self, difference: float) -> str:
        """A difference of accuracies in signed percentage points."""
        return wording.points(difference, self.decimals)

    def gain(self, contender: Contender) -> str:
        """How a candidate's accuracy stands to no attention, in words."""
        baseline = self.baseline_of(contender)
        if baseline is None:
            return "with no complete baseline to compare with"
        size = wording.fixed(abs(100 * (contender.accuracy - baseline.accuracy)), self.decimals)
        if float(size) == 0:
            return "level with no attention"
        side = "above" if contender.accuracy > baseline.accuracy else "below"
        return f"{size} points {side} no attention"

    def price(self, contender: Contender) -> str:
        """What a candidate costs beside no attention, in words."""
        baseline = self.baseline_of(contender)
        if baseline is None:
            return f"at {wording.quantity(contender.cost('flops'))} FLOPs"
        metrics = [m for m in dict.fromkeys((self.leading, "flops", "params")) if m != LATENCY]
        parts = [
            (_more(contender.cost(metric), getattr(baseline, metric)), wording.title(metric))
            for metric in metrics
        ]
        names = wording.enumerated([name for _, name in parts])
        words = "for " + wording.enumerated([f"{amount} {name}" for amount, name in parts])
        if all(amount == "the same" for amount, _ in parts):
            words = f"for the same {names}"
        speed = contender.cost(LATENCY) if self.leading == LATENCY else math.inf
        return words if speed == math.inf else f"at {wording.ratio(speed)} its latency, {words}"

    @property
    def least_word(self) -> str:
        """What a candidate with the least of the leading cost is called."""
        return "fastest" if self.leading == LATENCY else "cheapest"

    # The verdict. --------------------------------------------------------------------------------

    def verdict(self) -> list[Sentence]:
        """The answer in a few sentences."""
        if self.best is None:
            return [_sentence(self.nothing())]
        return [self._front(), self._best(self.best), *self._cheapest()]

    def nothing(self) -> str:
        """Why there is no answer."""
        trials = self.records.trials
        if not trials:
            return "This study has no trials yet, so there is nothing to compare."
        open_ = sum(t.state in (WAITING, RUNNING) for t in trials)
        ended = [
            wording.counted(count, "trial") + f" {state}"
            for state in (FAILED, DIVERGED, PRUNED)
            if (count := sum(t.state == state for t in trials))
        ]
        if open_ and not ended:
            return f"No trial has finished yet; {wording.counted(open_, 'trial')} to come."
        tail = f"; {wording.counted(open_, 'trial')} to come" if open_ else ""
        return (
            f"No trial has a final accuracy: {wording.enumerated(ended)}{tail}. What went wrong is"
            " said under How the search went."
        )

    def _front(self) -> Sentence:
        names = wording.enumerated([wording.title(n) for n in self.records.study.objectives])
        if self.replicated:
            size, everything = len(self.front_contenders), len(self.contenders)
            of, other = wording.counted(everything, "candidate"), "candidate"
            where = f"{names}, at the means over their seeds"
        else:
            size, everything = len(self.records.front), len(self.records.successes)
            of, other, where = wording.counted(everything, "complete trial"), "trial", names
        return _sentence(
            Words(f"{size:,} of {of}", strong=True),
            f" {'is' if size == 1 else 'are'} on the Pareto front of {where}: no other {other} is"
            " at least as good in each of these and better in one.",
        )

    def _best(self, best: Contender) -> Sentence:
        if best.baseline:
            return _sentence(
                Words("No block beat no attention", strong=True),
                f": the most accurate candidate is {_plain_words(best)}, with"
                f" {self.percent(best.accuracy)} of the validation images right{_seeds(best)}.",
            )
        return _sentence(
            "The most accurate is ",
            Words(best.first.label, strong=True),
            f" (trial {best.first.number}): {self.percent(best.accuracy)} of the validation images"
            f" right{_seeds(best)}, {self.gain(best)}, {self.price(best)}.",
        )

    def _cheapest(self) -> list[Sentence]:
        cheapest, best = self.cheapest, self.best
        if cheapest is None or best is None or self.error is None or best.baseline:
            return []
        reach = wording.fixed(100 * self.error, self.decimals) + " points"
        opening = f"Within one standard error of it ({reach}), the {self.least_word} is "
        if cheapest is best:
            return [_sentence(opening, "that one itself.")]
        if cheapest.baseline:
            return [
                _sentence(
                    opening,
                    Words("no attention at all", strong=True),
                    f" ({self.percent(cheapest.accuracy)}): these trials do not show that"
                    " attention helps.",
                )
            ]
        return [
            _sentence(
                opening,
                Words(cheapest.first.label, strong=True),
                f" (trial {cheapest.first.number}): {self.percent(cheapest.accuracy)},"
                f" {self.gain(cheapest)}, {self.price(cheapest)}.",
            )
        ]

    def caution(self) -> Sentence | None:
        """What the numbers cannot carry."""
        if self.best is None:
            return None
        if self.replicated:
            return self._caution_for_replicates()
        opening = Words("One seed each", strong=True)
        if self.chance is None:
            return _sentence(
                opening,
                ": how much chance weighs is not known here, because the study does not say how"
                " many validation images it has. No difference shown is a tested one.",
            )
        reach = wording.fixed(100 * self.chance, self.decimals)
        return _sentence(
            opening,
            f": differences under about {reach} points cannot be told from chance"
            f" ({self.images:,} validation images).{self._winner()} The best of"
            f" {wording.counted(len(self.ranked), 'candidate')} also looks better than it is,"
            " because chance helped to pick it. Train with more seeds before deciding on less.",
        )

    def _winner(self) -> str:
        """Whether the winner's lead over no attention is within reach of chance."""
        best, chance = self.best, self.chance
        baseline = None if best is None else self.baseline_of(best)
        if best is None or chance is None or baseline is None or best.baseline:
            return ""
        lead = best.accuracy - baseline.accuracy
        if lead >= chance:
            return ""
        size = wording.fixed(abs(100 * lead), self.decimals)
        return f" The lead of {size} points over no attention is among them."

    def _caution_for_replicates(self) -> Sentence:
        counts = sorted({len(c.trials) for c in self.contenders})
        seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        return _sentence(
            Words(f"{seeds} seeds per candidate", strong=True),
            ": accuracies above are means over seeds, of candidates with at least two. So few seeds"
            " show the spread and prove nothing; no test of significance is made here, and the best"
            f" of {wording.counted(len(self.ranked), 'candidate')} looks better than it is,"
            " because chance helped to pick it.",
        )

    # Fronts. -------------------------------------------------------------------------------------

    @cached_property
    def front_trials(self) -> list[TrialRecord]:
        """The study's front, the most accurate first."""
        found = [t for t in self.records.successes if t.number in self.records.front]
        return sorted(found, key=lambda t: (-(t.accuracy or 0.0), t.flops, t.number))

    @cached_property
    def front_contenders(self) -> list[Contender]:
        """The front over candidates' means; empty without replicates."""
        rows = front_means(self.records.trials, self.records.study.objectives)
        digests = {row["digest"] for row in rows}
        found = [c for c in self.contenders if c.first.digest in digests]
        return sorted(found, key=lambda c: (-c.accuracy, c.cost("flops")))

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """What accuracy is shown against: exact costs, and latency where it was measured."""
        return (*COSTS_SHOWN, LATENCY) if self.records.timed else COSTS_SHOWN

    @property
    def first_view(self) -> str:
        """The view of the front chart that the page opens with."""
        return f"{self.leading}-linear-wide"

    def staircase(self, metric: str) -> list[TrialRecord]:
        """The front of accuracy against one cost alone, the cheapest first."""
        trials = self.records.with_value(metric)
        points = [(t.accuracy or 0.0, float(getattr(t, metric))) for t in trials]
        kept = non_dominated(points, {"accuracy": "max", metric: "min"})
        found = [trial for trial, keep in zip(trials, kept, strict=True) if keep]
        return sorted(found, key=lambda t: (getattr(t, metric), t.number))


def _more(value: float, reference: float) -> str:
    if value == reference or not reference:
        return "the same"
    size = abs(100 * (value / reference - 1))
    word = "more" if value > reference else "fewer"
    shown = wording.fixed(size, wording.change_decimals(value, reference))
    return f"{shown if float(shown) else 'under 0.001'}{wording.THIN}% {word}"


def _seeds(contender: Contender) -> str:
    count = len(contender.trials)
    return f" on average over {count} seeds" if count > 1 else ""
