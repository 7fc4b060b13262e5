"""Which difference in accuracy a comparison can detect, and a simulation that says whether it does.

A block is compared with the baseline by its accuracies at the same seeds, by a paired t test.
Of several blocks the p values are Holm's. The power of one comparison follows from the noncentral t
distribution; with Holm it is that at alpha over the number of comparisons, which is exact where no
other block differs from the baseline and was rejected first, and too small otherwise.

Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics
6, 1979; Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, chapter 2.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, norm
from scipy.stats import t as student

ALPHA = 0.05
POWER = 0.8
STUDIES = 2000
NODES = 4000

# Shape letters: S simulated studies, M comparisons, N seeds.


def power(difference: float, sd: float, seeds: int, *, alpha: float = ALPHA) -> float:
    """The chance that a paired t test finds a difference.

    Args:
        difference: The true one.
        sd: Standard deviation of a paired difference between seeds.
        seeds: How many pairs; two or more.
        alpha: The chance of a difference found where there is none.
    """
    freedom = seeds - 1
    critical = float(student.ppf(1 - alpha / 2, freedom))
    shift = difference * math.sqrt(seeds) / sd
    bounds = critical * _scales(freedom)
    return float((norm.cdf(shift - bounds) + norm.cdf(-shift - bounds)).mean())


@lru_cache
def _scales(freedom: int) -> NDArray[np.float64]:
    """Estimated over true deviations, at evenly spaced probabilities.

    The noncentral t distribution is a mean over them; scipy's own, ``nct``, is not a number where
    there are few seeds and a small alpha.
    """
    middles = (np.arange(NODES) + 0.5) / NODES
    scales: NDArray[np.float64] = np.sqrt(chi2.ppf(middles, freedom) / freedom)
    return scales


def detectable(
    sd: float, seeds: int, *, comparisons: int = 1, alpha: float = ALPHA, wanted: float = POWER
) -> float | None:
    """The smallest difference that is found with the wanted chance; None where no test is possible.

    Args:
        sd: Standard deviation of a paired difference between seeds.
        seeds: How many pairs; a test needs two.
        comparisons: How many blocks are compared with the baseline, by Holm's method.
        alpha: The chance of any difference found where there is none.
        wanted: The chance with which it is to be found.
    """
    if seeds < 2:
        return None
    each = alpha / comparisons
    high = sd
    while power(high, sd, seeds, alpha=each) < wanted:
        high *= 2
    return float(brentq(lambda d: power(d, sd, seeds, alpha=each) - wanted, 0.0, high))


def simulate(
    difference: float,
    sd: float,
    seeds: int,
    *,
    comparisons: int = 1,
    alpha: float = ALPHA,
    studies: int = STUDIES,
    seed: int = 0,
) -> float:
    """The share of simulated studies that find a block's difference from the baseline.

    Every study trains the baseline and ``comparisons`` blocks at the same seeds; one block differs,
    the others do not. The differences of all blocks share the baseline's noise.

    Args:
        difference: Of the one block.
        sd: Standard deviation of a paired difference between seeds.
        seeds: How many pairs.
        comparisons: How many blocks are compared, by Holm's method.
        alpha: The chance of any difference found where there is none.
        studies: How many are simulated.
        seed: Of the noise.
    """
    chance = np.random.default_rng(seed)
    single = sd / math.sqrt(2)
    baseline_SN = chance.normal(0.0, single, (studies, 1, seeds))
    blocks_SMN = chance.normal(0.0, single, (studies, comparisons, seeds))
    blocks_SMN[:, 0] += difference
    return float(_found(_p_values(blocks_SMN - baseline_SN), alpha).mean())


def _p_values(differences_SMN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of two-sided t tests of differences against 0, (S, M)."""
    seeds = differences_SMN.shape[-1]
    error_SM = differences_SMN.std(axis=-1, ddof=1) / math.sqrt(seeds)
    t_SM = differences_SMN.mean(axis=-1) / error_SM
    p_SM: NDArray[np.float64] = 2 * student.sf(np.abs(t_SM), seeds - 1)
    return p_SM


def _found(p_SM: NDArray[np.float64], alpha: float) -> NDArray[np.bool_]:
    """Whether Holm's method rejects the first hypothesis, (S,)."""
    comparisons = p_SM.shape[1]
    ordered_SM = np.sort(p_SM, axis=1)
    passed_SM = ordered_SM <= alpha / np.arange(comparisons, 0, -1)
    rejected_S = np.cumprod(passed_SM, axis=1).sum(axis=1)  # from the smallest until one fails
    rank_S = (p_SM < p_SM[:, :1]).sum(axis=1)
    found_S: NDArray[np.bool_] = rank_S < rejected_S
    return found_S
