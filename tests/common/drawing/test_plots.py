"""Tests figures as files and as matplotlib objects: all numbers are written, looks are constant, nothing overlaps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.image import imread

from common.drawing.figures import Comparison, Curve, Drawing, Estimate, Panel
from common.drawing.looks import SHARED, looks
from common.drawing.plots import build, plotted, render
from der.reproduce.catalogue import LOOKS as DER_LOOKS
from lucir.reproduce.catalogue import LOOKS as LUCIR_LOOKS

ROOT = Path(__file__).resolve().parents[3]
NAN = float("nan")
DECLARED = {**SHARED, **LUCIR_LOOKS, **DER_LOOKS}
LUCIR = ("iCaRL-CNN", "iCaRL-NME", "LUCIR-NME", "LUCIR-CNN", "Joint-CNN")
ABLATION = ("iCaRL-CNN", "CN", "CN+LC", "CN+LC+IS", "LUCIR-CNN")
BASELINES = ("iCaRL-CNN", "iCaRL-CBF", "iCaRL-TM", "LUCIR-CNN", "A-GEM")
CAPTION = "quick preset; embedded data (glyphs): not comparable with the published numbers; n = 3; commit abc1234; " * 2


def accuracy(
    names: tuple[str, ...] = LUCIR, legend: str = "61.23", title: str = "5 phases", log: bool = False
) -> Panel:
    x = [50, 60, 70, 80, 90, 100]
    ours = [Curve(n, x, [70.0 - i - k for k in range(6)], [1.0] * 6, 3, legend=legend) for i, n in enumerate(names)]
    paper = [Curve(n, x, [70.5 - i - k for k in range(6)], published=True, legend=legend) for i, n in enumerate(names)]
    return Panel(title, "number of classes", "top-1 accuracy (%)", [*ours, *paper], x_log=log)


def matrix(classes: int = 40) -> Panel:
    counts = np.random.default_rng(0).integers(0, 30, (classes, classes))
    return Panel("CNN", "predicted class", "true class", kind="matrix", matrix=counts, boundary=classes // 2)


def bars() -> Panel:
    names = ["as trained", "without bias", "unit weights", "unit weights, no bias", "nearest mean", "threshold moving"]
    curves = [Curve(n, names, [30.0, 20, 10, 5, NAN, 1], [1.0] * 6, 3) for n in ("old called new", "new called old")]
    return Panel(
        "errors", "", "share (%)", [*curves, Curve("old called new", names[:2], [3, 4], published=True)], "bars"
    )


def sorted_bars(count: int = 100) -> Panel:
    values = np.random.default_rng(1).normal(size=count)
    half = count // 2
    groups = {"new classes": values[:half].tolist(), "old classes": values[half:].tolist()}
    curves = [Curve(name, list(range(half)), group) for name, group in groups.items()]
    return Panel("biases", "classes", "bias", curves, "sorted-bars")


def heat(rows: int = 25, columns: int = 5) -> Panel:
    values = np.random.default_rng(2).uniform(20, 70, (rows, columns))
    names, factors = [f"Focal_{i / 2:.1f}_0.9999" for i in range(rows)], [f"{2**i}" for i in range(columns)]
    return Panel("test error (%)", "imbalance factor", "", kind="heat", matrix=values, rows=names, columns=factors)


DRAWINGS = {
    "lines": Drawing([accuracy()]),
    "long legends": Drawing([accuracy(("adaptive weight of the less-forget constraint (LUCIR-CNN)", "b" * 60))]),
    "two panels": Drawing([accuracy(title="a"), accuracy(legend="1.00", title="b")]),
    "shared legend": Drawing([accuracy(log=True)] * 3),
    "six panels": Drawing([accuracy(legend=str(i)) for i in range(6)]),
    "crowded places": Drawing([Panel("", "epoch", "", [Curve("CN", [2, 3, 4, 5, 6, 100], [1.0] * 6)])]),
    "matrices": Drawing([matrix()] * 4, note="counts"),
    "bars": Drawing([bars()]),
    "mixed": Drawing([bars(), matrix(), matrix()]),
    "sorted 40": Drawing([sorted_bars(40)]),
    "sorted 100": Drawing([sorted_bars()]),
    "heat": Drawing([heat(), heat()], note="numbers"),
    "small heat": Drawing([heat(3, 1)]),
    "empty": Drawing([Panel("nothing", "x", "y"), Panel("nan", "x", "y", [Curve("CN", [1], [NAN])])]),
    "no panels": Drawing([]),
}


def lines(axes: Axes) -> dict:
    return {str(line.get_label()): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")}


def test_files_are_whole_and_not_blank(tmp_path: Path) -> None:
    render(Drawing([accuracy(), matrix()]), "Fig. 5", CAPTION, tmp_path / "new" / "fig5.c")
    folder = tmp_path / "new"
    assert sorted(p.name for p in folder.iterdir()) == ["fig5.c.json", "fig5.c.pdf", "fig5.c.png"]
    assert imread(folder / "fig5.c.png")[..., :3].std() > 0.05
    pdf = (folder / "fig5.c.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/FontDescriptor" in pdf and b"DejaVuSans" in pdf


def test_equal_drawings_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        render(Drawing([accuracy()]), "title", CAPTION, tmp_path / name)
    for suffix in ("png", "pdf", "json"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_json_holds_every_number_and_is_strict(tmp_path: Path) -> None:
    curve = Curve("CN", np.array([1, 2, 3]), [1.5, NAN, float("inf")], np.array([0.1, NAN, 0.2]), 3, legend="x")
    published = Curve("CN", ["a", "b"], [np.float32(2.5), np.int64(3)], published=True)
    rows = [Comparison("accuracy", "CN", 60.0, "printed", Estimate(61.0, NAN, NAN, 1))]
    panels = [Panel("p", "x", "y", [curve], y_range=(0, 1)), Panel("q", "", "", [published], "bars"), matrix(4)]
    render(Drawing(panels, rows, "note"), "title", "caption", tmp_path / "f")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    data = json.loads((tmp_path / "f.json").read_text(), parse_constant=refuse)
    assert (data["title"], data["caption"], data["note"]) == ("title", "caption", "note")
    first, second, third = data["panels"]
    assert first["curves"][0]["x"] == [1, 2, 3]
    assert first["curves"][0]["y"] == [1.5, None, None]
    assert first["curves"][0]["interval"] == [0.1, None, 0.2]
    assert (first["curves"][0]["n"], first["y_range"]) == (3, [0, 1])
    assert second["curves"][0]["y"] == [2.5, 3] and second["curves"][0]["published"] is True
    assert third["matrix"] == matrix(4).matrix.tolist() and third["boundary"] == 2  # type: ignore[union-attr]
    ours = {"mean": 61.0, "std": None, "interval": None, "n": 1, "whole": True}
    assert data["comparisons"][0] == {
        "quantity": "accuracy", "method": "CN", "published": 60.0, "provenance": "printed", "ours": ours,
        "tolerance": 1.0, "gap": None,
    }  # fmt: skip


def test_a_method_looks_the_same_everywhere() -> None:
    both = Drawing([accuracy(), accuracy(LUCIR[::-1])])
    alone, reordered = build(Drawing([accuracy()]), "", "", DECLARED), build(both, "", "", DECLARED)
    for axes in (*alone.axes, *reordered.axes):
        for label, line in lines(axes).items():
            name = label.split(" ")[0].rstrip(",")
            assert same_color(line.get_color(), DECLARED[name][0])
            assert line.get_marker() == DECLARED[name][1]


@pytest.mark.parametrize("names", [LUCIR, ABLATION, BASELINES, (*LUCIR, "mine", "another", "third")])
def test_methods_of_a_panel_differ(names: tuple[str, ...]) -> None:
    chosen = looks(Drawing([accuracy(names)]), DECLARED)
    assert len({colour for colour, _ in chosen.values()}) == len(names)
    assert len({marker for _, marker in chosen.values()}) == len(names)


def test_unknown_names_keep_their_colour_across_panels() -> None:
    chosen = looks(Drawing([accuracy(("mine", "CN")), accuracy(("other", "mine"))]), DECLARED)
    assert len({chosen[name] for name in ("mine", "other", "CN")}) == 3


DER = ("DER", "DER w/o P", "iCaRL", "BiC", "WA", "UCIR", "Bound")


@pytest.mark.parametrize(
    ("known", "others"), [((), 25), (("Bound",), 25), (("CN", "iCaRL-NME"), 25), (DER[:2], 25), (DER, 12)]
)
def test_more_names_than_colours_look_different(known: tuple[str, ...], others: int) -> None:
    names = (*known, *(f"method {i}" for i in range(others)))
    assert len(set(looks(Drawing([accuracy(names)]), DECLARED).values())) == len(names)


def test_published_lines_are_dashed_and_hollow_in_the_same_colour() -> None:
    found = lines(build(Drawing([accuracy()]), "", "").axes[0])
    for name in LUCIR:
        ours, paper = found[f"{name}, 61.23"], found[f"{name} (published), 61.23"]
        assert (ours.get_linestyle(), paper.get_linestyle()) == ("-", "--")
        assert same_color(ours.get_color(), paper.get_color())
        assert same_color(ours.get_markerfacecolor(), ours.get_color())
        assert same_color(paper.get_markerfacecolor(), "white")
        assert same_color(paper.get_markeredgecolor(), ours.get_color())


def test_published_bars_are_hollow_in_the_same_colour() -> None:
    axes = build(Drawing([bars()]), "", "").axes[0]
    handles, labels = axes.get_legend_handles_labels()
    assert labels == ["old called new", "old called new (published)", "new called old"]
    ours, paper = (handle.patches[0] for handle in handles[:2])
    assert same_color(paper.get_facecolor(), "white")
    assert same_color(paper.get_edgecolor(), ours.get_facecolor())


def test_an_interval_is_a_band() -> None:
    axes = build(Drawing([accuracy(("CN",))]), "", "").axes[0]
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == 71.0 and heights.min() == 64.0


def test_sorted_bars_descend_and_keep_their_groups() -> None:
    panel = sorted_bars(40)
    axes = build(Drawing([panel]), "", "", DECLARED).axes[0]
    found = sorted((p.get_x(), p.get_height(), p.get_facecolor()) for c in axes.containers for p in c)
    values = [height for _, height, _ in found]
    assert values == sorted((v for c in panel.curves for v in c.y), reverse=True)
    for _, height, colour in found:
        name = next(c.name for c in panel.curves if height in list(c.y))
        assert same_color(colour, DECLARED[name][0])


def test_matrices_show_the_log_of_counts_on_one_scale() -> None:
    large = Panel("", "", "", kind="matrix", matrix=matrix().matrix * 10)  # type: ignore[operator]
    figure = build(Drawing([matrix(), large]), "", "")
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert np.allclose(images[0].get_array(), np.log1p(matrix().matrix))
    assert images[0].get_clim() == images[1].get_clim() == (0, np.log1p(large.matrix.max()))  # type: ignore[union-attr]
    first = figure.axes[0]
    assert next(line.get_xdata()[0] for line in first.get_lines()) == 19.5
    box = first.get_window_extent()
    assert box.width == pytest.approx(box.height)


def test_heat_maps_print_their_numbers_and_the_least_of_a_column_in_bold() -> None:
    values = np.array([[30.0, 5.0, NAN], [10.0, 6.0, 1.0], [20.0, NAN, NAN]])
    panel = Panel("", "", "", kind="heat", matrix=values, rows=["a", "b", "c"], columns=["x", "y", "z"])
    axes = build(Drawing([panel]), "", "").axes[0]
    found = {t.get_position(): (t.get_text(), t.get_fontweight()) for t in axes.texts}
    assert found == {
        (0.5, 0.5): ("30.00", "normal"), (0.5, 1.5): ("10.00", "bold"), (0.5, 2.5): ("20.00", "normal"),
        (1.5, 0.5): ("5.00", "bold"), (1.5, 1.5): ("6.00", "normal"), (2.5, 1.5): ("1.00", "normal"),
    }  # fmt: skip
    assert axes.get_ylim() == (3, 0)  # the first row on top
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "c"]
    shades = axes.collections[0].get_array()
    assert shades is not None
    assert np.asarray(shades)[:, 0].tolist() == [1.0, 0.0, 0.5] and np.ma.getmaskarray(shades)[0, 2]


def test_references_are_thin_dashes_without_an_entry_of_their_own() -> None:
    curves = [Curve("CN", [1, 2], [3, 4]), Curve("CN", [1, 2], [5, 5], reference=True)]
    named = [*curves, Curve("limit", [1, 2], [6, 6], reference=True, legend="E = n")]
    panels = [Panel("", "", "", curves, y_log=True), Panel("", "", "", named)]
    plain, labelled = build(Drawing(panels), "", "").axes
    assert plain.get_legend_handles_labels()[1] == ["CN"] and plain.get_yscale() == "log"
    assert labelled.get_legend_handles_labels()[1] == ["CN", "limit, E = n"] and labelled.get_yscale() == "linear"
    ours, across = plain.get_lines()
    assert same_color(ours.get_color(), across.get_color()) and across.get_linewidth() < ours.get_linewidth()
    assert (ours.get_linestyle(), across.get_linestyle()) == ("-", "--") and across.get_marker() in ("", "None")


@pytest.mark.parametrize(("values", "shown"), [([1, 5000], ["1", "10", "100", "1000"]), ([0.3, 3], ["0.5", "1", "2"])])
def test_logarithmic_ticks_are_plain_numbers(values: list[float], shown: list[str]) -> None:
    panel = Panel("", "", "", [Curve("CN", [1, 2], values)], y_log=True)
    figure = build(Drawing([panel]), "", "")
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    assert [label.get_text() for place, label in ticks if low <= place <= high] == shown
    assert not any(label.get_text() for label in axes.get_yticklabels(minor=True))


def test_ticks_stand_at_the_values() -> None:
    panel = Panel("", "exemplars", "", [Curve("CN", [1, 5, 10, 20, 50], [1, 2, 3, 4, 5])], x_log=True)
    axes = build(Drawing([panel]), "", "").axes[0]
    assert sorted(axes.get_xticks()) == [1, 5, 10, 20, 50]
    steps = np.diff(axes.transData.transform([(v, 1) for v in (5, 10, 20)])[:, 0])
    assert steps[0] == pytest.approx(steps[1])  # equal ratios, equal distances
    scattered = Panel("", "omega", "", [Curve("CN", [0.8123, 0.9047], [1, 2])])
    places = build(Drawing([scattered]), "", "").axes[0].get_xticks()
    assert len(places) > 3 and np.diff(places) == pytest.approx(np.diff(places)[0]) and 0.8123 not in places
    named = Panel("", "", "", [Curve("CN", ["many", "medium", "few"], [1, 2, 3])])
    labels = build(Drawing([named]), "", "").axes[0].get_xticklabels()
    assert [text.get_text() for text in labels] == ["many", "medium", "few"]


def test_points_that_are_nan_leave_a_hole() -> None:
    curve = Curve("CN", [1, 2, 3], [1.0, NAN, 3.0], [0.1, NAN, 0.1], 3)
    found = lines(build(Drawing([Panel("", "", "", [curve, Curve("DER", [], [], published=True)])]), "", "").axes[0])
    assert list(found) == ["CN"]  # a curve without any point has no entry
    assert np.isnan(found["CN"].get_ydata()[1])


@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_overlaps_or_leaves_the_page(name: str) -> None:
    figure = build(DRAWINGS[name], "A long title of a figure of the paper, " * 3, CAPTION)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    page = figure.bbox.padded(1)
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    texts = [text.get_window_extent(renderer) for text in figure.texts]
    for box in (*boxes, *texts):
        assert page.x0 <= box.x0 <= box.x1 <= page.x1 and page.y0 <= box.y0 <= box.y1 <= page.y1
    for one, other in combinations([*boxes, *texts], 2):
        assert not one.padded(-1).overlaps(other.padded(-1))
    for axes in figure.axes:
        if legend := axes.get_legend():
            assert not legend.get_window_extent(renderer).overlaps(axes.get_window_extent(renderer))
        labels = [
            t.get_window_extent(renderer) for t in axes.get_xticklabels() if t.get_text() and not t.get_rotation()
        ]
        assert not any(one.overlaps(other) for one, other in combinations(labels, 2))


@pytest.mark.parametrize(("variants", "rows"), [(3, 1), (16, 2)])
def test_wide_panels_go_on_in_another_row(variants: int, rows: int) -> None:
    names = [f"variant {i}" for i in range(variants)]
    panel = Panel("", "", "", [Curve(n, names, [1.0] * variants) for n in ("a", "b", "c")], kind="bars")
    heights = {round(axes.get_position().y0, 3) for axes in build(Drawing([panel] * 3), "title", "").axes}
    assert len(heights) == rows


def test_plotted_is_plain(tmp_path: Path) -> None:
    for drawing in DRAWINGS.values():
        assert json.loads(json.dumps(plotted(drawing, "t", "c"), allow_nan=False))["title"] == "t"


USERS = """
image.origin: lower
figure.facecolor: black
savefig.facecolor: red
savefig.dpi: 33
lines.linewidth: 9
axes.grid: True
font.size: 30
text.usetex: True
backend: module://nothing.here
"""


def test_figures_and_commands_are_the_same_whatever_the_users_matplotlib_says(tmp_path: Path) -> None:
    """Each runs in a process of its own, since matplotlib reads the file and the variable when it is imported."""
    (tmp_path / "matplotlibrc").write_text(USERS, encoding="utf-8")
    notebooks = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": str(tmp_path)}
    words = "'lucir --only fig3b fig9 --draw --out results'.split()"
    code = f"from common.command.cli import main; main({words})"
    figures = []
    for name, surroundings in (("plain", {}), ("users", notebooks)):
        known = {key: value for key, value in os.environ.items() if not key.startswith(("MPL", "MATPLOTLIB"))}
        (tmp_path / name).mkdir()
        environment = {**known, "PYTHONPATH": str(ROOT), **surroundings}
        command = [sys.executable, "-c", code]
        ended = subprocess.run(command, cwd=tmp_path / name, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        figures.append({p.name: p.read_bytes() for p in (tmp_path / name).glob("results/quick/lucir/fig*.p*")})
    assert figures[0] == figures[1] and len(figures[0]) >= 4
