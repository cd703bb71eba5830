"""Tests the words of `train`: what is refused in one line, what the help says, and how options change a method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fakes
import pytest

from common.command import parsing, train
from lucir.methods import LUCIR, ICaRL

WRONG = {
    "FOO": "unknown method 'FOO'; choose one of LUCIR, ICaRL, Base",
    "lucir": "unknown method 'lucir'; choose one of LUCIR",
    "--dataset imagenet": "unknown --dataset 'imagenet'; choose one of cifar100",
    "--preset x": "unknown preset 'x'",
    "--foo 3 LUCIR": "Unrecognized options: --foo",
    "--epoch-scale 3": "did you mean --epochs-scale?; python",
    "LUCIR --margn 3": "did you mean --margin?; python",
    "LUCIR --no-imprint": "did you mean --imprint?; python",
    "--seed": "--seed",
    "LUCIR --foo 3": "Unrecognized options: --foo",
    "LUCIR stray": "Unrecognized options: stray",
    "LUCIR --imprint maybe": "invalid choice 'maybe'",
    "LUCIR --margin_reduction sum": "invalid choice 'sum'",
    "Base --scale.x 3": "Unrecognized options: --scale.x",
    "--seed -1": "a seed must be 0 or more",
    "LUCIR --negatives 30": "the margin loss takes K = 30",
    "LUCIR --seed 3": "--seed stands before the method's name: python -m lucir.train --seed ... LUCIR",
    "LUCIR --epochs-scale=2": "--epochs-scale=2 stands before the method's name",
    "--margin None": "--margin is an option of LUCIR and stands after its name: python -m lucir.train LUCIR --margin",
    "--temperature 3 LUCIR": "--temperature is an option of ICaRL and stands after its name",
    "--finetune.epochs 5": "--finetune.epochs is an option of LUCIR",
    "LUCIR --margin none": "--margin: it takes None or FLOAT, not 'none'; python -m lucir.train LUCIR --help lists",
    "LUCIR --imprint": "--imprint needs a value: True or False; python",
    "LUCIR --old": "--old needs a value: less-forget or cosine; python",
    "LUCIR --weight": "--weight needs a value; python",
    "LUCIR --finetune False": "--finetune takes None, which turns finetune off; its options begin with --finetune.",
    "LUCIR --finetune": "--finetune takes None",
    "LUCIR --finetune None --finetune.lr 0.1": "--finetune None turns finetune off, so that --finetune.lr",
    "LUCIR --weight -5": "LUCIR's weight and margin must be 0 or more, got -5",
    "LUCIR --margin -0.5": "LUCIR's weight and margin must be 0 or more",
    "ICaRL --temperature 0": "iCaRL's weight must be 0 or more and its temperature positive, got 1 and 0",
    "LUCIR --finetune.momentum -1": "a schedule's momentum must be 0 or more, got -1",
    "LUCIR --finetune.batch 0": "a schedule's batch must be 1 or more, got 0",
    "LUCIR --margin nan": "LUCIR.margin must be a finite number, got nan",
    "LUCIR --negatives 0": "1 or more new classes as negatives, got 0",
    "LUCIR --scale -1": "the scale of a cosine head must be positive, got -1",
    "--seeds 1 2": "--seeds is an option of reproduce; train takes one --seed",
    "--only fig5c": "--only is an option of reproduce; train draws no figures",
    "--sync-batchnorm LUCIR": "--sync-batchnorm is for several processes on GPUs, as torchrun starts them",
    "LUCIR --old x": "one of ('less-forget', 'cosine'); python",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_trained_is_one_line_and_exit_code_2(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main("lucir", ["--out", str(tmp_path), *words.split()])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert WRONG[words] in error and not list(tmp_path.glob("runs/*/*"))


def test_help_names_options_with_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for words, found in (
        (
            ["--help"],
            [
                "LUCIR (the paper's own",
                "ICaRL, Base",
                "--epochs-scale",
                "Class order",
            ],
        ),
        (
            ["--preset", "imagenet", "LUCIR", "--help"],
            [
                "lambda_base",
                "(default: 10.0)",
                "defaults below are those of --preset imagenet",
                "--finetune.epochs",
                "margin",
            ],
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            train.main("lucir", words)
        text = " ".join(capsys.readouterr().out.split())
        assert ended.value.code == 0 and all(word in text for word in found)
        if words == ["--help"]:  # general options; those of one preset come after the others
            assert text.index("--preset") < text.index("--epochs-scale") < text.index("--base")


def test_help_says_how_a_part_is_turned_off_or_on(capsys: pytest.CaptureFixture[str]) -> None:
    for words, found in (
        (["LUCIR"], "--finetune None turns finetune off."),
        (["ICaRL"], "finetune is off here; an option of it turns it on, such as --finetune.epochs."),
        (["ICaRL", "--finetune.epochs", "2"], "--finetune None turns finetune off."),
    ):
        with pytest.raises(SystemExit):
            train.main("lucir", [*words, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert found in text and text.count("turns") == 1


def test_a_part_is_changed_left_out_or_begun_as_the_setting_has_it() -> None:
    usual, spare = LUCIR(), fakes.settings("lucir", "quick")[0]
    assert parsing.change(usual, "", []) is usual
    assert parsing.change(usual, "", ["--finetune", "None"]) == replace(usual, finetune=None)
    assert parsing.change(usual, "", ["--finetune.lr=0.5"]).finetune == replace(usual.finetune, lr=0.5)
    begun = parsing.change(ICaRL(), "", ["--finetune.lr", "0.5", "--temperature", "3"], spare)
    assert begun == ICaRL(temperature=3.0, finetune=replace(spare.finetune, lr=0.5))
