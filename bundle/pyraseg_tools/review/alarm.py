# SPDX-License-Identifier: Apache-2.0
"""The alarm: whether a model is accepted less often than it was, by more than chance, or is corrected too much."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.review.figures import grouped, structures_of
from bundle.pyraseg_tools.review.record import Review


@dataclass(frozen=True)
class Rule:
    """Hold when an alarm rings.

    Attributes:
        first: results at the beginning with which others are compared.
        last: results at the end that are compared.
        level: chance of a false alarm in one look, for all comparisons together.
        least_dice: that the mean Dice of each structure reaches, in the corrections among the last results; or None.

    Raises:
        PyrasegError: a value cannot be.
    """

    first: int = 50
    last: int = 20
    level: float = 0.05
    least_dice: float | None = None

    def __post_init__(self) -> None:
        if self.first < 1 or self.last < 1:
            raise PyrasegError(f"{self.first} first and {self.last} last results cannot be compared. Give 1 or more.")
        if not 0 < self.level < 1:
            raise PyrasegError(
                f"The level of the alarm is {self.level:g}. Give a number between 0 and 1, such as 0.05."
            )
        if self.least_dice is not None and not 0 <= self.least_dice <= 1:
            raise PyrasegError(f"The least Dice is {self.least_dice:g}. Give a number from 0 to 1, such as 0.8.")

    def __str__(self) -> str:
        dice = (
            "No limit is set for the Dice."
            if self.least_dice is None
            else f"It also rings if, of the last {self.last} results, the corrections of a structure have a mean Dice "
            f"below {self.least_dice:g}."
        )
        return (
            f"The alarm rings if the share accepted of the last {self.last} results is below that of the first "
            f"{self.first} by more than chance (Fisher's exact test, one-sided, level {self.level:g}). All results are "
            "compared, and those of each scanner and of each model that has as many; the level is divided by the "
            f"number of these comparisons (Bonferroni). {dice}"
        )


@dataclass(frozen=True)
class Judgment:
    """Hold what one comparison found, as a sentence, and whether the alarm rings."""

    text: str
    rings: bool


def chance(accepted: tuple[int, int], counts: tuple[int, int]) -> float:
    """Return the probability that so few of the last results are accepted if nothing has changed.

    That is Fisher's exact test against "fewer" (Fisher, J. R. Stat. Soc. 85, 1922): the hypergeometric distribution of
    the accepted among the last, with the sums of both fixed.

    Args:
        accepted: how many of the first and of the last results.
        counts: how many first and last results there are.

    >>> round(chance((40, 5), (50, 20)), 7)
    2.66e-05
    """
    (before, now), (first, last) = accepted, counts
    table = [[now, last - now], [before, first - before]]
    return float(fisher_exact(table, alternative="less").pvalue)


def judge(reviews: Sequence[Review], rule: Rule) -> list[Judgment]:
    """Apply a rule to results in the order of their times; see `latest`."""
    groups = {"all results": list(reviews)}
    for by in ("scanner", "model"):
        own = grouped(reviews, by)
        groups |= {f"{by} {name}": members for name, members in own.items()} if len(own) > 1 else {}
    needed = rule.first + rule.last
    enough = {name: members for name, members in groups.items() if len(members) >= needed}
    found = [_compared(name, members, rule, tests=len(enough)) for name, members in enough.items()]
    if not enough:
        found.append(Judgment(f"There are {len(reviews)} results; the comparison begins at {needed}.", False))
    if rule.least_dice is not None:
        found += _below(reviews[-rule.last :], rule.least_dice)
    return found


def _compared(name: str, reviews: Sequence[Review], rule: Rule, *, tests: int) -> Judgment:
    first, last = reviews[: rule.first], reviews[-rule.last :]
    before, now = (sum(one.decision == "accepted" for one in part) for part in (first, last))
    probability, level = chance((before, now), (len(first), len(last))), rule.level / tests
    rings = probability < level
    verdict = "fewer than chance explains" if rings else "within chance"
    text = (
        f"{name}: {now} of the last {len(last)} accepted, {before} of the first {len(first)}: {verdict} "
        f"(p = {probability:.2g}, level {level:.2g})."
    )
    return Judgment(text, rings)


def _below(reviews: Sequence[Review], least: float) -> list[Judgment]:
    amended = [one for one in reviews if one.decision == "amended"]
    found = []
    for name in structures_of(amended):
        values = [one.dice[name] for one in amended if name in one.dice]
        mean = float(np.mean(values))
        rings = mean < least
        text = (
            f"{name}: mean Dice {mean:.3f} in {len(values)} corrections, {'below' if rings else 'not below'} {least:g}."
        )
        found.append(Judgment(text, rings))
    return found
