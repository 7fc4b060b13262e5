"""What there is, is documented; what the README shows, works."""

import re
from pathlib import Path

import pytest

from blocks import backbone, registry
from blocks.conformance import OK
from blocks.families.classes import FAMILIES
from search import datasets
from search.answers import FURTHER
from search.budgets import NAMES as BUDGETS
from search.checking import find_subject, findings
from search.cli import app
from search.datasets import DATASETS
from search.failures import POLICIES
from search.outcome import STATES, EpochResult
from search.plan import make_plan
from search.recording import from_curve
from search.samplers import SAMPLERS
from spaces.document import SAMPLERS as NAMES
from spaces.document import AttentionSection, Document, StudySection
from spaces.metrics import METRICS
from spaces.recipes import RECIPES
from spaces.space import load_space, parse_space, shipped_spaces
from spaces.training import OPTIMIZERS, SCHEDULES
from spaces.training_section import SETTINGS, TrainingSection

ROOT = Path(__file__).parent.parent
SAMPLERS_PAGE = (ROOT / "docs" / "samplers.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BACKBONES = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
DATA = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
MEASUREMENTS = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
FAILURES = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
COMMANDS = [c.name or c.callback.__name__ for c in app.registered_commands]


def measured_names():
    """The metrics, and every further number that a training or an epoch leaves."""
    curve = [EpochResult(1, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0, 100.0, 1e6)]
    recorded = {metric for _, metric, _ in from_curve(curve)}
    return sorted({*METRICS, *recorded, *FURTHER, "calibration_error", "recall", "precision"})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command):
    assert f"`search {command}" in README


@pytest.mark.parametrize("name", registry.names())
def test_every_block_is_in_the_readmes_table(name):
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
    if name != registry.NONE:
        for option in registry.spec(name).options:
            everywhere = option.name == "residual"
            assert f"`{option.name}`" in (README if everywhere else row), option.name


@pytest.mark.parametrize("name", registry.adapted_names())
def test_every_module_of_timm_and_its_options_are_in_the_readme(name):
    assert f"`{name}`" in README
    for option in registry.spec(name).options:
        assert f"`{option.name}`" in README, option.name


@pytest.mark.parametrize("name", [*METRICS, *SAMPLERS, *DATASETS])
def test_every_metric_sampler_and_data_set_is_in_the_readme(name):
    assert name in README


@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_has_its_row(name):
    rows = [line for line in SAMPLERS_PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1


def test_the_documentations_own_sampler_is_one(tmp_path):
    (code,) = re.findall(r"```python\n(# mine.py\n.*?)```", SAMPLERS_PAGE, re.S)
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    plan = make_plan("smoke", includes=[str(tmp_path / "mine.py")], sampler="mine:sampler")
    assert plan.sampler == "mine:sampler"


def test_the_documentations_own_proposals_are_some():
    (text,) = re.findall(r"```yaml\n(study:.*?)```", SAMPLERS_PAGE, re.S)
    assert (
        len(parse_space(f"backbone: resnet20\nattention: {{type: se}}\n{text}").study["enqueue"])
        == 2
    )


@pytest.mark.parametrize("name", backbone.names())
def test_every_backbone_is_in_the_documentation(name):
    assert f"`{name}`" in README + BACKBONES


@pytest.mark.parametrize("family", [*backbone.TIMM_BACKBONES, *FAMILIES])
def test_every_family_and_every_class_of_networks_is_in_the_table(family):
    rows = [row for row in BACKBONES.splitlines() if row.startswith("| ")]
    assert any(family in row.split("|")[1] or f"`{family}`" in row for row in rows)


@pytest.mark.parametrize("name", measured_names())
def test_every_number_that_is_recorded_is_defined(name):
    assert re.search(rf"^\| `{name}` \|", MEASUREMENTS, re.M)


def test_the_readmes_spaces_are_spaces():
    first, *others = re.findall(r"```yaml\n(.*?)```", README, re.S)
    assert parse_space(first).study["trials"] == 24
    assert [parse_space(text).training["pretrained"].values for text in others] == [("a1_in1k",)]


def test_the_readmes_block_passes_the_suite(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(# own.py\n.*?)```", README, re.S)
    assert len(code.splitlines()) < 20
    monkeypatch.setattr(registry, "_BLOCKS", dict(registry._BLOCKS))
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    (tmp_path / "own.py").write_text(code, encoding="utf-8")
    found = list(findings(find_subject("own:Shift", [str(tmp_path / "own.py")])))
    assert [finding for finding in found if finding.state != OK] == []


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_row_that_names_its_files(name):
    (row,) = [line for line in DATA.splitlines() if line.startswith(f"| `{name}` |")]
    for layout in DATASETS[name].layouts[:1]:
        for names in layout.files:
            numbered = re.sub(r"data_batch_[2-5]", "data_batch_1", names[0]).removesuffix(".gz")
            assert f"`{numbered}`" in row or name == "mnist"


def test_the_documentations_own_data_set_is_one(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(# rings.py\n.*?)```", DATA, re.S)
    assert len([line for line in code.splitlines() if line]) <= 20
    monkeypatch.setattr(datasets, "DATASETS", dict(DATASETS))
    (tmp_path / "rings.py").write_text(code, encoding="utf-8")
    plan = make_plan("smoke", includes=[str(tmp_path / "rings.py")], data="rings")
    assert plan.data.input_shape == (1, 16, 16)
    assert plan.data.sizes == (360, 40, 100)


@pytest.mark.parametrize("name", ["README.md", "docs/plan.md", "docs/speed.md"])
def test_no_figure_is_left_to_fill_in(name):
    assert not re.findall(r"@[A-Z]+@|TODO|TBD", (ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
        *("docs/backbones.md", "docs/data.md", "docs/devices.md", "docs/explain.md"),
        *("docs/failures.md", "docs/measurements.md", "docs/plan.md", "docs/samplers.md"),
        *("docs/sharing.md", "docs/spaces.md", "docs/speed.md", "docs/training.md"),
    ],
)
def test_files_that_are_named_are_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / name).parent / link).exists(), link


TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["recipe", *SETTINGS])
def test_every_training_setting_and_its_default_are_in_its_table(name):
    (row,) = [line for line in TRAINING.splitlines() if line.startswith(f"| `{name}` |")]
    default = row.split("|")[3].strip().strip("`")
    if name not in ("recipe", "pretrained"):
        value = getattr(TrainingSection(), name)
        assert default == (value if isinstance(value, str) else f"{value:g}")


@pytest.mark.parametrize("name", [*OPTIMIZERS, *SCHEDULES, *RECIPES])
def test_optimisers_schedules_and_recipes_are_documented(name):
    assert f"`{name}`" in TRAINING


def test_recipes_of_the_documentation_are_the_recipes():
    for recipe in RECIPES.values():
        (row,) = [line for line in TRAINING.splitlines() if line.startswith(f"| `{recipe.name}`")]
        assert f"{recipe.settings['epochs']}" in row or "the same" in row
        assert (
            f"{recipe.settings['learning_rate']:g} for {recipe.settings['reference_batch']}" in row
        )


SPACES = (ROOT / "docs" / "spaces.md").read_text(encoding="utf-8")
SECTION_KEYS = [f"attention.{name}" for name in AttentionSection.model_fields]


@pytest.mark.parametrize(
    "key", [*(n for n in Document.model_fields if n != "attention"), *SECTION_KEYS]
)
def test_every_key_of_a_space_file_is_in_the_table(key):
    assert re.search(rf"^\| `{key}` \|", SPACES, re.M)


@pytest.mark.parametrize("key", StudySection.model_fields)
def test_every_default_of_the_command_line_is_in_the_table(key):
    (row,) = [line for line in SPACES.splitlines() if line.startswith("| `study` |")]
    assert f"`{key}`" in row


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_space_stands_there_with_its_question(name):
    (row,) = [line for line in SPACES.splitlines() if line.startswith(f"| `{name}` |")]
    space = load_space(name)
    assert row.split("|")[2].strip() == space.question
    assert all(str(backbone) in row for backbone in space.backbones.values)
    assert space.study["data"].replace("cifar", "CIFAR-") in row


def test_the_space_of_the_documentation_is_one():
    (text,) = re.findall(r"```yaml\n(.*?)```", SPACES, re.S)
    space = parse_space(text)
    assert list(space.rules.whens) == ["position"]
    assert len(space.rules.forbidden) == 2


def test_the_python_of_the_documentation_makes_the_same_space_twice():
    (code,) = re.findall(r"```python\n(.*?)```", SPACES, re.S)
    names = {}
    exec(code.partition("result = ")[0], names)
    assert names["space"].digest == names["same"].digest
    assert (names["space"].epochs, names["changed"].epochs) == (2, 3)


# How studies and trials end. ----------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_a_trial_is_explained(state):
    assert re.search(rf"^\| `{state}` \|", FAILURES, re.M)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.cause)
def test_every_cause_is_documented_with_its_ending(policy):
    (row,) = [line for line in FAILURES.splitlines() if line.startswith(f"| `{policy.cause}` |")]
    assert f"`{policy.ending}`" in row.split("|")[3]


@pytest.mark.parametrize("name", BUDGETS)
def test_every_budget_is_documented(name):
    (row,) = [line for line in FAILURES.splitlines() if f"`{name}` |" in line]
    assert f"`--{name.replace('_', '-')} " in row
    assert f"--{name.replace('_', '-')} " in README
    assert f"{name}: " in README
