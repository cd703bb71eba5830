"""Tests public names at the roots of the packages, and other people's packages under the same names."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.command import roots
from common.command.plan import PAPERS
from common.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
NAMED = {  # names that outside checks import, and the papers' own methods
    "lucir": {"LUCIR", "ICaRL", "less_forget", "margin_ranking", "adaptive_weight", "distillation", "imprint"},
    "der": {"DER", "auxiliary_targets", "sparsity", "scale", "mask", "learning_rates", "masked_resnet32"},
    "feature_adaptation": {"Adaptation", "megabytes", "FeatureAdapter", "compensate", "adaptation_quality"},
    "bbn": {"BBN", "BBNResNet32", "alpha", "bilateral_loss"},
    "class_balanced": {"ClassBalanced", "effective_number", "class_weights", "class_balanced_loss"},
    "fsa": {"FSA", "class_activation_map", "split", "fuse", "head_classes"},
}
each_paper = pytest.mark.parametrize("paper", PAPERS)


def python(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Start Python in a folder that comes before this project's, as with an installed project."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


@each_paper
def test_importing_a_package_loads_no_torch(paper: str, tmp_path: Path) -> None:
    script = f"import sys, {paper}; dir({paper}); assert not {{'torch', 'numpy', 'matplotlib'}} & set(sys.modules)"
    ended = python("-c", script, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr


@each_paper
def test_public_names_are_what_type_checkers_see(paper: str) -> None:
    """Imports for type checkers, `__all__` and the lazily loaded names agree, with the same modules."""
    package = importlib.import_module(paper)
    tree = ast.parse(Path(package.__path__[0], "__init__.py").read_text(encoding="utf-8"))
    checked = next(n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in checked.body for alias in node.names}  # type: ignore[attr-defined]
    assert set(package.__all__) == seen.keys() >= NAMED[paper] and seen.keys() <= {*dir(package)}
    for name, module in seen.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
    submodules = {path.stem for path in Path(package.__path__[0]).glob("*.py")}
    assert not submodules & seen.keys()  # otherwise the order of imports decides what a name means
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize("file", ["common/__init__.py", "common.py"])
@each_paper
def test_a_command_notices_another_common(paper: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    ended = python("-m", f"{paper}.reproduce", "--list", folder=tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert str(tmp_path / file.removesuffix("/__init__.py")) in ended.stderr
    # An editable install finds our modules even below another `common`; then the command looks where that one lies.
    assert ended.stderr.startswith((f"error: {paper} needs its own `common`", "error: Python finds another 'common'"))


def test_a_command_notices_another_paper(tmp_path: Path) -> None:
    (tmp_path / "bbn").mkdir()
    words = ["-m", "lucir.reproduce", "--list", "--only", "fig3a"]
    assert python(*words, folder=tmp_path).returncode == 0  # Python prefers ours to a folder without code
    (tmp_path / "bbn/__init__.py").write_text("")
    ended = python(*words, folder=tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert f"another 'bbn', {tmp_path / 'bbn'}" in ended.stderr and "rename that one" in ended.stderr


def test_a_missing_package_is_named() -> None:
    roots.check(PAPERS)
    with pytest.raises(InputError, match="nowhere_at_all is missing"):
        roots.check(["nowhere_at_all"])
