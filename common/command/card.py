"""Writes the model card of an exported network in Markdown: its method, its training data and its test accuracy."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from common.command.messages import title
from common.command.single import table
from common.drawing.results import Result
from common.runs import Run, type_name

OURS = """from common.command.weights import load_exported
model = load_exported("PATH TO THIS FOLDER")
logits = model(images)  # bytes, uint8 [n, 3, h, w] -> [n, {classes}]"""
TIMM = """import timm
model = timm.create_model({creation}, checkpoint_path="model.safetensors").eval()
logits = model((images / 255 - mean) / std)  # uint8 [n, 3, h, w] -> [n, {classes}]; mean and std below"""
READOUTS = "In percent, by read-out. This network gives `cnn`; others may need more than a network, such as exemplars."
LICENCE = """The code that trained this network and these weights are under the MIT licence. The data set has its own
terms: ImageNet's, for one, allow research and teaching that are not commercial."""


def card(result: Result, run: Run, labels: Sequence[int] | None, creation: str) -> str:
    """Return the model card of the network that `run` ended with.

    labels: the data set's label behind each output, or None if the labels are not known. creation: the arguments with
    which timm creates the network, or "" if timm cannot load it.
    """
    return "\n".join([*_front(run), *_loading(run, creation), *_training(result, run), *_outputs(run, labels)])


def _front(run: Run) -> Iterator[str]:
    paper = importlib.import_module(run.paper).__doc__ or run.paper
    yield from ("---", "license: mit", "---", f"# {title(run)}", "")
    yield f"A reproduction of *{paper.splitlines()[0].rstrip('.')}*. It is by others than the paper's authors."
    yield ""


def _loading(run: Run, creation: str) -> Iterator[str]:
    code = (TIMM if creation else OURS).format(creation=creation, classes=run.protocol.classes)
    needs = "timm" if creation else "the repository that trained it, of the commit below or a later one,"
    yield from ("## Loading", "", f"With {needs} installed:", "", "```python", code, "```", "")
    inputs = run.inputs
    size = f"{inputs.size} x {inputs.size} pixels" if inputs.kind == "resized-crop" else "the size of the data set"
    yield f"Images have {size}, mean {inputs.mean} and standard deviation {inputs.std} of values in 0 to 1."
    yield ""


def _training(result: Result, run: Run) -> Iterator[str]:
    yield from ("## Method and options", "", "| option | value |", "|---|---|")
    yield from (f"| {name} | {value} |" for name, value in _options(run))
    data = "embedded images, on which nothing is published" if result.embedded else run.data.name
    part = ", far fewer images than were published" if result.partial else ""
    yield from ("", "## Data", "", f"{data}{part}; fingerprint `{run.fingerprint}`.", "")
    yield from ("## Test accuracy", "", READOUTS)
    yield from ("", "```", *table(result), "```", "")
    place = result.environment
    dirty = " with changes that were not committed" if place.get("dirty") else ""
    yield from ("## Where it comes from", "", f"- run `{result.hash}`, commit `{place.get('commit')}`{dirty}")
    yield from (f"- torch {place.get('torch')} on {place.get('device')}, precision {run.precision}", "")
    yield from ("## Licence", "", LICENCE, "")


def _options(run: Run) -> Iterator[tuple[str, object]]:
    """Yield the name and the value of every setting of a Run, the method's settings first."""
    yield "method", type_name(type(run.method))
    yield from _settings(run.method, "")
    yield from _settings(run.protocol, "")
    yield from _settings(run.schedule, "")
    if run.longtail:
        yield from _settings(run.longtail, "long tail: ")
    yield from (("network", run.network), ("class order", run.order), ("seed", run.seed))
    if run.start:
        yield "starts from", f"{title(run.start)} (`{run.start.hash}`)"


def _settings(part: Any, prefix: str) -> Iterator[tuple[str, object]]:
    for each in fields(part):
        value = getattr(part, each.name)
        if is_dataclass(value):
            yield from _settings(value, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", value


def _outputs(run: Run, labels: Sequence[int] | None) -> Iterator[str]:
    yield from ("## Outputs", "")
    if labels is None:
        yield f"Output i is the class at place i of class order {run.order} of the data set."
    else:
        yield f"Output i is this label of {run.data.name}: {', '.join(map(str, labels))}."
    yield ""
