"""What the claim asks for, met or not, each with its numbers. Pure arithmetic on what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from lm2.evaluation.statistics import p_value, wilson
from lm2.evaluation.tokens import n_tokens

OVER_PLAIN, OVER_RMT = 86.3, 37.1
"""Per cent by which the LM2 paper is above its plain model and above its RMT."""
HALVED_ABOVE = 72.9
"""Where RMT is above this, no score can be 37.1 % higher: half of its errors is asked for instead."""
REACHED, TIMES = 0.90, 4
LEAST_AT_LONGEST = 0.95
P = 0.01
TINY = 1e-9
"""Means are not exact in floating point."""


@dataclass(frozen=True)
class Measured:
    """What the claims are about. Shares are between 0 and 1; the plain model here sees no more than a segment."""

    means: Mapping[str, float]
    """By model: over tasks and claimed lengths"""
    qa1: Mapping[str, Mapping[str, float]]
    """By model: right answers of qa1 by length, as far as it was asked; empty in a run without qa1"""
    p: Mapping[str, float]
    """By other model: of the paired test of LM2 against it, all claimed cells together"""
    reset: tuple[int, int]
    """Right answers and questions of LM2 with its memory reset, in cells beyond the window; (0, 0) without controls"""
    plain: tuple[int, int]
    """The same of the plain model, in the same cells"""
    window: str
    """What the plain model is called"""


@dataclass(frozen=True)
class Claim:
    """A claim, whether it is met, and the numbers that say so."""

    text: str
    met: bool
    numbers: str


def claims(measured: Measured) -> list[Claim]:
    """All that the claim asks of a run on a processor, as far as the run asked for it."""
    found = [_over_plain(measured), _over_rmt(measured), *(_p(measured, other) for other in measured.p)]
    found += [_reset(measured)] if measured.reset[1] else []
    return found + ([_longest(measured), _far(measured)] if measured.qa1["LM2"] else [])


def _over_plain(measured: Measured) -> Claim:
    ours, theirs = measured.means["LM2"], measured.means[measured.window]
    text = f"LM2 is {OVER_PLAIN} % or more above plain attention that cannot see beyond its window"
    return Claim(text, _above(ours, theirs, OVER_PLAIN), _two(ours, measured.window, theirs))


def _over_rmt(measured: Measured) -> Claim:
    ours, theirs = measured.means["LM2"], measured.means["RMT"]
    if 100 * theirs > HALVED_ABOVE:
        text = f"LM2 makes at most half of RMT's errors (RMT is above {HALVED_ABOVE} %)"
        return Claim(text, 2 * (1 - ours) <= 1 - theirs + TINY, _two(ours, "RMT", theirs))
    return Claim(f"LM2 is {OVER_RMT} % or more above RMT", _above(ours, theirs, OVER_RMT), _two(ours, "RMT", theirs))


def _above(ours: float, theirs: float, percent: float) -> bool:
    return ours > theirs and ours >= theirs * (1 + percent / 100) - TINY


def _two(ours: float, name: str, theirs: float) -> str:
    relative = f", {100 * (ours / theirs - 1):+.1f} %" if theirs else ""
    return f"LM2 {100 * ours:.1f}, {name} {100 * theirs:.1f}{relative}"


def _longest(measured: Measured) -> Claim:
    ours, theirs = (reach(measured.qa1[name]) for name in ("LM2", "RMT"))
    met = ours is not None and (theirs is None or n_tokens(ours) >= TIMES * max(1, n_tokens(theirs)))
    text = f"the longest length with {100 * REACHED:.0f} % on qa1 is at least {TIMES} times RMT's"
    return Claim(text, met, f"LM2 {ours or 'none'}, RMT {theirs or 'none'}")


def reach(by_length: Mapping[str, float]) -> str | None:
    """The longest length up to which every one has 90 %; None if the shortest has not."""
    found = None
    for length in sorted(by_length, key=n_tokens):
        if by_length[length] < REACHED:
            break
        found = length
    return found


def _p(measured: Measured, other: str) -> Claim:
    p, better = measured.p[other], measured.means["LM2"] > measured.means[other]
    text = f"LM2 answers better than {other}, paired test p < {P}"
    numbers = _two(measured.means["LM2"], other, measured.means[other])
    return Claim(text, better and p < P, f"p = {p_value(p)}, {numbers}")


def _reset(measured: Measured) -> Claim:
    ours, theirs = wilson(*measured.reset), wilson(*measured.plain)
    shown = [f"{100 * right / n:.1f} of {n}" for right, n in (measured.reset, measured.plain)]
    text = "with its memory reset at each segment LM2 falls to the plain model's level (95 % intervals meet, or below)"
    return Claim(text, ours[0] <= theirs[1], f"LM2 reset {shown[0]}, {measured.window} {shown[1]}")


def _far(measured: Measured) -> Claim:
    by_length = measured.qa1["LM2"]
    longest = max(by_length, key=n_tokens)
    text = f"LM2 has {100 * LEAST_AT_LONGEST:.0f} % or more on qa1 at {longest}"
    return Claim(text, by_length[longest] >= LEAST_AT_LONGEST, f"LM2 {100 * by_length[longest]:.1f}")
