"""Which candidates of a plan may become trials, and how many trials are left to it."""

from __future__ import annotations

from blocks.formulas import Cost
from search.costing import Costing
from search.forecast import Counted
from search.plan import StudyPlan
from search.standing import FITS, Standing
from spaces.candidate import Candidate
from spaces.census import Census
from spaces.drawing import baseline_candidates, every_plain, sites_of
from spaces.parameters import Range


def baselines(plan: StudyPlan) -> list[Candidate]:
    """No attention, once per backbone."""
    return [candidate for candidate, _ in baseline_candidates(plan.space, plan.data)]


def trials_left(
    plan: StudyPlan, costing: Costing, ranges: tuple[str, ...], stored: Standing | None
) -> int:
    """Trials that are still to be trained, as far as there are candidates for them."""
    left = stored.left if stored else plan.trials
    if ranges or not costing.complete:
        return left
    most = (len(runnable(plan, costing)) + costing.uncounted) * plan.seeds
    fitting = stored.fates.get(FITS, 0) if stored else 0
    return min(left, max(0, most - fitting))


def possible(census: Census, costing: Costing, allowed: int) -> int | None:
    """How many candidates may become trials; None where ranges leave them without number.

    Args:
        census: Of the space.
        costing: Of the census.
        allowed: How many may of those that were looked at and counted.
    """
    if census.ranges:
        return None
    if costing.complete:
        return allowed + costing.uncounted
    return round(census.candidates.value * (1 - costing.share(len(costing.over)).value))


def runnable(plan: StudyPlan, costing: Costing) -> Counted:
    """What may become trials: the baselines (tuned: at all settings), and what no cap rejects."""
    rows: dict[str, tuple[Candidate, Cost]] = {}
    lists = not any(isinstance(domain, Range) for domain in plan.space.training.values())
    listed = plan.tune_baseline and lists and costing.complete
    tuned = every_plain(plan.space, plan.data) if listed else ()
    for candidate in (*baselines(plan), *tuned):
        sites = sites_of(candidate.architecture.backbone, candidate.data)
        rows[candidate.digest] = (candidate, sites.cost)
    rows |= {candidate.digest: (candidate, cost) for candidate, cost in costing.allowed}
    return list(rows.values())
