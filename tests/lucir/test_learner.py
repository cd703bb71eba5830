"""Tests what iCaRL and LUCIR train in each phase and what they leave alone, on a tiny network and tiny images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lucir_runs import CPU, FINETUNE, METHODS, MakeRun, train, unchanged
from torch import Tensor

from common.data.datasets import Dataset
from common.incremental import Phase
from common.runs import Run
from common.training import Stage, seeded, shuffled
from lucir.losses import margin_ranking
from lucir.methods import LUCIR, Base, ICaRL, Method

# A phase against loops and losses written out


def official_loss(run: Run, learner: Any, teacher: Any, images: Tensor, labels: Tensor, num_old: int) -> Tensor:
    """Return the loss of an incremental phase by the specification's formulas, with PyTorch's own loss functions."""
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
    """Training and finetuning end where a loop with a fresh torch.optim.SGD and the official loss ends."""
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
    """It is in eval mode without gradients, as finetuning left it.

    Training changes nothing in it, BatchNorm included.
    """
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
    """New rows point at class means under the previous model. They are as long as old rows on average."""
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
