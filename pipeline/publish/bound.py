"""What a review of drawn instances shows: the exact one-sided upper bound of a share (Clopper and Pearson, 1934). Pure.

With x leaks among n drawn, the bound is the share p for which x or fewer would be found with a probability of 5 %. Over
all samples that could have been drawn it lies below the true share in 5 % of cases at most. For a sample without
replacement from a finite release it errs on the safe side; `finite` gives the exact bound there.
"""

from __future__ import annotations

from math import ceil, exp, lgamma, log, log1p

CONFIDENCE = 0.95


def upper(leaks: int, drawn: int, confidence: float = CONFIDENCE) -> float:
    """Return the upper bound of the share of leaks. Raises ValueError where there can be no such review."""
    if not 0 <= leaks <= drawn or drawn < 1:
        raise ValueError("a review is of at least one instance, and finds no more leaks than that")
    if leaks == drawn:
        return 1.0
    alpha = 1 - confidence
    if leaks == 0:
        return 1 - exp(log(alpha) / drawn)
    low, high = leaks / drawn, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _binomial(leaks, drawn, middle) > alpha:
            low = middle
        else:
            high = middle
    return high


def finite(leaks: int, drawn: int, population: int, confidence: float = CONFIDENCE) -> int:
    """Return how many of a release's instances may leak at most: the largest number under which so few leaks would be
    found with a probability above 5 % (hypergeometric). Raises ValueError."""
    if not 0 <= leaks <= drawn <= population or drawn < 1:
        raise ValueError("no more is drawn than there is, and no more found than was drawn")
    alpha = (1 - confidence) * (1 - 1e-9)       # rounding errs on the safe side
    low, high = leaks, population - (drawn - leaks)     # the rest was drawn and is clean
    while low < high:
        middle = (low + high + 1) // 2
        if _hypergeometric(leaks, drawn, middle, population) >= alpha:
            low = middle
        else:
            high = middle - 1
    return low


def needed(share: float, confidence: float = CONFIDENCE) -> int:
    """Return the least number to review so that, where no leak is found, the bound lies below `share`."""
    if not 0 < share < 1:
        raise ValueError("a share is between 0 and 1")
    n = max(1, ceil(log(1 - confidence) / log1p(-share)))
    while upper(0, n, confidence) >= share:
        n += 1
    while n > 1 and upper(0, n - 1, confidence) < share:
        n -= 1
    return n


def _choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _binomial(x: int, n: int, p: float) -> float:
    """P(X <= x) of a binomial."""
    return sum(exp(_choose(n, k) + k * log(p) + (n - k) * log1p(-p)) for k in range(x + 1))


def _hypergeometric(x: int, n: int, bad: int, population: int) -> float:
    """P(X <= x), X bad ones among n drawn."""
    least = max(0, n - (population - bad))
    return sum(exp(_choose(bad, k) + _choose(population - bad, n - k) - _choose(population, n))
               for k in range(least, min(x, bad, n) + 1))
