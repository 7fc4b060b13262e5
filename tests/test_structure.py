"""The house's rules: imports point down, and reading commands stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from blocks.backbone import site_table

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "blocks": {"blocks"},
    "spaces": {"blocks", "spaces"},
    "search": {"blocks", "spaces", "search"},
    "reports": {"blocks", "spaces", "search", "reports"},
}
COMPOSITION_ROOT = "search/cli.py"
MODULES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))


def imported_folders(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{module}: import *"
            names.add(node.module)
    return {name.partition(".")[0] for name in names} & set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(module):
    name = module.relative_to(ROOT).as_posix()
    allowed = set(MAY_IMPORT) if name == COMPOSITION_ROOT else MAY_IMPORT[name.partition("/")[0]]
    assert imported_folders(module) <= allowed


def test_a_wrong_import_would_be_seen(tmp_path):
    module = tmp_path / "wrong.py"
    module.write_text("import torch\nfrom reports.page import write_report\n")
    assert imported_folders(module) == {"reports"}


@pytest.mark.parametrize(
    "module",
    [
        "blocks.published",
        "search.weights",
        "search.cli",
        "search.study",
        "search.show",
        "search.plan",
        "search.preview",
        "spaces.space",
        "spaces.drawing",
        "reports.page",
        "reports.frame",
    ],
)
def test_reading_and_planning_need_no_torch(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'timm', 'ray'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_command_line_loads_neither_pandas_nor_optuna():
    code = (
        "import sys, search.cli;"
        "print(sorted({'pandas', 'optuna', 'sqlalchemy', 'numpy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_worker_loads_no_database_and_no_scikit_learn():
    code = (
        "import sys, search.trial, search.datasets; search.datasets.load_data('digits');"
        "print(sorted({'sqlalchemy', 'sklearn', 'pandas', 'optuna'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_trial_as_it_is_by_default_loads_neither_timm_nor_the_compiler():
    site_table("resnet20", (1, 14, 14), 10)  # kept on disk: tracing a network asks for the compiler
    code = """
import sys, torch
from search.outcome import Assignment
from search.trial import evaluate_candidate
from spaces.training import Training
fca = {"block": "fca", "site": "in-block", "options": {"frequency": "top2", "reduction": 16}}
network = {"backbone": "resnet20", "input_size": [14, 14], "placements": [fca]}
trial = Assignment(0, 1, "fca", network, Training(epochs=1).to_json(), "digits", 0)
device = torch.device("cpu")
print(evaluate_candidate(trial, device=device, goes_on=lambda result: True).state)
print(sorted({"torch._dynamo", "torchvision", "timm"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["complete", "[]"]


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_a_folder_says_its_role(folder):
    text = (ROOT / folder / "__init__.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(ast.get_docstring(tree)) > 100
    assert len(tree.body) == 1, "__init__ holds a docstring alone: importing it must be free"
