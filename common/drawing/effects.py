"""Measures what a choice is worth: the difference of two arms that differ in it alone, repeat by repeat.

An arm is one side of the comparison: a method in one configuration, with all its repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from common.drawing.curves import average, paired, through
from common.drawing.figures import (
    Comparison,
    Drawing,
    Estimate,
    Figure,
    Panel,
    PublishedFigure,
    Results,
    Runs,
    estimate,
)
from common.runs import Run
from common.store import Result

WIDE = 3.0
"""A difference is undecided if its interval reaches further than this to either side of the mean, in points."""
UNDECIDED, NONE_SEEN = "undecided", "none seen"
DIFFERENCE = "{} minus {} (points, paired by seed and order)"
RULE = (
    f"{UNDECIDED}: the 95 % interval reaches more than {WIDE:g} points to either side; {NONE_SEEN}: it is narrower and "
    "holds 0"
)
Sides = Mapping[str, list[Run]]
"""The Runs of two arms by name. The difference is the first minus the second."""


def reading(difference: Estimate) -> str:
    """Return what a paired difference shows: "undecided", "none seen", "higher" or "lower"."""
    if not difference.interval <= WIDE:  # also true for a single repeat, whose interval is nan
        return UNDECIDED
    if abs(difference.mean) <= difference.interval:
        return NONE_SEEN
    return "higher" if difference.mean > 0 else "lower"


def differences(first: Sequence[Result], second: Sequence[Result], readouts: tuple[str, str]) -> dict[str, float]:
    """Return the average accuracy of the first arm minus that of the second, by the seed of each repeat that both have.

    readouts: the read-out of each arm.
    """
    pairs = zip(*paired([first, second]), strict=True)
    return {_name(a): average(a, readouts[0]) - average(b, readouts[1]) for a, b in pairs}


def _name(result: Result) -> str:
    """Return a repeat's seed, with its class order in front if that is another number."""
    order, seed = result.repeat
    return str(seed) if order in ("native", str(seed)) else f"{order}, {seed}"


def headline(sides: Callable[[Any], Sides], quantity: str, readouts: Mapping[str, str] = {}, role: str = "") -> Figure:
    """Return the figure that compares the two arms behind a paper's main claim. It is made on request only.

    sides: returns the Runs of both arms, given the setting; the first arm is claimed to be better. quantity: what is
    compared, with its unit. readouts: the read-out of an arm by its name, if it is not "cnn". role: as `Figure.role`.
    """
    drawing = partial(_headline, quantity=quantity, readouts=readouts)
    return Figure("headline", "Headline: the pair that carries the claim", partial(_tenfold, sides=sides),
                  drawing, role=role, on_request=True)  # fmt: skip


def disagreements(
    choices: Callable[[Any], Mapping[str, Sides]], quantity: str, readouts: Mapping[str, str] = {}, role: str = ""
) -> Figure:
    """Return the figure of what each open choice of a paper is worth. It is made on request only.

    choices: returns the Runs of two arms for each choice, by the choice's name, given the setting. The first arm takes
    the alternative, the second the default of this repository. readouts: the read-out of a choice by its name, if it
    is not "cnn". The other arguments are those of `headline`.
    """
    drawing = partial(_disagreements, quantity=quantity, readouts=readouts)
    title = "Disagreements: what each choice is worth"
    return Figure("disagreements", title, partial(_flat, choices=choices), drawing, role=role, on_request=True)


def _tenfold(s: Any, sides: Callable[[Any], Sides]) -> Runs:
    return dict(sides(s.tenfold()))


def _flat(s: Any, choices: Callable[[Any], Mapping[str, Sides]]) -> Runs:
    return {(choice, arm): runs for choice, sides in choices(s.tenfold()).items() for arm, runs in sides.items()}


def _headline(
    s: Any, results: Results, published: PublishedFigure, quantity: str, readouts: Mapping[str, str]
) -> Drawing:
    """Draw the averages of both arms, and the difference of every repeat beside the mean difference."""
    found = {name: group for name, group in results.items() if group}
    means = {name: estimate([average(r, readouts.get(name, "cnn")) for r in group]) for name, group in found.items()}
    rows = [Comparison(quantity, name, None, "", mean) for name, mean in means.items()]
    panels = [Panel("", "", quantity, [through("mean, 95 % interval", list(means), list(means.values()))], kind="bars")]
    note = "; ".join([RULE, *_shared(found)])
    if len(found) < 2:
        return Drawing(panels if found else [], rows, note)
    first, second = found
    gaps = differences(found[first], found[second], (readouts.get(first, "cnn"), readouts.get(second, "cnn")))
    if gaps:
        whole = estimate(list(gaps.values()))
        bars = [*(estimate([gap]) for gap in gaps.values()), whole]
        spread = f" ± {whole.interval:.2f}" if whole.n > 1 else ""
        words = f"{whole.mean:+.2f}{spread}: {reading(whole)}"
        curve = through("difference", [*gaps, "mean"], bars, words)
        panels.append(Panel(f"{first} minus {second}", "seed", "points", [curve], kind="bars"))
        rows.append(Comparison(DIFFERENCE.format(first, second), reading(whole), None, "", whole))
    return Drawing(panels, rows, note)


def _disagreements(
    s: Any, results: Results, published: PublishedFigure, quantity: str, readouts: Mapping[str, str]
) -> Drawing:
    """Draw the effect of every choice on `quantity`, with both arms of each choice in the table."""
    rows, effects = list[Comparison](), dict[str, Estimate]()
    for choice in dict.fromkeys(choice for choice, _ in results):
        readout = readouts.get(choice, "cnn")
        arms = {arm: found for (of_choice, arm), found in results.items() if of_choice == choice and found}
        means = {arm: estimate([average(r, readout) for r in found]) for arm, found in arms.items()}
        rows += [Comparison(quantity, f"{choice}: {arm}", None, "", mean) for arm, mean in means.items()]
        if len(arms) < 2:
            continue
        first, second = arms.values()
        if gaps := differences(first, second, (readout, readout)):
            effect = estimate(list(gaps.values()))
            effects[f"{choice}\n{' − '.join(arms)}\n{reading(effect)}"] = effect
            rows.append(Comparison(DIFFERENCE.format(*arms), f"{choice}: {reading(effect)}", None, "", effect))
    curves = [through("mean, 95 % interval", list(effects), list(effects.values()))] if effects else []
    panel = Panel("", "", f"effect on {quantity.replace('(%)', '(points)')}", curves, kind="bars")
    words = "each interval is of its own, none allows for how many there are"
    note = "; ".join([RULE, words, *_shared(results)])
    return Drawing([panel], rows, note)


def _shared(results: Results) -> list[str]:
    """Return a warning if some repeats start from the same Run: intervals do not include the spread of that Run."""
    starts = [[str(r.config["start"]) for r in found if r.config["start"]] for found in results.values()]
    if any(len(set(each)) < len(each) for each in starts):
        return ["some repeats share the run that they start from, of whose spread the intervals know nothing"]
    return []
