"""`search check-block`: each fault is found by its own check, in words that say what to do."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from blocks import registry
from blocks.conformance import CHECKS, FAILED, OK, SKIPPED, examine, run_check
from blocks.errors import BlockError, SiteError
from blocks.formulas import Cost
from blocks.options import Option
from blocks.subject import Subject, subject_of, subject_of_class
from search import checking

SUITE = [check.name for check in CHECKS if not check.slow]


class Gate(nn.Module):
    """A block without fault: what the faulty ones below start from."""

    def __init__(self, channels, *, start=0.5, shared=False):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1 if shared else channels, 1, 1), start))

    def forward(self, x):
        return x * (self.weight * x.mean(dim=(2, 3), keepdim=True)).sigmoid()


class WrongShape(Gate):
    def forward(self, x):
        return super().forward(x)[:, :, ::2, ::2]


class WrongType(Gate):
    def forward(self, x):
        return super().forward(x).double()


class NothingDone(Gate):
    def forward(self, x):
        return x + 0 * self.weight


class Unused(Gate):
    def __init__(self, channels, *, start=0.5):
        super().__init__(channels, start=start)
        self.spare = nn.Linear(channels, channels)


class NoGradient(Gate):
    def forward(self, x):
        return x * (self.weight.detach() * x.mean(dim=(2, 3), keepdim=True)).sigmoid() + (
            0 * self.weight
        )


class IdleOption(Gate):
    def __init__(self, channels, *, start=0.5, reduction=16):
        super().__init__(channels, start=start)


class OneChannelCount(Gate):
    def __init__(self, channels, *, start=0.5):
        if channels not in (32, 64):
            raise IndexError("list index out of range")
        super().__init__(channels, start=start)


class BatchDependent(Gate):
    def forward(self, x):
        return super().forward(x) + x.mean(dim=0, keepdim=True)


class Counting(Gate):
    def __init__(self, channels, *, start=0.5):
        super().__init__(channels, start=start)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        with torch.no_grad():
            self.seen.add_(1)
        return super().forward(x)


class WritesToInput(Gate):
    def forward(self, x):
        return x.add_(self.weight)


class KeepsTheLast(Gate):
    def forward(self, x):
        self.last = x.mean()
        return super().forward(x)


class Branching(Gate):
    def forward(self, x):
        return super().forward(x) if x.is_meta or float(x.detach().sum()) > -1e9 else x


class Standardised(Gate):
    def forward(self, x):
        deviation = x - x.mean(dim=(2, 3), keepdim=True)
        pixels = x.shape[2] * x.shape[3]
        return super().forward(x) + deviation / (pixels - 1)


class NeedsNine(Gate):
    def __init__(self, channels, *, start=0.5):
        super().__init__(channels, start=start)
        self.conv = nn.Conv2d(channels, 1, 3)

    def forward(self, x):
        return super().forward(x) + self.conv(x).mean(dim=(2, 3), keepdim=True)


class Refuses(NeedsNine):
    def forward(self, x):
        if min(x.shape[2:]) < 3:
            raise SiteError(f"refuses: maps of 3 x 3 and more, not of {tuple(x.shape[2:])}")
        return super().forward(x)


class ChannelsFirst(Gate):
    def forward(self, x):
        return super().forward(x).contiguous()


class Normed(Gate):
    def __init__(self, channels, *, start=0.5):
        super().__init__(channels, start=start)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return x * (self.weight * self.norm(x.mean(dim=(2, 3), keepdim=True))).sigmoid()


class Forgetful(Gate):
    """Keeps what it learns in an attribute that no state dict has."""

    def __init__(self, channels, *, start=0.5):
        super().__init__(channels, start=start)
        self.scale = 1.0

    def forward(self, x):
        if self.training:
            self.scale = 2.0
        return super().forward(x) * self.scale


class Unpicklable(Gate):
    def __init__(self, channels, *, start=0.5):
        super().__init__(channels, start=start)
        self.double_it = lambda y: 2 * y

    def forward(self, x):
        return self.double_it(super().forward(x))


class Float32Constant(Gate):
    def forward(self, x):
        return super().forward(x) * torch.ones(1, 1, 1, 1, device=x.device)[0].expand(1, 1, 1, 1)


class Random(Gate):
    def forward(self, x):
        return super().forward(x) * (1 + torch.rand(1, device=x.device, dtype=x.dtype))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * x  # half of what it is


class WrongBackward(Gate):
    def forward(self, x):
        return super().forward(x) + Square.apply(x)


FAULTS = [
    (
        WrongShape,
        "shape",
        "WrongShape at 1 x 32 x 6 x 7, evaluation: (1, 32, 3, 4) came out; needed",
    ),
    (WrongType, "shape", "torch.float64 came out; needed: the input's type, torch.float32"),
    (Unused, "unused", "spare.weight, spare.bias takes no part in the output"),
    (NoGradient, "gradients", "training: the gradient of weight is 0; needed: one that reaches"),
    (IdleOption, "options-differ", "IdleOption.reduction: 16 and 32, 18, 17, 15 build the same"),
    (OneChannelCount, "channels", "OneChannelCount at 1 x 16 x 14 x 14: stops with IndexError"),
    (BatchDependent, "batch", "an image in a batch against it alone: differs by up to"),
    (Counting, "eval-state", "evaluation changed seen; needed: a state that changes in training"),
    (WritesToInput, "input", "WritesToInput at 3 x 32 x 6 x 7, evaluation: the input was written"),
    (KeepsTheLast, "export", "torch.export: "),
    (Standardised, "sizes", "Standardised at 1 x 32 x 1 x 1: 32 of 32 numbers are NaN or infinite"),
    (NeedsNine, "sizes", "NeedsNine at 1 x 32 x 1 x 1: stops with RuntimeError"),
    (ChannelsFirst, "channels-last", "another order came out (strides (1344, 42, 7, 1))"),
    (Forgetful, "state-dict", "another block with its stored state: differs by up to"),
    (Unpicklable, "copies", "pickle after a run stops with"),
    (WrongBackward, "slope", "the input's gradient against the finite difference: differs"),
]


@pytest.mark.parametrize(
    ("block", "check", "words"), FAULTS, ids=[f"{b.__name__}-{c}" for b, c, _ in FAULTS]
)
def test_a_fault_is_found_by_its_own_check(block, check, words):
    found = list(examine(subject_of_class(block)))
    assert [f.check for f in found if f.state == FAILED] == [check]
    (failure,) = (f for f in found if f.state == FAILED)
    assert words in failure.detail
    assert failure.cure
    assert [f.check for f in found] == SUITE


def test_a_branch_on_numbers_is_neither_compiled_nor_exported():
    found = examine(subject_of_class(Branching))
    assert [f.check for f in found if f.state == FAILED] == ["compile", "export"]


def test_a_block_that_does_nothing_fails():
    found = list(examine(subject_of_class(NothingDone)))
    assert "shape: " in f"{found[0].check}: {found[0].detail}"
    assert "the input came out; needed: a map that it changes" in found[0].detail
    assert {f.state for f in found[1:]} == {SKIPPED}
    assert found[1].detail == "needs `shape` to hold"


def test_random_numbers_in_evaluation_are_found():
    found = {f.check: f for f in examine(subject_of_class(Random))}
    assert found["repeatable"].state == FAILED
    assert "the same map evaluated again gave other numbers" in found["repeatable"].detail


def test_a_block_without_fault_passes():
    found = list(examine(subject_of_class(Gate)))
    assert {f.check: f.detail for f in found if f.state != OK} == {}
    details = {f.check: f.detail for f in found}
    assert details["cost"] == "declares no cost; it is counted operator by operator"
    assert details["deterministic"].startswith("runs on cpu")


def test_refusals_are_said_and_no_failure():
    found = {f.check: f for f in examine(subject_of_class(Refuses))}
    assert {f.state for f in found.values()} == {OK}
    assert found["sizes"].detail == "refuses 1 x 1, 1 x 5, 5 x 1, 1 x 14, 2 x 2"


def test_torchs_own_words_about_one_image_are_enough():
    found = {f.check: f for f in examine(subject_of_class(Normed))}
    assert {f.state for f in found.values()} == {OK}
    assert "6 x 7 is refused: ValueError: Expected more than 1 value" in found["one-image"].detail


def declared(cost):
    row = registry.describe(Gate, "gate", cost=cost)
    return Subject(row, lambda count, options: registry.assemble(row, Gate, count, options))


def true_cost(shape, options):
    numbers = shape.channels * shape.height * shape.width
    params = 1 if options["shared"] else shape.channels
    # mean, weight, sigmoid (4), scale
    return Cost(params, params, 0, numbers + 5 * shape.channels + numbers)


def test_a_declared_cost_is_counted():
    found = {f.check: f for f in examine(declared(true_cost))}
    assert {f.state for f in found.values()} == {OK}
    wrong = declared(lambda shape, options: true_cost(shape, options) + Cost(flops=1))
    (failure,) = (f for f in examine(wrong) if f.state == FAILED)
    assert failure.check == "cost"
    assert failure.detail == (
        "gate at 1 x 32 x 7 x 7: declares 3,297 flops, and 3,296 are counted; needed: the same"
        " number"
    )


def with_option(option, block=Gate):
    row = registry.describe(block, "gate", options=(option,))
    return Subject(row, lambda count, options: registry.assemble(row, block, count, options))


def check_named(name):
    return next(check for check in CHECKS if check.name == name)


def test_values_that_are_one_function_and_values_that_do_not_run():
    check = check_named("options-differ")
    start = Option("start", 0.5, (0.5, 1.0), "first weights", "numbers")
    assert run_check(check, with_option(start)).state == OK
    idle = Option("reduction", 16, (16, 4), "nothing", "numbers")
    finding = run_check(check, with_option(idle, IdleOption))
    assert "gate.reduction: 16 and 4 at 64 x 14 x 14 build the same function" in finding.detail
    blind = replace(start, effect=lambda value, shape, others: 0.5)
    finding = run_check(check, with_option(blind))
    assert "0.5 and 1.0 at 64 x 14 x 14 are two functions, but their identity" in finding.detail
    wrong = Option("start", 0.5, (0.5, "high"), "first weights", "numbers")
    finding = run_check(check_named("option-values"), with_option(wrong))
    assert "gate (start='high') at 1 x 32 x 56 x 56: TypeError" in finding.detail


def test_channels_are_those_asked_for():
    found = list(examine(subject_of_class(WrongShape, channels=5)))
    assert "WrongShape at 1 x 5 x 6 x 7" in found[0].detail


# What comes without the packages ----------------------------------------------------------------


def test_onnx_is_skipped_with_its_cure_where_it_is_missing(monkeypatch):
    from blocks.checks import tracing

    monkeypatch.setattr(tracing, "ONNX_PACKAGES", ("onnx", "a_package_that_is_not_there"))
    finding = run_check(check_named("onnx"), subject_of("se"))
    assert (finding.state, finding.detail) == (SKIPPED, "install attention-search[export]")


def test_inductor_is_skipped_where_there_is_no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    finding = run_check(check_named("inductor"), subject_of("se"))
    assert (finding.state, finding.detail) == (SKIPPED, "no C++ compiler; install g++, or set CXX")


@pytest.mark.slow
def test_slow_checks_of_a_users_block():
    found = {f.check: f for f in examine(subject_of_class(Gate), slow=True)}
    assert found["inductor"].state == found["onnx"].state == OK


# Finding the block ------------------------------------------------------------------------------

OWN = """
import torch
from torch import nn

LIMIT = 3


class Shift(nn.Module):
    def __init__(self, channels, *, start=0.0):
        super().__init__()
        self.shift = nn.Parameter(torch.full((1, channels, 1, 1), start))

    def forward(self, x):
        print("a word from the block")
        return x + self.shift


class Halves(Shift):
    def forward(self, x):
        return x[:, :, ::2]


class Plain:
    def __init__(self, channels):
        pass


class Closed(nn.Module):
    pass


class Needy(nn.Module):
    def __init__(self, channels, *, factor):
        super().__init__()


class Needier(nn.Module):
    def __init__(self, channels, factor):
        super().__init__()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module of blocks, as a user's current one."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"broken_{name}.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / f"wrong_{name}.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    for module in [key for key in sys.modules if name in key]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("sek", "unknown block 'sek'. Did you mean 'se'?"),
        (
            "no_such:Shift",
            "there is no module 'no_such'; run from the folder that holds it, or give",
        ),
        ("{0}:Shif", "has no class 'Shif'. Did you mean 'Shift'? Its classes: Shift, Halves"),
        ("{0}:LIMIT", "3 is not a block: a class that inherits"),
        ("{0}:Plain", "Plain'> is not a block: a class that inherits"),
        ("{0}:Closed", "Closed: its class takes no channels; write `def __init__(self, channels"),
        ("{0}:Needy", "Needy.factor has no default; give it one"),
        ("{0}:Needier", "Needier.factor has no default; give it one"),
        ("broken_{0}:Shift", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("wrong_{0}:Shift", "ZeroDivisionError: division by zero"),
        (":Shift", "unknown block ':Shift'"),
    ],
)
def test_what_is_no_block_is_refused_in_one_line(folder, target, words):
    with pytest.raises(BlockError) as caught:
        checking.find_subject(target.format(folder))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_of_the_current_folder(folder):
    before = registry.names()
    assert checking.find_subject(f"{folder}:Shift").row.name == "Shift"
    assert registry.names() == before


def test_a_class_of_an_included_file(folder, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    subject = checking.find_subject(f"{folder}:Shift", [str(tmp_path / f"{folder}.py")])
    assert subject.row.name == "Shift"


def test_a_registered_block_by_name():
    assert checking.find_subject("se").row is registry.spec("se")


def search(*arguments, cwd):
    command = [sys.executable, "-P", "-m", "search.cli", "check-block", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def test_the_command_prints_data_alone(folder, tmp_path):
    done = search(f"{folder}:Shift", "--format", "json", "--channels", "8", cwd=tmp_path)
    assert done.returncode == 1  # a print() in forward() cannot be compiled into one graph
    data = json.loads(done.stdout)
    assert (data["block"], data["channels"], data["passed"]) == ("Shift", 8, False)
    assert data["options"] == {"start": 0.0, "residual": False}
    assert [check["check"] for check in data["checks"]] == SUITE
    assert [c["check"] for c in data["checks"] if c["state"] == FAILED] == ["compile"]
    assert "a word from the block" in done.stderr


def test_the_command_says_a_failure_and_its_cure(folder, tmp_path):
    done = search(f"{folder}:Halves", cwd=tmp_path)
    assert done.returncode == 1
    first, cure, second, *_ = done.stdout.splitlines()
    assert first.startswith("failed   shape           Halves at 1 x 32 x 6 x 7, evaluation: (1, 32")
    assert cure.strip() == "cure: return a tensor of x.shape and x.dtype for every batch"
    assert second.split() == ["skipped", "sizes", "needs", "`shape`", "to", "hold"]
    assert done.stdout.splitlines()[-1] == f"Halves: 0 ok, {len(SUITE) - 1} skipped, 1 failed"


def test_the_command_refuses_wrong_usage(tmp_path):
    done = search("no_such:Shift", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("search: there is no module 'no_such'; run from the folder")
    done = search("se", "--channels", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "search: 0 channels; a map has 1 or more\n"
