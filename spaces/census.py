"""What a space holds: how many proposals, networks and candidates, and what fits no site.

Counted one by one where the proposals can be listed; as a product where parts of the space decide
for themselves (``spaces.parts``); else estimated from random draws, and said so.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from blocks.errors import SiteError
from blocks.options import OptionValue
from spaces.candidate import Candidate, DataFacts
from spaces.drawing import ENUMERATION_LIMIT, draw, enumerate_proposals, propose
from spaces.estimates import Amount, Share, distinct_kinds, leaves
from spaces.parameters import Choice, Domain, Range, fixed
from spaces.parts import Region, regions_of
from spaces.space import Space

DRAWS = 2000
LISTED, PRODUCT, ESTIMATED = "listed", "product", "estimated"


@dataclass(frozen=True)
class Census:
    """What a space holds.

    Args:
        how: "listed", "product" or "estimated".
        proposals: Ways through the space's questions that its rules allow, its ranges left out.
        architectures: Distinct networks.
        candidates: Distinct networks with distinct trainings, ranges left out.
        ranges: The settings that are ranges, each of which makes the candidates uncountable.
        impossible: Proposals that fit no site.
        reasons: Why, with how many of those that were looked at; the commonest first.
        found: All distinct candidates, or those that were drawn.
    """

    how: str
    proposals: Amount
    architectures: Amount
    candidates: Amount
    ranges: tuple[str, ...]
    impossible: Share
    reasons: tuple[tuple[str, int], ...]
    found: tuple[Candidate, ...]

    @property
    def complete(self) -> bool:
        """Whether ``found`` is all there is, ranges apart."""
        return self.how == LISTED

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "how": self.how,
            "proposals": self.proposals.to_json(),
            "architectures": self.architectures.to_json(),
            "candidates": None if self.ranges else self.candidates.to_json(),
            "ranges": list(self.ranges),
            "impossible": {
                **self.impossible.to_json(),
                "reasons": [{"reason": words, "count": n} for words, n in self.reasons],
            },
        }


def take_census(
    space: Space,
    data: DataFacts,
    *,
    limit: int = ENUMERATION_LIMIT,
    draws: int = DRAWS,
    seed: int = 0,
) -> Census:
    """Count what a space holds.

    Args:
        space: What may vary.
        data: The data set.
        limit: Proposals that are looked at one by one, at most.
        draws: Random draws where they are more.
        seed: Of the draws.
    """
    ranges = tuple(name for name, domain in space.training.items() if isinstance(domain, Range))
    still: dict[str, Domain] = {name: fixed(space.training[name].default) for name in ranges}
    grounded = replace(space, training={**space.training, **still})
    regions = regions_of(grounded, data, seed=seed)
    if regions is None or sum(region.proposals() for region in regions) <= limit:
        listed = _listed(grounded, data, ranges, limit)
        if listed is not None:
            return listed
    if regions is not None:
        return _multiplied(regions, ranges, draws, seed)
    return _estimated(grounded, data, ranges, draws, seed)


def _listed(space: Space, data: DataFacts, ranges: tuple[str, ...], limit: int) -> Census | None:
    """Every proposal looked at; None where there are more than the limit."""
    found: dict[str, Candidate] = {}
    reasons: Counter[str] = Counter()
    count = 0
    for proposal in enumerate_proposals(space, data):
        count += 1
        if count > limit:
            return None
        try:
            candidate = draw(proposal, data)
        except SiteError as error:
            reasons[str(error)] += 1
        else:
            found.setdefault(candidate.digest, candidate)
    return Census(
        LISTED,
        Amount.counted(count),
        Amount.counted(len({candidate.architecture_digest for candidate in found.values()})),
        Amount.counted(len(found)),
        ranges,
        Share(reasons.total(), count),
        tuple(reasons.most_common()),
        tuple(found.values()),
    )


def _multiplied(
    regions: tuple[Region, ...], ranges: tuple[str, ...], draws: int, seed: int
) -> Census:
    """Exact counts of a product, and candidates drawn evenly from it."""
    chance = random.Random(seed)
    parts = max(len(region.parts) for region in regions)
    how = f"the choices of {parts} parts multiplied" if parts > 1 else "attention times training"
    proposals = sum(region.proposals() for region in regions)
    fitting = sum(region.proposals(fitting=True) for region in regions)
    weights = [region.candidates for region in regions]
    drawn = [_one_of(regions, weights, chance).drawn(chance) for _ in range(draws)]
    reasons: Counter[str] = Counter()
    for region in regions:
        for part in region.parts:
            reasons.update(part.reasons)
    return Census(
        PRODUCT,
        Amount.counted(proposals, how),
        Amount.counted(sum(region.architectures for region in regions), how),
        Amount.counted(sum(weights), how),
        ranges,
        Share(proposals - fitting, proposals),
        tuple(reasons.most_common()),
        tuple({candidate.digest: candidate for candidate in drawn}.values()),
    )


def _one_of(regions: tuple[Region, ...], weights: list[int], chance: random.Random) -> Region:
    """A region, each as likely as it has candidates; numbers may be too large for floats."""
    place = chance.randrange(sum(weights))
    for region, weight in zip(regions, weights, strict=True):
        if place < weight:
            return region
        place -= weight
    raise AssertionError("a place lies in a region")


def _estimated(
    space: Space, data: DataFacts, ranges: tuple[str, ...], draws: int, seed: int
) -> Census:
    """Random draws, with what they say of all."""
    chance = random.Random(seed)
    branchings: list[float] = []
    found: dict[str, Candidate] = {}
    digests: Counter[str] = Counter()
    networks: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for _ in range(draws):
        branching = 1.0

        def choose(name: str, domain: Domain) -> OptionValue:
            nonlocal branching
            assert isinstance(domain, Choice)  # ranges stand still
            branching *= len(domain.values)
            return chance.choice(domain.values)

        proposal = propose(space, choose, data)
        branchings.append(0.0 if proposal.forbidden else branching)
        if proposal.forbidden:
            continue
        try:
            candidate = draw(proposal, data)
        except SiteError as error:
            reasons[str(error)] += 1
        else:
            digests[candidate.digest] += 1
            networks[candidate.architecture_digest] += 1
            found.setdefault(candidate.digest, candidate)
    how = f"estimated from {draws:,} random proposals"
    proposals = replace(leaves(branchings), how=how)
    return Census(
        ESTIMATED,
        proposals,
        _kinds(networks, proposals, how),
        _kinds(digests, proposals, how),
        ranges,
        Share(reasons.total(), sum(map(bool, branchings)), exact=False),
        tuple(reasons.most_common()),
        tuple(found.values()),
    )


def _kinds(counts: Counter[str], proposals: Amount, how: str) -> Amount:
    """Distinct ones: no fewer than an estimate that is a lower bound, no more than proposals."""
    kinds = distinct_kinds(counts.values())
    high = max(kinds.low, proposals.high)
    return replace(kinds, high=high, how=f"{how}; a lower bound")
