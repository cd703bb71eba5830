"""Tests `reproduce export`: the file gives the recorded accuracy, the card describes it, bad requests are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import main
from methods import EVERY
from safetensors.torch import load_file

from common.command import weights
from common.command.launcher import Job, launch
from common.command.revived import run_of
from common.command.weights import build, labels_of, load_exported
from common.data.datasets import Dataset, DataSpec
from common.errors import InputError
from common.imbalance import Rebalance
from common.runs import IMAGENET_INPUTS, Protocol, Run, Schedule, canonical, type_name
from common.splits import named_order, positions
from common.store import Store
from der.methods import DER
from feature_adaptation.methods import Extractor
from lucir.methods import Base

MakeRun = Callable[..., Run]
Get = Callable[[str], MakeRun]
NETWORKS = (
    "iCaRL",  # a linear head that grows
    "LUCIR",  # a cosine head, no last ReLU
    "CN, a fixed scale",
    "LDAM-DRW",  # a cosine head, with the last ReLU
    "DER",  # pruned extractors
    "DER without masks",
    "WA",
    "BiC",
    "BBN",
    "probe",
    "unit features",
    "extractor",
    "FSA on images",
    "FSA on cached views",  # another run has kept the backbone
    "FSA, an earlier block",
)
REFUSED = {
    "ensemble": "Ensemble is two networks",
    "feature adaptation": "Adaptation is a classifier on features",
    "oracle": "Oracle is a classifier on features",
    "views": "Views trains no network",
    "survey": "Survey trains no network",
}


def trained(out: Path, run: Run) -> Run:
    for outcome in launch(run.chain, Job(out, None, "cpu", 1, 1), set()):
        assert outcome.problem == ""
    return run


def exported(run: Run, out: Path) -> Path:
    assert main(["export", run.hash[:10], "--out", str(out), "--to", str(out / "to")]) == 0
    return out / "to" / run.hash


def accuracy(folder: Path, run: Run, data: Dataset) -> float:
    """Return the exported network's accuracy, percent, on test images of the classes seen. It is counted here."""
    model = load_exported(folder)
    labels = positions(named_order(run.order, len(data.classes)))[data.test_labels]
    seen = labels < run.protocol.classes
    logits = model(torch.from_numpy(np.array(data.test_images)).permute(0, 3, 1, 2)[torch.from_numpy(seen)])
    assert logits.shape == (seen.sum(), run.protocol.classes)
    return 100 * float((logits.argmax(dim=1).numpy() == labels[seen]).mean())


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_network_has_the_recorded_accuracy(name: str, get: Get, tiny_data: Dataset, tmp_path: Path) -> None:
    run = trained(tmp_path, EVERY[name](get))
    recorded = Store(tmp_path).load(run.hash)
    assert recorded is not None
    folder = exported(run, tmp_path)
    assert accuracy(folder, run, tiny_data) == pytest.approx(recorded.curve("cnn")[-1])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{recorded.curve('cnn')[-1]:.2f}" in card and recorded.environment["commit"] in card
    assert type_name(type(run.method)) in card and run.fingerprint in card and "MIT" in card
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "model.safetensors"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_single_network_is_refused_with_what_to_do(
    name: str, get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, EVERY[name](get))
    assert main(["export", run.hash, "--out", str(tmp_path), "--to", str(tmp_path / "to")]) == 2
    message = capsys.readouterr().err
    assert REFUSED[name] in message and message.count("\n") == 1 and not (tmp_path / "to").exists()
    if run.start:
        assert f"reproduce export {run.start.hash}" in message


@pytest.mark.parametrize("name", EVERY)
def test_every_run_is_made_again_from_its_config(name: str, get: Get) -> None:
    run = EVERY[name](get)
    if run.method.__module__ in ("own_method", "dark_experience", "long_tailed_incremental"):
        with pytest.raises(InputError, match="is of none of the packages here"):
            run_of(canonical(run), run.hash)
    else:
        assert run_of(canonical(run), run.hash) == run


def test_a_method_of_another_version_is_refused(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    run = EVERY["LUCIR"](get)
    config, digest = canonical(run), run.hash
    monkeypatch.setattr(type(run.method), "version", 99)
    with pytest.raises(InputError, match="no such LUCIR; use the code that trained it, or train LUCIR again"):
        run_of(config, digest)


@pytest.mark.parametrize(
    ("network", "order", "known"),
    [("resnet18-imagenet", "1993", None), ("resnet10-imagenet", "native", [0, 1, 2, 3, 4])],
)
def test_timm_loads_imagenet_networks_as_its_own(
    network: str, order: str, known: list[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    run = Run("lucir", Base(), DataSpec("ours"), Protocol(5, 3, 2), Schedule(1), network, order, inputs=IMAGENET_INPUTS)
    assert labels_of(run) == known
    net = build(run.resolved("0" * 16, "fp32")).eval()
    found = weights.as_timm(net)
    assert found is not None
    weights.write(tmp_path / weights.FILE, found[1], {"format": weights.FORMAT, "timm": found[0]})
    call = f"timm.create_model({found[0]}, checkpoint_path={str(tmp_path / weights.FILE)!r})"
    loaded = eval(call, {"timm": timm}).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), net(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"a network of timm's: timm\.create_model\("):
        load_exported(tmp_path)


@pytest.mark.parametrize("method", [Base("cosine"), Extractor(final_relu=False), DER(), Rebalance("ldam")])
def test_other_networks_on_imagenet_are_not_timms(method: object) -> None:
    run = Run("lucir", method, DataSpec("ours"), Protocol(5, 5, 0), Schedule(1), "resnet10-imagenet")
    assert weights.as_timm(build(run.resolved("0" * 16, "fp32"))) is None


def test_labels_are_those_of_the_data_set(tiny_run: MakeRun) -> None:
    """The outputs of a Run that sees 20 of 100 shuffled classes stand for the first 20 labels of that shuffle."""
    run = tiny_run(Base(), data=DataSpec("cifar100"), protocol=Protocol(20, 20, 0), order="1993")
    labels = labels_of(run)
    assert labels is not None and labels[:5] == [68, 56, 78, 8, 23] and len(labels) == 20
    assert labels_of(replace(run, data=DataSpec("glyphs", 40), order="native")) == list(range(20))


@pytest.fixture
def finished(tiny_run: MakeRun, tmp_path: Path) -> Run:
    base = Protocol(4, 4, 0, exemplars_per_class=0)
    return trained(tmp_path, tiny_run(Base(), protocol=base, schedule=Schedule(1, batch=16)))


def test_bad_input_is_one_line_and_writes_nothing(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, other = tmp_path / "runs", "0" * 16
    (runs / other).mkdir()

    def refused(*words: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main(["export", *words]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        message = capsys.readouterr().err
        assert message.startswith("error: ") and message.count("\n") == 1
        return message

    options = ["--out", str(tmp_path), "--to", str(tmp_path / "to")]
    assert "no run begins with 'xyz'" in refused("xyz", *options)
    assert "no run begins with '/'" in refused("/", *options)
    assert f"run {other} is not finished" in refused(other, *options)
    assert "holds no runs" in refused(finished.hash, "--out", str(tmp_path / "nowhere"), *options[2:])
    assert "followed by a run's hash" in refused(*options)
    (tmp_path / "file").touch()
    assert "choose another --to" in refused(finished.hash, *options[:2], "--to", str(tmp_path / "file"))
    twin = runs / (finished.hash[:8] + "0" * 8)
    twin.mkdir()
    (twin / "result.json").touch()
    assert "2 finished runs begin with" in refused(finished.hash[:8], *options)
    (runs / finished.hash / "checkpoint.safetensors").unlink()
    assert "are gone" in refused(finished.hash, *options)


def test_damaged_and_missing_files_are_named(finished: Run, tmp_path: Path) -> None:
    folder = exported(finished, tmp_path)
    assert load_file(folder / "model.safetensors")["head.weight"].shape == (4, 8)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-20] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        load_exported(folder)
    with pytest.raises(InputError, match="is not there"):
        load_exported(tmp_path)
