"""Makes the tables of a paper's page that are about all of its records: claims, training cost, and the records."""

from __future__ import annotations

from collections.abc import Sequence

from common.command.locked import matches
from common.drawing.claims import Claim
from common.drawing.report import code, machine
from common.drawing.tables import Cell, Table
from common.drawing.views import ClaimView, PartView
from common.store import Result


def claims(listed: Sequence[Claim], parts: Sequence[PartView]) -> list[ClaimView]:
    """Return every claim with the effect measured in the first part that measures it.

    Claims that the first part measures come first, and claims that no part measures come last.
    """
    headings = [part.heading for part in parts]
    views = [_claim(claim, parts) for claim in listed]
    return sorted(views, key=lambda v: headings.index(v.schedule) if v.figure else len(headings))


def _claim(claim: Claim, parts: Sequence[PartView]) -> ClaimView:
    printed = "–" if claim.published is None else f"{_signed(claim, claim.published)} ({claim.provenance})"
    for part in parts:
        for effect in part.effects:
            if effect.claim == claim.id:
                return ClaimView(
                    claim.id,
                    claim.text,
                    claim.source,
                    printed,
                    effect.text,
                    part.heading,
                    effect.verdict,
                    effect.figure,
                )
    verdict = claim.verdict(None, full_schedule=True)
    return ClaimView(claim.id, claim.text, claim.source, printed, "–", "–", verdict, "")


def _signed(claim: Claim, value: float) -> str:
    return f"{value:{'+' if claim.signed else ''}.2f} {claim.unit}".strip()


def machines(results: Sequence[Result]) -> str:
    """Return the machines of all records as text, each with its precisions in brackets."""
    places: dict[str, list[str]] = {}
    for result in results:
        place = result.environment
        places.setdefault(place.get("device", "unknown"), []).append(str(place.get("precision", "unknown")))
    words = (f"{device} ({', '.join(sorted(set(found)))})" for device, found in places.items())
    return ", ".join(words) or "no machine yet"


def cost(paper: str, results: Sequence[Result]) -> Table:
    """Return a table of the training cost: runs, hours and minutes per run, by data, network, precision and machine."""
    sums: dict[tuple[str, ...], list[float]] = {}
    for result in results:
        place, config = result.environment, result.config
        key = config["data"]["name"], config["network"], str(place.get("precision", "unknown")), machine(place)
        sums.setdefault(key, []).append(place.get("training_seconds", 0) or 0)
    titles = ["data", "network", "precision", "machine", "runs", "hours of training", "minutes a run"]
    rows = [
        [*key, str(len(times)), f"{sum(times) / 3600:.2f}", f"{sum(times) / 60 / len(times):.2f}"]
        for key, times in sorted(sums.items())
    ]
    cells = [[Cell(text, f"records/{paper}.html" if i == 4 else "") for i, text in enumerate(row)] for row in rows]
    return Table("cost", "What the records took", titles, cells)


def record_rows(paper: str, results: Sequence[Result], used: set[str]) -> Table:
    """Return a table with one row per committed record, whose hash links to the file. Embedded data come last.

    used: hashes shown in figures.
    """
    titles = [
        "record",
        "method",
        "data",
        "classes",
        "epochs",
        "class order",
        "seed",
        "last accuracy (%)",
        "in a figure",
    ]
    titles += ["commit", "precision", "machine", "software", "minutes"]
    ordered = sorted(results, key=lambda r: (r.embedded, r.config["method"]["type"], r.hash))
    rows = [_record(paper, result, used) for result in ordered]
    return Table("records", "Committed records", titles, rows)


def _record(paper: str, result: Result, used: set[str]) -> list[Cell]:
    config, place = result.config, result.environment
    protocol, software = config["protocol"], f"torch {place.get('torch', '?')}, Python {place.get('python', '?')}"
    texts = [
        _method(config["method"]),
        config["data"]["name"] + (f", factor {config['longtail']['imbalance']:g}" if config.get("longtail") else ""),
        f"{protocol['base']} of {protocol['classes']}, then {protocol['step']}"
        if protocol["step"]
        else str(protocol["classes"]),
        str(config["schedule"]["epochs"]),
        config["order"],
        str(config["seed"]),
        _last(result),
        "yes" if result.hash in used else "no",
        code(place, 10) + (" (with changes)" if place.get("dirty") else ""),
        str(place.get("precision", "?")),
        machine(place),
        software + (", as constraints.txt" if matches(place) else ""),
        f"{(place.get('training_seconds', 0) or 0) / 60:.1f}",
    ]
    return [Cell(result.hash, f"{paper}/{result.hash}.json"), *map(Cell, texts)]


def _method(method: dict) -> str:
    """Return the method's name, with its version unless that is 1."""
    version = method.get("version", 1)
    return method["type"] + (f" (version {version})" if version != 1 else "")


def _last(result: Result) -> str:
    """Return the accuracy of the first read-out after the last phase, or a dash if there is none."""
    stages = list(result.phases()[-1]["stages"].values()) if result.phases() else []
    readouts = stages[-1] if stages else {}
    found = [values["accuracy"] for values in readouts.values() if isinstance(values, dict) and "accuracy" in values]
    return f"{found[0]:.2f}" if found else "–"
