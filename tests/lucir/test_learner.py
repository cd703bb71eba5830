"""What iCaRL and LUCIR train in each phase and what they leave alone, on a tiny network and tiny images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common import incremental
from common.command import plan
from common.data.datasets import Dataset
from common.errors import InputError
from common.heads import CosineHead, LinearHead
from common.incremental import Context, Learner, Phase, extract
from common.loader import DeviceImages
from common.memory import ExemplarMemory, herd, open_context
from common.runs import Inputs, Protocol, Run, Schedule
from common.splits import class_order
from common.store import Store
from common.training import Device, Stage, fit, seeded, shuffled
from lucir.learner import LEARNERS, ICaRLLearner, LUCIRLearner
from lucir.losses import margin_ranking
from lucir.methods import LUCIR, Base, ICaRL, Method

CPU = Device("cpu", "fp32")
FINETUNE = Schedule(2, lr=0.05, milestones=(1,), batch=8, weight_decay=0.02)
MakeRun = Callable[..., Run]


def snapshot(learner: Any) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in learner.net.state_dict().items()}


def train(run: Run, dataset: Dataset, out: Path, watch: Callable[[Any, Phase, Stage], Any] = lambda *a: None) -> Any:
    """Train a run; returns its learner with what was seen: states and memory by (phase, stage), before and after.

    watch(learner, phase, stage) is called before each stage, and what it returns after the stage.
    """

    class Watched(LEARNERS[type(run.method)]):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.before: dict[tuple[int, str], dict[str, Tensor]] = {}
            self.after: dict[tuple[int, str], dict[str, Tensor]] = {}
            self.kept: list[dict[int, list[int]]] = []
            learners.append(self)

        def stages(self, phase: Phase) -> Iterator[Stage]:
            for stage in super().stages(phase):
                self.before[phase.index, stage.name] = snapshot(self)
                end = watch(self, phase, stage)
                yield stage
                self.after[phase.index, stage.name] = snapshot(self)
                if end:
                    end()
            self.kept.append({label: kept.tolist() for label, kept in self.context.memory.indices.items()})

    learners: list[Any] = []
    with Store(out).open(run) as workspace:
        learners_result = incremental.run(run, dataset, Watched, workspace, CPU)
    learners[0].result = learners_result
    return learners[0]


def unchanged(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
    return {k for k in a if torch.equal(a[k], b[k])}


METHODS: dict[str, Method] = {
    "icarl": ICaRL(finetune=FINETUNE),
    "lucir": LUCIR(finetune=FINETUNE),
    "paper": LUCIR(finetune=FINETUNE, direction="paper", margin_reduction="sum_k"),
    "cn": LUCIR(old="cosine", margin=None, finetune=None),
    "flag 3": LUCIR(finetune=FINETUNE, finetune_flag=3),
}


# A phase against loops and losses written out


def official_loss(run: Run, learner: Any, teacher: Any, images: Tensor, labels: Tensor, num_old: int) -> Tensor:
    """The loss of an incremental phase from the spec's formulas, with PyTorch's own loss functions."""
    method, net = run.method, learner.net
    features, old_features = net.backbone(images), teacher.backbone(images).detach()
    if isinstance(method, ICaRL):
        logits = F.linear(features, net.head.weight, net.head.bias)
        old = F.linear(old_features, teacher.head.weight, teacher.head.bias).detach()
        p, q = (old / 2).softmax(1), (logits[:, :num_old] / 2).log_softmax(1)
        return F.cross_entropy(logits, labels) + (p * (p.log() - q)).sum(1).mean()
    rows = net.head.weight / net.head.weight.norm(dim=1, keepdim=True)
    cosines = (features / features.norm(dim=1, keepdim=True)) @ rows.T
    loss = F.cross_entropy(net.head.scale * cosines, labels)
    new = cosines.shape[1] - num_old
    if method.old == "cosine":
        old_rows = teacher.head.weight / teacher.head.weight.norm(dim=1, keepdim=True)
        old_cosines = (old_features / old_features.norm(dim=1, keepdim=True)) @ old_rows.T
        loss = loss + F.mse_loss(cosines[:, :num_old], old_cosines.detach()) * num_old
    else:
        ratio = num_old / new if method.direction == "code" else new / num_old
        ones = torch.ones(len(labels))
        loss = loss + method.weight * ratio**0.5 * F.cosine_embedding_loss(features, old_features, ones)
    exemplars = labels < num_old
    if method.margin is not None and exemplars.any():
        own = cosines[exemplars].gather(1, labels[exemplars, None]).repeat(1, 2)
        hardest = cosines[exemplars, num_old:].topk(2, dim=1).values
        ranking = F.margin_ranking_loss(own, hardest, torch.ones_like(own), margin=0.5)
        loss = loss + ranking * (2 if method.margin_reduction == "sum_k" else 1)
    return loss


@pytest.mark.parametrize("name", METHODS)
def test_a_phase_is_the_papers(name: str, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Main training and finetuning end where a loop with a fresh torch.optim.SGD and the official loss ends."""
    import copy

    run = tiny_run(METHODS[name])
    compared = []

    def watch(learner: Any, phase: Phase, stage: Stage) -> Any:
        if phase.index == 0:
            return None
        # The start of the phase is the teacher; the official code copies it before finetuning changes anything.
        twin = copy.copy(learner)
        twin.net, teacher = copy.deepcopy(learner.net), copy.deepcopy(learner.teacher)
        net, schedule = twin.net, stage.schedule
        finetune, flag = stage.name == "finetune", getattr(run.method, "finetune_flag", 2)
        frozen_extractor = finetune and flag != 3
        lower = phase.num_old if not finetune and getattr(run.method, "old", "") == "less-forget" else 0
        if frozen_extractor:
            trained = [p for n, p in net.head.named_parameters() if n != "scale"]
        else:
            trained = [p for n, p in net.named_parameters() if n != "head.scale" or not finetune]
        optimiser = torch.optim.SGD(trained, 0.0, momentum=0.9, weight_decay=schedule.weight_decay, foreach=False)
        rates = {"main": [0.1, 0.01], "finetune": [0.05, 0.005]}[stage.name]
        for epoch, lr in enumerate(rates):
            net.train(not frozen_extractor)
            optimiser.param_groups[0]["lr"] = lr
            generator = seeded(torch.device("cpu"), run.seed, "phase", phase.index, stage.name, epoch)
            order = shuffled(stage.indices, generator)
            for images, labels in learner.context.train.epoch(order, schedule.batch, generator):
                kept = net.head.weight.data[:lower].clone()
                net.zero_grad()
                official_loss(run, twin, teacher, images, labels, phase.num_old).backward()
                optimiser.step()
                net.head.weight.data[:lower] = kept

        def end() -> None:
            for key, value in learner.net.state_dict().items():
                torch.testing.assert_close(value, net.state_dict()[key], rtol=1e-3, atol=2e-5, msg=f"{name} {key}")
            compared.append((phase.index, stage.name))

        return end

    train(run, tiny_data, tmp_path, watch)
    assert (2, "main") in compared and ((2, "finetune") in compared) == (METHODS[name].finetune is not None)  # type: ignore[union-attr]


def test_the_teacher_is_the_previous_phases_end(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """After finetuning, in eval mode, without gradients; training changes none of it, BatchNorm included."""
    checked = []

    for method in (METHODS["lucir"], METHODS["icarl"], METHODS["cn"]):

        def watch(learner: Any, phase: Phase, stage: Stage) -> Any:
            if not phase.num_old:
                return None

            def end() -> None:
                teacher, previous = (
                    learner.teacher.state_dict(),
                    list(learner.after)[: -1 if stage.name == "main" else -2],
                )
                state = learner.after[[key for key in previous if key[0] == phase.index - 1][-1]]
                assert teacher.keys() == state.keys() == unchanged(teacher, state)
                assert not any(m.training for m in learner.teacher.modules())
                assert not any(p.requires_grad or p.grad is not None for p in learner.teacher.parameters())
                checked.append((phase.index, stage.name))

            return end

        train(tiny_run(method), tiny_data, tmp_path / str(len(checked)), watch)
    assert len(checked) == 4 + 4 + 2


# What is frozen


def test_less_forget_freezes_old_embeddings(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(tiny_run(LUCIR(finetune=None)), tiny_data, tmp_path)
    for phase, num_old in ((1, 4), (2, 6)):
        before, after = (states[phase, "main"] for states in (learner.before, learner.after))
        assert torch.equal(before["head.weight"][:num_old], after["head.weight"][:num_old])
        assert (before["head.weight"][num_old:] != after["head.weight"][num_old:]).any(dim=1).all()
        assert unchanged(before, after) == set()  # everything else moves, eta and BatchNorm's statistics too
    end = learner.after[2, "main"]["head.weight"]
    assert torch.equal(end[:4], learner.after[0, "main"]["head.weight"])
    assert torch.equal(end[4:6], learner.after[1, "main"]["head.weight"][4:])


def test_the_ablation_cn_trains_old_embeddings(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(tiny_run(METHODS["cn"]), tiny_data, tmp_path)
    before, after = (states[1, "main"]["head.weight"] for states in (learner.before, learner.after))
    assert (before != after).any(dim=1).all()


@pytest.mark.parametrize("flag", [1, 2, 3, 4, 5])
def test_finetuning_trains_what_its_flag_says(flag: int, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    method = LUCIR(finetune=FINETUNE, finetune_flag=flag)  # type: ignore[arg-type]
    margins = []

    def watch(learner: Any, phase: Phase, stage: Stage) -> None:
        if stage.name == "finetune":
            generator = seeded(CPU.torch, 0)
            order = shuffled(stage.indices, generator)
            images, labels = next(iter(learner.context.train.epoch(order, 12, generator)))
            learner.net.eval()
            with torch.no_grad():
                plain = learner.objective(learner.net.features(images), images, labels, None)
                ranking = margin_ranking(learner.net.head.cosines(learner.net.features(images)), labels, phase.num_old)
                margins.append((float(stage.loss(images, labels) - plain), float(ranking)))

    learner = train(tiny_run(method), tiny_data, tmp_path, watch)
    for phase, num_old in ((1, 4), (2, 6)):
        before, after = learner.after[phase, "main"], learner.after[phase, "finetune"]
        rows = (before["head.weight"] != after["head.weight"]).any(dim=1)
        assert rows[num_old:].all() and rows[:num_old].all() == rows[:num_old].any() == (flag != 1)
        if flag == 3:
            assert unchanged(before, after) == {"head.scale"}
        else:
            assert unchanged(before, after) == before.keys() - {"head.weight"}
    for difference, ranking in margins:
        assert ranking > 0.01 and difference == pytest.approx(0 if flag in (4, 5) else ranking, abs=1e-5)
    if flag != 3:
        assert_same_nme(learner)


def assert_same_nme(learner: Any) -> None:
    for phase in learner.result["phases"][1:]:
        assert list(phase["stages"]) == ["main", "finetune"]
        assert phase["stages"]["main"]["nme"] == phase["stages"]["finetune"]["nme"]


def test_icarls_finetuning_trains_the_classifier_alone(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(tiny_run(METHODS["icarl"]), tiny_data, tmp_path)
    before, after = learner.after[2, "main"], learner.after[2, "finetune"]
    assert unchanged(before, after) == before.keys() - {"head.weight", "head.bias"}
    assert_same_nme(learner)


@pytest.mark.parametrize("method", [Base("cosine", scale=4.0), LUCIR(finetune=FINETUNE, finetune_flag=3, scale=4.0)])
def test_a_fixed_scale_stays(method: Method, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(tiny_run(method), tiny_data, tmp_path)
    assert {float(state["head.scale"]) for state in learner.after.values()} == {4.0}
    free = train(tiny_run(replace(method, scale=None)), tiny_data, tmp_path)
    assert float(free.before[0, "main"]["head.scale"]) == 1 and float(free.after[0, "main"]["head.scale"]) != 1


def test_scale_starts_at_one_and_old_embeddings_are_kept_when_a_phase_begins(
    tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    learner = train(tiny_run(METHODS["lucir"]), tiny_data, tmp_path)
    for phase, num_old in ((1, 4), (2, 6)):
        end, begin = learner.after[phase - 1, "finetune" if phase > 1 else "main"], learner.before[phase, "main"]
        assert torch.equal(begin["head.weight"][:num_old], end["head.weight"])
        assert unchanged(begin, end) >= begin.keys() - {"head.weight"}


# Imprinting


@pytest.mark.parametrize("imprinted", [True, False])
def test_imprinting(imprinted: bool, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """New rows point at the class means under the previous model, and are as long as the old ones on average."""
    seen = []

    def watch(learner: Any, phase: Phase, stage: Stage) -> None:
        if not phase.num_old or stage.name != "main":
            return
        rows, train_images = learner.net.head.weight.data, learner.context.train
        means = []
        for label in range(phase.num_old, phase.seen):
            (images,) = train_images.plain((train_images.labels == label).nonzero().squeeze(1))
            assert len(images) == 12
            with torch.no_grad():
                features = learner.teacher.backbone(images)
            mean = (features / features.norm(dim=1, keepdim=True)).mean(0)
            means.append(mean / mean.norm())
        expected = torch.stack(means) * rows[: phase.num_old].norm(dim=1).mean()
        seen.append(torch.allclose(rows[phase.num_old :], expected, atol=1e-5))

    train(tiny_run(LUCIR(finetune=None, imprint=imprinted)), tiny_data, tmp_path, watch)
    assert seen == [imprinted] * 2


# Exemplars and the sizes of stages


@pytest.mark.parametrize("protocol", [Protocol(8, 4, 2, 3), Protocol(8, 4, 2, None, 20)])
def test_exemplars_over_the_phases(protocol: Protocol, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Chosen by herding with the network before finetuning; later phases leave them or cut them short."""
    chosen: dict[int, list[int]] = {}

    def watch(learner: Any, phase: Phase, stage: Stage) -> Any:
        def end() -> None:
            images = learner.context.train
            for label in range(phase.num_old, phase.seen):
                indices = (images.labels == label).nonzero().squeeze(1)
                chosen[label] = indices[herd(extract(learner.net, images, indices), 12)].tolist()

        return end if stage.name == "main" else None

    learner = train(tiny_run(METHODS["lucir"], protocol=protocol), tiny_data, tmp_path, watch)
    quotas = [3, 3, 3] if protocol.exemplars_per_class else [5, 4, 3]
    for kept, seen, quota in zip(learner.kept, (4, 6, 8), quotas, strict=True):
        assert kept == {label: chosen[label][:quota] for label in range(seen)}


@pytest.mark.parametrize("method", [LUCIR(imprint=False), ICaRL(finetune=FINETUNE)])
def test_cifars_sizes(method: Method, tiny_run: MakeRun) -> None:
    """500 images of each new class and 20 of each old one: 6000 to 6800 in five phases; CBF 20 of every class."""
    labels = torch.arange(100).repeat(500)
    images = DeviceImages(np.zeros((50000, 1, 1, 3), np.uint8), labels, Inputs(), CPU.torch)
    run = tiny_run(method, protocol=Protocol(100, 50, 10, 20))
    memory = ExemplarMemory(per_class=20)
    learner = LEARNERS[type(method)](method, Context(run, CPU, images, images, memory))
    learner.build(50)
    sizes = []
    for phase in [Phase(0, 0, 50), *(Phase(i + 1, 50 + 10 * i, 10) for i in range(5))]:
        incremental.begin(learner, phase)
        stages = learner.stages(phase)
        main = next(stages)
        counts = labels[main.indices].bincount(minlength=100).tolist()
        assert counts == [20] * phase.num_old + [500] * phase.num_new + [0] * (100 - phase.seen)
        assert len(set(main.indices.tolist())) == len(main.indices)
        for label in range(phase.num_old, phase.seen):
            memory.indices[label] = (labels == label).nonzero().squeeze(1)[7:27]
        finetune = next(stages, None)
        assert (finetune is None) == (phase.num_old == 0)
        sizes.append((len(main.indices), len(finetune.indices) if finetune else 0))
        if finetune:
            assert sorted(finetune.indices.tolist()) == sorted(memory.all().tolist())
    assert sizes == [(25000, 0), (6000, 1200), (6200, 1400), (6400, 1600), (6600, 1800), (6800, 2000)]


def test_each_phase_is_tested_on_the_classes_seen(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """A confusion matrix of 5 images for each class seen, in training order; accuracy from the final network."""
    run = tiny_run(LUCIR(finetune=None), order="7")
    with Store(tmp_path).open(run) as workspace:
        result = incremental.run(run, tiny_data, LUCIRLearner, workspace, CPU)
        confusion = workspace.confusion["cnn"]
    assert [p["classes"] for p in result["phases"]] == [4, 6, 8] and [p["num_old"] for p in result["phases"]] == [
        0,
        4,
        6,
    ]
    assert confusion.sum(axis=1).tolist() == [5] * 8
    last = result["phases"][-1]["stages"]["main"]["cnn"]
    assert last["accuracy"] == pytest.approx(100 * np.trace(confusion) / 40)
    assert last["groups"] == pytest.approx([100 * np.trace(confusion[a:b, a:b]) / (5 * (b - a)) for a, b in
                                            ((0, 4), (4, 6), (6, 8))])  # fmt: skip
    order = class_order(8, 7)
    learner = train(run, tiny_data, tmp_path / "again")
    images = learner.context.test
    assert images.labels.tolist() == [order.tolist().index(c) for c in tiny_data.test_labels]
    with torch.no_grad():
        predicted = learner.net.eval()(next(iter(images.plain(torch.arange(40))))).argmax(1)
    assert np.array_equal(confusion, np.histogram2d(images.labels, predicted, bins=8, range=[[0, 8]] * 2)[0])


def test_learning_happens(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """The base classes are learned well above chance, and each phase's classes after it."""
    run = tiny_run(METHODS["lucir"], schedule=Schedule(12, lr=0.1, milestones=(8,), batch=8))
    result = train(run, tiny_data, tmp_path).result["phases"]
    assert result[0]["stages"]["main"]["cnn"]["accuracy"] > 75
    assert result[-1]["stages"]["finetune"]["cnn"]["accuracy"] > 50


def test_training_starts_from_the_base_run(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    base = tiny_run(Base("cosine"), protocol=Protocol(4, 4, 0, 0))
    store = Store(tmp_path)
    with store.open(base) as workspace:
        incremental.run(base, tiny_data, LEARNERS[Base], workspace, CPU)
        trained = workspace.state_of(base)
    learner = train(tiny_run(METHODS["lucir"], start=base), tiny_data, tmp_path)
    begin = learner.before[1, "main"]
    assert torch.equal(begin["head.weight"][:4], trained["head.weight"])
    assert unchanged({k: v for k, v in begin.items() if k != "head.weight"}, trained) == begin.keys() - {"head.weight"}
    assert list(learner.result["phases"][0]["stages"]) == ["start"]
    alone = train(tiny_run(METHODS["lucir"]), tiny_data, tmp_path)
    ends = (x.after[2, "finetune"] for x in (learner, alone))
    assert unchanged(*ends) == begin.keys()  # a base phase of one's own is the same training


# Read-outs


def built(kind: type[Learner], method: Method, run: Run, dataset: Dataset, classes: int = 6) -> Any:
    context = open_context(run, dataset, CPU)
    learner = kind(method, context)
    learner.build(classes)
    return learner


@pytest.mark.parametrize("flip", ["none", "horizontal", "channels"])
def test_exemplar_means_one_image_at_a_time(flip: str, tiny_run: MakeRun, tiny_data: Dataset) -> None:
    method = LUCIR(nme_flip=flip)  # type: ignore[arg-type]
    learner = built(LUCIRLearner, method, tiny_run(method), tiny_data)
    images, memory = learner.context.train, learner.context.memory
    for label in (2, 0, 1):
        memory.indices[label] = (images.labels == label).nonzero().squeeze(1)[: 3 + label]
    means = learner.exemplar_means()
    learner.net.eval()
    for label in range(3):
        sides = []
        for reverse in [lambda x: x] + {"none": [], "horizontal": [lambda x: x[:, ::-1]],
                                        "channels": [lambda x: x[..., ::-1]]}[flip]:  # fmt: skip
            unit = []
            for index in memory.indices[label].tolist():
                pixels = reverse(tiny_data.train_images[index])  # type: ignore[index]
                single = DeviceImages(pixels[None], torch.zeros(1, dtype=torch.long), Inputs(), CPU.torch)
                with torch.no_grad():
                    feature = learner.net.backbone(next(iter(single.plain(torch.tensor([0])))))[0].double().numpy()
                unit.append(feature / np.linalg.norm(feature))
            sides.append(np.mean(unit, axis=0))
        mean = np.mean(sides, axis=0)
        np.testing.assert_allclose(means[label].numpy(), mean / np.linalg.norm(mean), atol=1e-5)


def test_nme_takes_features_as_they_are(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    method = LUCIR(nme_flip="none")
    learner = built(LUCIRLearner, method, tiny_run(method), tiny_data)
    for label in range(6):
        learner.context.memory.indices[label] = learner.context.of_classes(label, label + 1)[:4]
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    predicted = learner.readouts(features, Phase(0, 0, 6))
    means = learner.exemplar_means()
    assert predicted["nme"].tolist() == ((features[:, None] - means[None]) ** 2).sum(2).argmin(1).tolist()
    assert predicted["cnn"].tolist() == (F.normalize(features, dim=1) @ F.normalize(
        learner.net.head.weight, dim=1).T).argmax(1).tolist()  # fmt: skip


def test_icarls_readouts(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    """Threshold moving divides posteriors by class shares; the others take bias or norms away."""
    method = ICaRL()
    learner = built(ICaRLLearner, method, tiny_run(method), tiny_data)
    head, phase = learner.net.head, Phase(1, 4, 2)
    head.weight.data *= torch.linspace(0.5, 3, 6).unsqueeze(1)
    learner.counts = torch.tensor([3, 3, 3, 3, 12, 12])
    features = 2 * torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    x, w, b = features.double().numpy(), head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    norms = np.linalg.norm(w, axis=1)
    logits = x @ w.T + b
    posterior = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = {
        "cnn": logits,
        "tm": posterior / (np.array([3, 3, 3, 3, 12, 12]) / 36),
        "no-bias": x @ w.T,
        "unit-weights": x @ (w / norms[:, None]).T * norms.mean() + b,
        "unit-weights-no-bias": x @ (w / norms[:, None]).T,
    }
    with torch.no_grad():
        predicted = learner.readouts(features, phase)
    assert predicted.keys() == expected.keys()
    assert {k: v.tolist() for k, v in predicted.items()} == {k: v.argmax(1).tolist() for k, v in expected.items()}
    assert len({tuple(v.tolist()) for v in predicted.values()}) == 5


def test_icarls_readouts_agree_where_nothing_is_taken_away(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    learner = built(ICaRLLearner, ICaRL(), tiny_run(ICaRL()), tiny_data)
    learner.net.head.bias.data.zero_()
    learner.net.head.weight.data /= learner.net.head.weight.data.norm(dim=1, keepdim=True)
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    for counts in (None, torch.full((6,), 12)):
        learner.counts = counts
        with torch.no_grad():
            predicted = learner.readouts(features, Phase(0, 0, 6))
        assert len(predicted) == 5
        assert all(torch.equal(p, predicted["cnn"]) for p in predicted.values())


def test_icarls_threshold_moving_in_a_run(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Nothing to move in the balanced base phase; the counts of a phase are those of its main training."""
    counts = []

    def watch(learner: Any, phase: Phase, stage: Stage) -> None:
        counts.append(learner.counts.tolist())

    learner = train(tiny_run(ICaRL()), tiny_data, tmp_path, watch)
    base = learner.result["phases"][0]["stages"]["main"]
    assert base["tm"] == base["cnn"]
    assert counts == [[12] * 4, [3] * 4 + [12] * 2, [3] * 6 + [12] * 2]


def test_which_head_and_last_relu(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    for method, head, final_relu in (
        (Base("linear"), LinearHead, True), (ICaRL(), LinearHead, True),
        (Base("cosine"), CosineHead, False), (LUCIR(), CosineHead, False),
    ):  # fmt: skip
        net = built(LEARNERS[type(method)], method, tiny_run(method), tiny_data).net  # type: ignore[index]
        assert type(net.head) is head and net.backbone.final_relu == final_relu


# The optimisation loop


class Numbers:
    """Images that are rows of a matrix."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.labels = x, y

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in order.split(batch):
            yield self.x[rows], self.labels[rows]

    def close(self) -> None:
        """There is nothing to close."""


def in_order(indices: Tensor, generator: torch.Generator) -> Tensor:
    return indices


@pytest.mark.parametrize("nesterov", [False, True])
def test_fit_is_sgd_with_momentum_by_hand(nesterov: bool) -> None:
    """Least squares in NumPy: decay, momentum, the schedule's rates, frozen rows, the mean loss of an epoch."""
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(7, 3)), rng.integers(0, 3, 7), rng.normal(size=(2, 3))
    schedule = Schedule(4, lr=0.1, milestones=(2,), gamma=0.5, batch=3, momentum=0.8, weight_decay=0.1,
                        nesterov=nesterov, warmup=1)  # fmt: skip
    parameter = torch.nn.Parameter(torch.from_numpy(w.copy()))
    images = Numbers(torch.from_numpy(x), torch.from_numpy(y))
    reported = []

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return ((a @ parameter.T).sum(1) - b).square().mean()

    stage = Stage("toy", schedule, torch.arange(7), loss, [parameter], lambda: None, [(parameter, 1)], sampler=in_order)
    fit(stage, images, (0,), lambda epoch, optimiser: reported.append((epoch.epoch, epoch.lr, epoch.loss)))  # type: ignore[arg-type]
    velocity, expected = np.zeros_like(w), []
    for epoch, lr in enumerate([0.1, 0.1, 0.05, 0.05]):
        total = 0.0
        for rows in ([0, 1, 2], [3, 4, 5], [6]):
            residual = (x[rows] @ w.T).sum(1) - y[rows]
            total += (residual**2).sum()
            gradient = np.tile(2 * residual @ x[rows] / len(rows), (2, 1)) + 0.1 * w
            velocity = 0.8 * velocity + gradient if epoch or rows[0] else gradient
            w[1] -= lr * (gradient + 0.8 * velocity if nesterov else velocity)[1]
        expected.append((epoch + 1, lr, total / 7))
    np.testing.assert_allclose(parameter.detach(), w, rtol=1e-10)
    np.testing.assert_allclose(reported, expected, rtol=1e-6)


def test_momentum_does_not_outlive_a_stage() -> None:
    parameter = torch.nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
    images = Numbers(torch.ones(1, 1), torch.zeros(1))
    stage = Stage("toy", Schedule(1, lr=0.1, momentum=0.9, weight_decay=0), torch.arange(1),
                  lambda a, b: parameter.sum(), [parameter], lambda: None)  # fmt: skip
    for expected in (0.9, 0.8, 0.7):
        fit(stage, images, (0,), lambda epoch, optimiser: None)  # type: ignore[arg-type]
        assert parameter.item() == pytest.approx(expected)


# Input found wrong before training


def test_more_negatives_than_new_classes() -> None:
    LUCIR(negatives=2).check(Protocol(8, 4, 2))
    LUCIR(negatives=3, margin=None).check(Protocol(8, 4, 2))
    LUCIR(negatives=3).check(Protocol(8, 8, 0))
    with pytest.raises(ValueError, match="K = 3 new classes as negatives, but a phase has 2"):
        LUCIR(negatives=3).check(Protocol(8, 4, 2))


@pytest.mark.parametrize(("changes", "message"), [
    ({"method": LUCIR(negatives=3)}, "K = 3"),
    ({"protocol": Protocol(8, 3, 2)}, "do not divide"),
    ({"protocol": Protocol(16, 8, 4)}, "the protocol has 16 classes but noise has 8"),
    ({"protocol": Protocol(8, 4, 2, 13)}, "13 exemplars per class asked for, but class '0' has 12"),
])  # fmt: skip
def test_bad_input_is_found_before_training(changes: dict, message: str, tiny_run: MakeRun, tiny_data: Dataset) -> None:
    plan.check(tiny_run(LUCIR()), tiny_data)
    plan.check(tiny_run(LUCIR(), protocol=Protocol(8, 4, 2, None, 1000)), tiny_data)
    with pytest.raises(InputError, match=message):
        plan.check(replace(tiny_run(LUCIR()), **changes), tiny_data)
