import random
import subprocess
import sys
from dataclasses import asdict

import pytest

from blocks.errors import SpaceError
from blocks.formulas import Cost
from spaces.candidate import DataFacts
from spaces.document import MAX_BYTES
from spaces.drawing import draw, enumerate_proposals
from spaces.parameters import Choice, Range, fixed
from spaces.space import (
    Constraint,
    differences,
    find_space,
    load_space,
    parse_space,
    shipped_spaces,
)
from spaces.training import LATER, Training

SPACE = """\
# A comment.
name: mine
question: Which?
backbone: resnet20
attention:
  type: [none, se, eca]
  placement: [stem, stage]
  reduction: [4, 8]
training: {epochs: 3, learning_rate: {low: 0.01, high: 1.0, log: true}}
constraints: {params: 1.05x baseline}
study: {trials: 5, seed: 1}
"""
BASELINE = Cost(params=1000, trainable_params=1000, macs=20_000, flops=41_000)


def refusal(*overrides, text=SPACE):
    with pytest.raises(SpaceError) as error:
        parse_space(text, source="s.yaml", overrides=overrides)
    return str(error.value)


# What a space holds. ----------------------------------------------------------------------------


def test_what_a_space_holds():
    space = parse_space(SPACE, source="s.yaml", name="file-name")
    assert space.name == "mine"
    assert space.source == "s.yaml"
    assert space.text == SPACE
    assert space.question == "Which?"
    assert space.backbones == fixed("resnet20")
    assert space.attention.blocks == Choice(("none", "se", "eca"))
    assert space.attention.placements == Choice(("stem", "stage"))
    assert space.attention.shared == {"reduction": Choice((4, 8))}
    assert space.attention.own == {}
    assert space.attention.per_stage is False
    assert space.epochs == 3
    assert {name: space.training[name] for name in space.training if name not in LATER} == {
        "epochs": fixed(3),
        "batch_size": fixed(64),
        "learning_rate": Range(0.01, 1.0, log=True),
        "momentum": fixed(0.9),
        "weight_decay": fixed(5e-4),
        "label_smoothing": fixed(0.0),
    }
    off = asdict(Training())
    assert space.training["pretrained"] == fixed(False)
    later = {name: fixed(off[name]) for name in LATER if name != "pretrained"}
    assert {name: space.training[name] for name in later} == later
    assert set(space.training) == set(off)
    assert space.objectives == {"accuracy": "max", "flops": "min", "params": "min"}
    assert space.constraints == (Constraint("params", "1.05x baseline"),)
    assert space.study == {"trials": 5, "seed": 1}


def test_what_is_left_out():
    space = parse_space("backbone: [resnet20, resnet18]\nattention: {type: se}\n", name="file-name")
    assert space.name == "file-name"
    assert space.question == ""
    assert space.backbones == Choice(("resnet20", "resnet18"))
    assert space.attention.blocks == fixed("se")
    assert space.attention.placements == fixed("in-block")
    assert space.epochs == 12
    assert space.constraints == ()
    assert space.study == {}


def test_each_block_is_asked_for_the_options_it_has():
    types = "[none, se, eca, fca]"
    text = f"backbone: resnet20\nattention: {{type: {types}, reduction: [4], frequency: top1}}"
    attention = parse_space(text).attention
    assert dict(attention.options("none")) == {}
    assert dict(attention.options("eca")) == {}
    assert dict(attention.options("se")) == {"reduction": fixed(4)}
    assert dict(attention.options("fca")) == {"reduction": fixed(4), "frequency": fixed("top1")}


def test_blocks_with_options_of_their_own():
    text = """
backbone: resnet20
attention:
  type: {se: {reduction: [4, 8]}, eca: {kernel_size: [auto, 3]}, none: {}, cbam: {}}
  reduction: 16
"""
    # se has its own reduction; the shared one is for the others alone.
    assert "se.reduction and attention.reduction are both given" in refusal(text=text)
    attention = parse_space(text.replace("  reduction: 16\n", "  norm: [true, false]\n")).attention
    assert attention.blocks == Choice(("se", "eca", "none", "cbam"))
    assert dict(attention.options("se")) == {"se.reduction": Choice((4, 8))}
    assert dict(attention.options("eca")) == {"eca.kernel_size": Choice(("auto", 3))}
    assert dict(attention.options("none")) == {}
    assert dict(attention.options("cbam")) == {"norm": Choice((True, False))}


def test_singles_are_spelt_out_and_pairs_sorted():
    text = "backbone: resnet20\nattention: {type: fca, frequency: [top4, '6,0+0,0', ' 1,1 ']}"
    assert parse_space(text).attention.shared["frequency"].values == ("top4", "0,0+6,0", "1,1")
    text = "backbone: resnet20\nattention: {type: {fca: {frequency: singles}}}"
    values = parse_space(text).attention.own["fca"]["frequency"].values
    assert values == tuple(f"{u},{v}" for u in range(7) for v in range(7))


# Caps. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "cap"),
    [
        ("300000", 300_000),
        ("300_000", 300_000),
        ("300k", 300_000),
        ("1.2M", 1_200_000),
        ("2G", 2e9),
        ("5e5", 500_000),
        ("1.5e-1M", 150_000),
        ("'5e5'", 500_000),
        ("0.5", 0.5),
        ("1e20", 1e20),
        ("1.05x baseline", 1050),
        ("1x baseline", 1000),
        ("2 x  baseline", 2000),
        ("1.05xbaseline", 1050),
        ("' 300k '", 300_000),
    ],
)
def test_a_cap_as_written_and_as_a_number(written, cap):
    text = f"backbone: resnet20\nattention: {{type: se}}\nconstraints: {{params: {written}}}\n"
    (constraint,) = parse_space(text).constraints
    assert constraint.metric == "params"
    assert constraint.cap(1000) == pytest.approx(cap)


def test_a_share_is_of_the_capped_cost():
    share = Constraint("macs", "1.5x baseline")
    assert share.cap(20_000) == 30_000
    assert str(share) == "macs <= 1.5x baseline"


@pytest.mark.parametrize(
    "written",
    [
        *("lots", "-3", "-3k", "0", "0k", "0x baseline", "300K", "1.2m", "105%", "1.05x"),
        "x baseline",
        ".inf",
        ".nan",
        "1e999",
        "'1e999'",
        "'inf'",
        "'٣٠٠k'",
        "1.k",
        "1 000",
        "''",
        "1.05x baselines",
    ],
)
def test_what_is_no_cap(written):
    text = f"backbone: resnet20\nattention: {{type: se}}\nconstraints:\n  params: {written}\n"
    message = refusal(text=text)
    assert message.startswith("s.yaml:4: constraints.params: ")
    assert "is no cap" in message


@pytest.mark.parametrize("written", ["true", "[300k]", "{max: 3}"])
def test_caps_of_a_wrong_kind(written):
    text = f"backbone: resnet20\nattention: {{type: se}}\nconstraints:\n  params: {written}\n"
    message = refusal(text=text)
    assert message.startswith("s.yaml:4: constraints.params is ")
    assert message.endswith("a number (300000, 300k, 1.2M) or a share ('1.05x baseline') is needed")


# --set. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("training.epochs=5", lambda s: s.epochs == 5),
        ("training.epochs = 5", lambda s: s.epochs == 5),
        ("training.momentum=1e-1", lambda s: s.training["momentum"] == fixed(0.1)),
        ("training.momentum=[0.5, 0.9]", lambda s: s.training["momentum"] == Choice((0.5, 0.9))),
        (
            "training.momentum={low: 0.5, high: 0.9}",
            lambda s: s.training["momentum"] == Range(0.5, 0.9),
        ),
        (
            "training.learning_rate.default=0.2",
            lambda s: s.training["learning_rate"] == Range(0.01, 1.0, log=True, declared=0.2),
        ),
        ("backbone=resnet18", lambda s: s.backbones == fixed("resnet18")),
        ("backbone=[resnet18, resnet20]", lambda s: len(s.backbones.values) == 2),
        ("attention.per_stage=true", lambda s: s.attention.per_stage),
        ("attention.type=[se, eca]", lambda s: s.attention.blocks == Choice(("se", "eca"))),
        ("constraints.params=1.2x baseline", lambda s: s.constraints[0].text == "1.2x baseline"),
        ("constraints={}", lambda s: s.constraints == ()),
        ("constraints.macs=3M", lambda s: [c.metric for c in s.constraints] == ["params", "macs"]),
        ("objectives={accuracy: max}", lambda s: list(s.objectives) == ["accuracy"]),
        ("study.data=digits", lambda s: s.study == {"trials": 5, "seed": 1, "data": "digits"}),
        ("name=no", lambda s: s.name == "no"),
        ("question=a = b", lambda s: s.question == "a = b"),
        ("attention.energy_lambda=0.1", None),
    ],
)
def test_overrides(override, read):
    if read is None:
        assert "attention.energy_lambda changes nothing" in refusal(override)
        return
    changed = parse_space(SPACE, overrides=[override])
    assert read(changed)
    assert not read(parse_space(SPACE))
    assert changed.text == SPACE


def test_overrides_come_in_order_and_may_make_new_sections():
    text = "backbone: resnet20\nattention: {type: se}\n"
    overrides = ["training.epochs=5", "training.epochs=6", "training.momentum=0.5", "study.seed=3"]
    space = parse_space(text, overrides=overrides)
    assert space.epochs == 6
    assert space.training["momentum"] == fixed(0.5)
    assert space.study == {"seed": 3}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.epochs=two",
            "training.epochs is the text 'two'; a whole number from 1 is needed",
        ),
        ("training.epochs=", "training.epochs is empty; give a value, or leave it out"),
        ("training.epoch=3", "training: unknown key 'epoch'. Did you mean 'epochs'?"),
        ("foo=3", "the file: unknown key 'foo'."),
        ("foo.bar=3", "the file: unknown key 'foo'."),
        (
            "attention.type=[se, see]",
            "attention.type, item 2: unknown block 'see'. Did you mean 'se'?",
        ),
        ("attention={}", "attention: key 'type' is missing"),
        ("training.learning_rate.low=2", "learning_rate: low is 2 and high 1.0; low must be below"),
        ("training.momentum.low=0.1", "training.momentum: key 'high' is missing"),
        ("backbone.x=3", "'x' is inside a value that has no keys"),
        ("training.epochs=[", "not YAML: "),
        ("training.epochs=&a 3", "anchors and aliases are refused"),
        ("question=!!str 3", "the tag !!str is refused"),
        ("objectives={flops: min}", "objectives: 'accuracy: max' must be one of them"),
        ("training", "write key=value, such as --set training.epochs=5"),
        ("=3", "write key=value"),
    ],
)
def test_mistakes_of_overrides_name_the_override(override, message):
    found = refusal(override)
    assert found.startswith(f"--set {override}: ")
    assert message in found
    assert "\n" not in found


def test_mistakes_of_several_overrides_come_together():
    lines = refusal("training.epochs=two", "attention.per_stage=yes").splitlines()
    assert lines[0] == "s.yaml has 2 problems"
    assert sorted(line.split(":")[0] for line in lines[1:]) == [
        "  --set attention.per_stage=yes",
        "  --set training.epochs=two",
    ]


def test_mistakes_of_the_file_are_the_files():
    message = refusal("training.epochs=5", text=SPACE.replace("[none, se, eca]", "[none, see]"))
    assert message.startswith("s.yaml:6: ")


def test_narrowing_the_blocks_does_not_complain_about_options_left_over():
    assert parse_space(SPACE, overrides=["attention.type=eca"]).attention.blocks == fixed("eca")
    assert parse_space(SPACE, overrides=["attention.type=[none]"])
    # Whoever sets such an option is told that it changes nothing.
    message = refusal("attention.type=eca", "attention.reduction=[4]")
    assert message.startswith("--set attention.reduction=[4]: attention.reduction changes nothing")


# Identity. --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# A comment.", "# Another."),
        ("name: mine", "name: yours"),
        ("question: Which?", "question: |\n  Which\n  one?"),
        ("question: Which?\n", ""),
        (
            "study: {trials: 5, seed: 1}",
            "study: {trials: 50, sampler: tpe, data: digits, seeds: 3}",
        ),
        ("study: {trials: 5, seed: 1}\n", ""),
        ("{epochs: 3, ", "{epochs:   3,    "),
        ("[4, 8]", "\n  - 4\n  - 8"),
        ("{params: 1.05x baseline}", "{'params': '1.05x baseline'}"),
        ("backbone: resnet20", "backbone: 'resnet20'"),
        ("low: 0.01, high: 1.0", "high: 1.0, low: 1e-2"),
    ],
)
def test_what_changes_no_result_keeps_the_digest(old, new):
    assert old in SPACE
    assert parse_space(SPACE.replace(old, new)).digest == parse_space(SPACE).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("resnet20", "resnet18"),
        ("[none, se, eca]", "[none, se]"),
        ("[stem, stage]", "[stem, in-block]"),
        ("[4, 8]", "[4, 16]"),
        ("epochs: 3", "epochs: 4"),
        ("0.01", "0.02"),
        ("log: true", "log: false"),
        ("1.05x", "1.06x"),
        ("constraints", "objectives: {accuracy: max, macs: min}\nconstraints"),
    ],
)
def test_what_changes_results_changes_the_digest(old, new):
    assert old in SPACE
    assert parse_space(SPACE.replace(old, new)).digest != parse_space(SPACE).digest


def test_the_order_of_keys_is_not_part_of_the_digest():
    lines = [
        "backbone: resnet20",
        "attention: {type: [none, se], reduction: [4, 8]}",
        "training: {epochs: 3, momentum: 0.5}",
        "constraints: {params: 300k, macs: 3M}",
        "objectives: {accuracy: max, flops: min}",
    ]
    chance = random.Random(0)
    digests = set()
    for _ in range(10):
        chance.shuffle(lines)
        digests.add(parse_space("\n".join(lines)).digest)
    assert len(digests) == 1
    assert digests.pop().startswith("s1-")


def test_an_override_counts_as_if_it_were_written():
    changed = parse_space(SPACE, overrides=["training.epochs=4", "attention.type=[none, se]"])
    written = parse_space(SPACE.replace("epochs: 3", "epochs: 4").replace(", eca]", "]"))
    assert changed.digest == written.digest != parse_space(SPACE).digest
    assert (
        parse_space(SPACE, overrides=["study.seed=9", "name=x"]).digest == parse_space(SPACE).digest
    )


def test_differences_between_two_spaces():
    stored = parse_space(SPACE).content
    overrides = ["training.epochs=4", "attention.type=[none, se]", "attention.norm=true", "name=b"]
    text = SPACE.replace("eca", "cbam").replace("constraints: {params: 1.05x baseline}\n", "")
    given = parse_space(text, overrides=overrides[:1]).content
    assert differences(stored, given) == [
        "-attention.type: ['none', 'se', 'eca']",
        "+attention.type: ['none', 'se', 'cbam']",
        "-constraints.params: 1.05x baseline",
        "-training.epochs: 3",
        "+training.epochs: 4",
    ]


def test_equal_spaces_have_no_differences():
    again = parse_space(SPACE.replace("mine", "yours").replace("trials: 5", "trials: 6"))
    assert differences(parse_space(SPACE).content, again.content) == []


# Files. -----------------------------------------------------------------------------------------


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_file_is_read_and_gives_its_name(tmp_path):
    path = write(tmp_path / "tries.yaml", SPACE.replace("name: mine\n", ""))
    space = load_space(path, overrides=["training.epochs=9"])
    assert (space.name, space.source, space.epochs) == ("tries", str(path), 9)
    assert load_space(str(path)).digest == load_space(path).digest


def test_byte_order_marks_and_windows_line_endings(tmp_path):
    expected = parse_space(SPACE)
    windows = SPACE.replace("\n", "\r\n").encode()
    for content in (b"\xef\xbb\xbf" + SPACE.encode(), windows, b"\xef\xbb\xbf" + windows):
        space = load_space(write(tmp_path / "s.yaml", content))
        assert space.digest == expected.digest
        assert space.question == "Which?"
        assert space.text.startswith("# A comment.")
    path = write(tmp_path / "s.yaml", windows.replace(b"stage]", b"stages]"))
    with pytest.raises(SpaceError, match=r"s\.yaml:7: .*unknown placement 'stages'"):
        load_space(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n", "is no text: byte 0x89 at 0; a space is a YAML file in UTF-8"),
        ("a: ä".encode("latin-1"), "is no text: byte 0xe4 at 3"),
        (SPACE.encode("utf-16"), "is no text: byte 0xff at 0"),
        (b"SQLite format 3\0", "is no text: it holds zero bytes"),
        (b"#" * (MAX_BYTES + 1), "has 262,145 bytes; a space has at most 262,144"),
    ],
)
def test_files_that_are_no_spaces(tmp_path, content, message):
    path = write(tmp_path / "s.yaml", content)
    with pytest.raises(SpaceError) as refused:
        load_space(path)
    assert str(refused.value).startswith(f"{path} {message}")


def test_the_largest_file(tmp_path):
    path = write(tmp_path / "s.yaml", SPACE + "#" * (MAX_BYTES - len(SPACE)))
    assert load_space(path).name == "mine"


def test_a_folder_is_no_space(tmp_path):
    with pytest.raises(SpaceError) as refused:
        load_space(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} is a folder; a space is a file, such as {tmp_path}/attention.yaml"
    )


def test_a_missing_file_names_the_nearest_shipped_space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpaceError, match="no file 'atention.yaml' .*Did you mean 'attention'"):
        load_space("atention.yaml")
    with pytest.raises(SpaceError, match="no file 'xyz' and no shipped space.*Shipped: .*smoke"):
        load_space("xyz")
    with pytest.raises(SpaceError, match="there is no file"):
        load_space("a\0b")
    with pytest.raises(SpaceError, match="cannot be read: File name too long"):
        load_space("x" * 5000)


def test_a_shipped_space_is_found_by_its_name_and_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_space("smoke") == find_space("smoke.yaml") == shipped_spaces()["smoke"]
    assert load_space("smoke").source == "smoke.yaml"
    write(tmp_path / "smoke.yaml", SPACE)
    assert find_space("smoke.yaml").read_text() == SPACE
    assert load_space("smoke.yaml").name == "mine"
    assert find_space("smoke") == shipped_spaces()["smoke"]


def test_an_unreadable_file(tmp_path, monkeypatch):
    path = write(tmp_path / "s.yaml", SPACE)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)  # the tests may run as root
    with pytest.raises(SpaceError, match=r"s\.yaml cannot be read: Permission denied"):
        load_space(path)


def test_mistakes_carry_the_path_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "s.yaml", "backbone: resnet2\nattention: {type: se}\n")
    with pytest.raises(SpaceError, match=r"^s\.yaml:1: backbone: unknown backbone 'resnet2'"):
        load_space("s.yaml")


@pytest.mark.parametrize("module", ["space", "drawing", "candidate", "document", "metrics"])
def test_spaces_need_neither_torch_nor_timm(module):
    code = (
        f"import sys, spaces.{module};"
        "from spaces.space import load_space; load_space('attention');"
        "print(sorted({'torch', 'timm', 'numpy', 'optuna'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_range_of_a_share_holds_all_numbers_although_its_ends_are_whole():
    text = "backbone: resnet20\nattention: {type: [none, se]}\n"
    text += "training: {weight_decay: {low: 0, high: 1}, batch_size: {low: 16, high: 64}}\n"
    space = parse_space(text)
    assert not space.training["weight_decay"].is_integer
    assert space.training["batch_size"].is_integer
    assert space.training["weight_decay"].default == 0.5


# timm's own modules. ----------------------------------------------------------------------------

TIMM_SPACE = """
backbone: resnet20
attention:
  type: [none, se, "timm:gc"]
  placement: stage
  reduction: [4, 8]
  combine: [scale, add]
"""
TIMM_MAPPING = """
backbone: resnet20
attention:
  type:
    none: {}
    timm:gc: {combine: [scale, both], gate: [sigmoid, silu], reduction: [4, 2.5]}
    timm:sk: {kernel_sizes: [3+5, 3+7]}
  placement: stage
"""


def test_a_space_has_modules_of_timm_with_their_options():
    space = parse_space(TIMM_SPACE)
    assert space.attention.blocks == Choice(("none", "se", "timm:gc"))
    assert dict(space.attention.options("se")) == {"reduction": Choice((4, 8))}
    assert dict(space.attention.options("timm:gc")) == {
        "reduction": Choice((4, 8)),
        "combine": Choice(("scale", "add")),
    }
    own = parse_space(TIMM_MAPPING).attention
    assert dict(own.options("timm:sk")) == {"timm:sk.kernel_sizes": Choice(("3+5", "3+7"))}
    assert dict(own.options("timm:gc"))["timm:gc.reduction"] == Choice((4, 2.5))


@pytest.mark.parametrize(
    ("text", "architectures"),
    # se: 8 gives the widths 2, 4, 8 and 4 others; of gc all four differ. The baseline is one.
    [(TIMM_SPACE, 1 + 2 + 4), (TIMM_MAPPING, 1 + 2 * 2 * 2 + 2)],
)
def test_modules_of_timm_are_drawn(text, architectures):
    data = DataFacts("fake", (3, 32, 32), 10, "", (1, 1, 1))
    proposals = list(enumerate_proposals(parse_space(text), data))
    drawn = {draw(proposal, data).architecture for proposal in proposals}
    assert len(proposals) == len(drawn) == architectures
    assert any(p.block == "timm:gc" for one in drawn for p in one.placements)


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (("timm:gc", "timm:gcc"), ["unknown timm module 'timm:gcc'. Did you mean 'timm:gc'?"]),
        (("timm:gc", "gc"), ["unknown block 'gc'. Did you mean 'timm:gc'? Blocks: none, se, "]),
        (("scale, add", "scale, max"), ["timm:gc.combine: 'max' is none of them", "scale, add, b"]),
        (("combine", "combin"), ["unknown key 'combin'. Did you mean 'combine'? Allowed: type"]),
        (
            ("combine: [scale, add]", "act: [geluu]"),
            ["timm:gc.act: 'geluu' is none of them; allowed: relu, relu6"],
        ),
        (
            ("combine: [scale, add]", "halo_size: 3"),
            ["attention.halo_size changes nothing: it is an option of timm:halo, and"],
        ),
        (
            ("combine: [scale, add]", "kernel_size: 3"),
            ["attention.kernel_size changes nothing: it is an option of eca, cbam, triplet, and"],
        ),
    ],
)
def test_wrong_modules_and_options_of_timm_are_refused(change, messages):
    said = refusal(text=TIMM_SPACE.replace(*change))
    for message in messages:
        assert message in said


def test_options_of_a_module_in_a_mapping_are_checked():
    said = refusal(text=TIMM_MAPPING.replace("kernel_sizes: [3+5", "kernel_sizes: [3+4"))
    assert "timm:sk.kernel_sizes: '3+4' is no list of odd numbers from 3; allowed: two or" in said
    said = refusal(text=TIMM_MAPPING.replace("kernel_sizes", "kernels"))
    assert "timm:sk has no option 'kernels'. Did you mean 'kernel_sizes'?" in said
