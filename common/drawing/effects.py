"""What a choice is worth: arms that differ in it alone, and their difference repeat by repeat, with an interval."""

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
"""Points on either side of a mean from which an interval leaves the difference undecided."""
UNDECIDED, NONE_SEEN = "undecided", "none seen"
DIFFERENCE = "{} minus {} (points, paired by seed and order)"
RULE = (
    f"{UNDECIDED}: the 95 % interval reaches more than {WIDE:g} points to either side; {NONE_SEEN}: it is narrower and "
    "holds 0"
)
Sides = Mapping[str, list[Run]]
"""The Runs of two arms, by name. What counts is by how much the first exceeds the second."""


def reading(difference: Estimate) -> str:
    """What a paired difference says, in words: undecided, none seen, higher or lower."""
    if not difference.interval <= WIDE:  # nor where there is one repeat, whose interval is not a number
        return UNDECIDED
    if abs(difference.mean) <= difference.interval:
        return NONE_SEEN
    return "higher" if difference.mean > 0 else "lower"


def differences(first: Sequence[Result], second: Sequence[Result], readouts: tuple[str, str]) -> dict[str, float]:
    """Average accuracy of the first arm minus the second's, by the seed of each repeat that both have."""
    pairs = zip(*paired([first, second]), strict=True)
    return {_name(a): average(a, readouts[0]) - average(b, readouts[1]) for a, b in pairs}


def _name(result: Result) -> str:
    """A repeat's seed, and its class order where that is another number."""
    order, seed = result.repeat
    return str(seed) if order in ("native", str(seed)) else f"{order}, {seed}"


def headline(sides: Callable[[Any], Sides], quantity: str, readouts: Mapping[str, str] = {}, role: str = "") -> Figure:
    """The figure of the two arms that carry a paper's claim, on request.

    sides: the setting -> the arm that is claimed to be better, and the other. quantity: what is compared, with its
    unit. readouts: of each arm, by its name, where it is not "cnn". role: of the setting, as `Figure.role`.
    """
    drawing = partial(_headline, quantity=quantity, readouts=readouts)
    return Figure("headline", "Headline: the pair that carries the claim", partial(_tenfold, sides=sides),
                  drawing, role=role, on_request=True)  # fmt: skip


def disagreements(
    choices: Callable[[Any], Mapping[str, Sides]], quantity: str, readouts: Mapping[str, str] = {}, role: str = ""
) -> Figure:
    """The figure of what each open choice of a paper is worth, on request.

    choices: the setting -> by the choice's name the arm that makes it in the other way, and the arm that makes it as
    by default here. The others as in `headline`.
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
    """Both arms, and the difference of every repeat beside their mean."""
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
    """The effect of every choice on the headline number, and both arms of each in the table."""
    rows, effects = list[Comparison](), dict[str, Estimate]()
    for choice in dict.fromkeys(choice for choice, _ in results):
        readout = readouts.get(choice, "cnn")
        arms = {arm: found for (of, arm), found in results.items() if of == choice and found}
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
    """A warning where repeats start from one Run, of which intervals then know nothing."""
    starts = [[str(r.config["start"]) for r in found if r.config["start"]] for found in results.values()]
    if any(len(set(each)) < len(each) for each in starts):
        return ["some repeats share the run that they start from, of whose spread the intervals know nothing"]
    return []
