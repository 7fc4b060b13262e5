import re

import pytest
from ruamel.yaml import YAML

from blocks import backbone, registry
from blocks.errors import SpaceError
from blocks.site import PLACEMENTS
from spaces.document import (
    CAPPED,
    KEEP_WEIGHTS,
    SAMPLERS,
    YamlRefusal,
    check_document,
    json_schema,
    original_path,
    read_yaml,
)
from spaces.metrics import OBJECTIVES
from spaces.recipes import RECIPES
from spaces.space import parse_space, shipped_spaces
from spaces.training import DECAYED, FLIPS, FREEZES, OPTIMIZERS, PRECISIONS, SCHEDULES

# Two lines that every space needs: what is added starts in line 3.
SPACE = "backbone: resnet20\nattention: {type: [none, se, eca]}\n"
HEAD = "backbone: resnet20\n"


def messages(text):
    """The lines of the refusal of a text."""
    with pytest.raises(SpaceError) as refusal:
        parse_space(text, source="s.yaml")
    lines = str(refusal.value).splitlines()
    if len(lines) > 1:
        assert lines[0] == f"s.yaml has {len(lines) - 1} problems"
        lines = [line.removeprefix("  ") for line in lines[1:]]
    return lines


# (what is wrong, text, line, words of the message): one problem each.
BAD = [
    # unknown keys
    ("top key", SPACE + "trainig: {epochs: 3}", 3, ["unknown key 'trainig'", "mean 'training'"]),
    ("far key", SPACE + "xyzzy: 3", 3, ["unknown key 'xyzzy'.", "Allowed: name, question"]),
    (
        "attention key",
        HEAD + "attention:\n  type: se\n  reducton: 4",
        4,
        ["attention: unknown key 'reducton'", "Did you mean 'reduction'?", "Allowed: type,"],
    ),
    (
        "training key",
        SPACE + "training:\n  epoch: 3",
        4,
        ["training: unknown key 'epoch'", "Did you mean 'epochs'?", "learning_rate"],
    ),
    ("study key", SPACE + "study:\n  trails: 3", 4, ["study: unknown key 'trails'", "'trials'"]),
    (
        "range key",
        SPACE + "training:\n  learning_rate:\n    low: 0.1\n    high: 1\n    logg: true",
        7,
        ["training.learning_rate: unknown key 'logg'", "'log'", "Allowed: low, high, log, default"],
    ),
    (
        "option of one block",
        HEAD + "attention:\n  type:\n    se:\n      reducton: 4",
        5,
        ["se has no option 'reducton'", "Did you mean 'reduction'?", "reduction, bias"],
    ),
    (
        "option of none",
        HEAD + "attention:\n  type:\n    se: {}\n    none: {reduction: 4}",
        5,
        ["none has no option 'reduction'"],
    ),
    # unknown names
    (
        "block",
        HEAD + "attention:\n  type:\n    - none\n    - see",
        5,
        ["attention.type, item 2", "unknown block 'see'", "mean 'se'?", "Blocks: none, se, eca"],
    ),
    ("one block", HEAD + "attention:\n  type: sea", 3, ["unknown block 'sea'", "'se'"]),
    (
        "block of a mapping",
        HEAD + "attention:\n  type:\n    none: {}\n    ecca: {}",
        5,
        ["attention.type.ecca: unknown block 'ecca'", "Did you mean 'eca'?"],
    ),
    (
        "backbone",
        "backbone: resnet21\nattention: {type: se}",
        1,
        ["unknown backbone 'resnet21'", "mean 'resnet20'?", "Backbones: resnet20, resnet20-b"],
    ),
    (
        "backbone of a list",
        "backbone:\n  - resnet20\n  - resnet55\nattention: {type: se}",
        3,
        ["backbone, item 2: unknown backbone 'resnet55'"],
    ),
    (
        "placement",
        HEAD + "attention:\n  type: se\n  placement:\n  - stem\n  - inblock",
        6,
        ["unknown placement 'inblock'", "mean 'in-block'?", "Allowed: stem, stage, in-block"],
    ),
    (
        "objective",
        SPACE + "objectives:\n  accuracy: max\n  flop: min",
        5,
        ["unknown objective 'flop'", "mean 'flops'?", "Allowed: accuracy, params, macs, flops"],
    ),
    (
        "latency in milliseconds",
        SPACE + "objectives:\n  accuracy: max\n  latency_ms: min",
        5,
        [
            "latency_ms is recorded and no objective",
            "different moments do not compare",
            "Optimise latency_ratio",
        ],
    ),
    (
        "throughput",
        SPACE + "objectives:\n  accuracy: max\n  throughput: max",
        5,
        ["throughput is recorded and no objective", "Optimise latency_ratio"],
    ),
    (
        "direction of latency",
        SPACE + "objectives:\n  accuracy: max\n  latency_ratio: max",
        5,
        ["objectives.latency_ratio is 'max'; lower is better, so write 'min'"],
    ),
    (
        "cap on latency",
        SPACE + "constraints:\n  latency_ms: 1.1",
        4,
        ["unknown cost 'latency_ms'", "Allowed: params, macs, flops, memory, latency_ratio"],
    ),
    (
        "misspelt accuracy",
        SPACE + "objectives:\n  acuracy: max\n  flops: min",
        4,
        ["unknown objective 'acuracy'", "Did you mean 'accuracy'?"],
    ),
    (
        "direction",
        SPACE + "objectives:\n  accuracy: maximum",
        4,
        ["objectives.accuracy is the text 'maximum'", "'max' or 'min' is needed"],
    ),
    ("cost", SPACE + "constraints:\n  param: 300k", 4, ["unknown cost 'param'", "'params'"]),
    (
        "cap on accuracy",
        SPACE + "constraints:\n  accuracy: 0.5",
        4,
        ["unknown cost 'accuracy'", "Allowed: params, macs, flops"],
    ),
    (
        "sampler",
        SPACE + "study:\n  sampler: nsga",
        4,
        ["unknown sampler 'nsga'", "mean 'nsga3'?", "Allowed: nsga2, tpe, random, grid"],
    ),
    ("study name", "name: a/b\n" + SPACE, 1, ["'a/b' is no name", "1 to 64 letters"]),
    (
        "frequency",
        HEAD + "attention:\n  type: fca\n  frequency: [top4, top3]",
        4,
        ["unknown frequency 'top3'", "'top32'", "'0,0+6,0'"],
    ),
    # wrong types and values
    (
        "learning rate",
        SPACE + "training:\n  learning_rate: small",
        4,
        ["learning_rate is the text 'small'; a number above 0, such as 0.01, is needed"],
    ),
    (
        "learning rate in a list",
        SPACE + "training:\n  learning_rate:\n  - 0.1\n  - 0",
        6,
        ["learning_rate, item 2 is the number 0; a number above 0"],
    ),
    ("infinite", SPACE + "training:\n  learning_rate: .inf", 4, ["number inf; a number above 0"]),
    ("not a number", SPACE + "training: {weight_decay: .nan}", 3, ["number nan; a number from 0"]),
    ("flag", SPACE + "training:\n  learning_rate: true", 4, ["is true; a number above 0"]),
    ("momentum", SPACE + "training:\n  momentum: 1", 4, ["number 1; a number from 0 to below 1"]),
    ("epochs", SPACE + "training:\n  epochs: 12.0", 4, ["epochs is the number 12.0; a whole"]),
    ("epochs 0", SPACE + "training:\n  epochs: 0", 4, ["the number 0; a whole number from 1"]),
    ("epochs list", SPACE + "training:\n  epochs: [2, 3]", 4, ["epochs is a list; a whole number"]),
    ("epochs range", SPACE + "training: {epochs: {low: 1, high: 2}}", 3, ["epochs is a mapping"]),
    ("batch size", SPACE + "training:\n  batch_size: 64.5", 4, ["a whole number from 1 is needed"]),
    ("trials", SPACE + "study:\n  trials: many", 4, ["study.trials is the text 'many'; a whole"]),
    (
        "seed",
        SPACE + "study:\n  seed: -1",
        4,
        ["study.seed is the number -1; a whole number"],
    ),
    ("data", SPACE + "study:\n  data: 3", 4, ["study.data is the number 3; text is needed"]),
    (
        "per_stage",
        HEAD + "attention:\n  type: se\n  per_stage: yes",  # text in YAML 1.2
        4,
        ["attention.per_stage is the text 'yes'; true or false is needed"],
    ),
    ("backbone number", "backbone: 20\nattention: {type: se}", 1, ["is the number 20; text"]),
    (
        "attention text",
        HEAD + "attention: se",
        2,
        ["attention is the text 'se'; a mapping"],
    ),
    ("training text", SPACE + "training: fast", 3, ["training is the text 'fast'; a mapping"]),
    ("objectives list", SPACE + "objectives: [accuracy]", 3, ["objectives is a list; a mapping"]),
    ("constraints list", SPACE + "constraints: [params]", 3, ["constraints is a list; a mapping"]),
    ("study list", SPACE + "study: [3]", 3, ["study is a list; a mapping of keys to values"]),
    ("question number", "question: 3\n" + SPACE, 1, ["question is the number 3; text is needed"]),
    (
        "reduction",
        HEAD + "attention:\n  type: se\n  reduction:\n  - 4\n  - big",
        6,
        ["se.reduction: 'big' is not a whole number from 1"],
    ),
    (
        "a block with options in a list",
        HEAD + "attention:\n  type: [none, {parallel: {combine: [sum]}}]",
        3,
        ["attention.type, item 2", "a block's name is needed", "type: {none: {}, parallel: {...}}"],
    ),
    (
        "reduction as range",
        HEAD + "attention:\n  type: se\n  reduction: {low: 4, high: 8}",
        4,
        ["attention.reduction is a mapping; a value or a list of values is needed"],
    ),
    (
        "option as number",
        HEAD + "attention:\n  type:\n    se: 4",
        4,
        ["attention.type.se is the number 4; a mapping"],
    ),
    (
        "no text",
        HEAD + "attention: {type: cbam, norm: no}",  # text in YAML 1.2
        2,
        ["cbam.norm: 'no' is neither true nor false"],
    ),
    (
        "pairs without quotes",
        HEAD + "attention:\n  type: fca\n  frequency: [0,0+6,0]",
        4,
        ["0 is given twice", "in quotes, '0,0+6,0'"],
    ),
    (
        "range end",
        SPACE + "training: {learning_rate: {low: x, high: 1}}",
        3,
        ["low is the text 'x'"],
    ),
    ("endless", SPACE + "training: {learning_rate: {low: 1, high: .inf}}", 3, ["a finite number"]),
    # missing and empty
    ("no attention", HEAD, 1, ["the file: key 'attention' is missing"]),
    ("no backbone", "attention: {type: se}", 1, ["the file: key 'backbone' is missing"]),
    ("no type", HEAD + "attention: {}", 2, ["attention: key 'type' is missing"]),
    ("no high", SPACE + "training: {learning_rate: {low: 1}}", 3, ["rate: key 'high' is missing"]),
    ("empty types", HEAD + "attention:\n  type: []", 3, ["attention.type is empty; give a value"]),
    (
        "empty mapping",
        HEAD + "attention:\n  type: {}",
        3,
        ["attention.type is empty; give a value"],
    ),
    (
        "empty option",
        HEAD + "attention: {type: se, reduction: []}",
        2,
        ["reduction is empty; give"],
    ),
    ("empty rates", SPACE + "training:\n  momentum: []", 4, ["training.momentum is empty; give"]),
    (
        "empty objectives",
        SPACE + "objectives: {}",
        3,
        ["objectives is empty; give a value"],
    ),
    ("nothing", SPACE + "training:", 3, ["training is empty; give a value, or leave it out"]),
    (
        "no backbone's name",
        "backbone:\nattention: {type: se}",
        1,
        ["backbone is empty; give a value"],
    ),
    ("empty block", HEAD + "attention:\n  type:\n    se:", 4, ["type.se is empty; write {} where"]),
    ("empty file", "", 1, ["the file is empty; start from `backbone:` and `attention:`"]),
    ("comments alone", "# soon\n\n", 1, ["the file is empty"]),
    ("list", "- a\n- b\n", 1, ["the file is a list, not a mapping of keys"]),
    ("word", "hello\n", 1, ["the file is the text 'hello', not a mapping"]),
    # no YAML, or more of it than settings need
    ("open bracket", HEAD + "attention: {type: [se\n", 3, ["not YAML", "starts in line 2"]),
    ("open quote", HEAD + "question: 'abc\n", 3, ["not YAML", "quoted", "starts in line 2"]),
    ("tab", HEAD + "attention:\n\ttype: se\n", 3, ["not YAML: a tab", "indent with spaces"]),
    (
        "colon in text",
        HEAD + "question: what: now",
        2,
        ["a ':' cannot stand here", "quotes"],
    ),
    ("at sign", HEAD + "question: @x", 2, ["not YAML", "'@'"]),
    ("control character", HEAD + "question: a\x07b", 2, ["not YAML", "#x0007"]),
    ("escaped character", HEAD + 'question: "a\\x1b[2J"', 2, ["control character U+001B"]),
    ("half a character", HEAD + 'question: "\\ud800"', 2, ["control character U+D800"]),
    ("YAML 1.1", "%YAML 1.1\n---\n" + SPACE, 2, ["another YAML version than 1.2 is refused"]),
    ("YAML 1.3", "%YAML 1.3\n---\n" + SPACE, 1, ["another YAML version than 1.2 is refused"]),
    ("duplicate key", SPACE + "backbone: resnet18", 3, ["key 'backbone' is given twice; keep one"]),
    (
        "inner duplicate",
        HEAD + "attention:\n  type: se\n  type: eca",
        4,
        ["key 'type' is given twice"],
    ),
    (
        "Python object",
        HEAD + "attention: !!python/object/apply:os.system ['true']",
        2,
        ["the tag !!python/object/apply:os.system is refused; write a plain value"],
    ),
    ("tag", SPACE + "question: !!str 5", 3, ["the tag !!str is refused"]),
    ("own tag", SPACE + "question: !mine 5", 3, ["the tag !mine is refused"]),
    ("anchor", SPACE + "training: &t {epochs: 3}", 3, ["anchors and aliases are refused"]),
    ("alias", SPACE + "question: *t", 3, ["anchors and aliases are refused; write the value out"]),
    ("merge", SPACE + "training:\n  <<: {epochs: 3}", 4, ["merge keys (<<) are refused"]),
    ("two documents", SPACE + "---\n" + SPACE, 3, ["a second document starts here"]),
    ("deep", SPACE + "question: " + "[" * 5000, 3, ["nested more than 12 deep"]),
    ("deep and closed", "a: " + "{a: " * 5000 + "1" + "}" * 5000, 1, ["nested more than 12 deep"]),
    ("deep in lines", "\n".join(" " * n + "a:" for n in range(300)), 13, ["more than 12 deep"]),
    ("number as key", SPACE + "3: 4", 3, ["the number 3 cannot be a key; a key is a word"]),
    ("list as key", SPACE + "? [a, b]\n: 3", 3, ["a list cannot be a key"]),
    ("no key", SPACE + "~: 3", 3, ["nothing cannot be a key"]),
    ("long number", SPACE + "study: {trials: 1" + "0" * 5000 + "}", 1, ["thousands of digits"]),
    ("huge number", SPACE + "training: {momentum: 1" + "0" * 400 + "}", 3, ["is the number 1000"]),
    # contradictions
    (
        "unused option",
        HEAD + "attention:\n  type: [none, eca]\n  reduction: [4]",
        4,
        [
            "attention.reduction changes nothing",
            "option of se, fca, cbam",
            "none, eca; take it out",
        ],
    ),
    (
        "option given twice",
        HEAD + "attention:\n  type:\n    se: {reduction: 4}\n  reduction: 8",
        4,
        ["se.reduction and attention.reduction are both given; keep one"],
    ),
    (
        "option that one block refuses",
        HEAD + "attention:\n  type: [eca, cbam]\n  kernel_size: [3, auto]",
        4,
        ["cbam.kernel_size: 'auto' is not an odd number"],
    ),
    (
        "low above high",
        SPACE + "training:\n  learning_rate: {low: 0.5, high: 0.1}",
        4,
        ["learning_rate: low is 0.5 and high 0.1; low must be below high"],
    ),
    (
        "low is high",
        SPACE + "training: {momentum: {low: 0.5, high: 0.5}}",
        3,
        ["must be below high"],
    ),
    (
        "log of nothing",
        SPACE + "training:\n  weight_decay: {low: 0, high: 0.1, log: true}",
        4,
        ["weight_decay: low is 0; with log: true it must be above 0"],
    ),
    (
        "default outside",
        SPACE + "training:\n  learning_rate:\n    low: 0.1\n    high: 0.5\n    default: 0.6",
        7,
        ["learning_rate: default is 0.6, outside 0.1 to 0.5"],
    ),
    (
        "default between whole numbers",
        SPACE + "training:\n  batch_size: {low: 16, high: 64, default: 20.5}",
        4,
        ["batch_size: default is 20.5, but 16 to 64 are whole numbers"],
    ),
    ("rate of 0", SPACE + "training: {learning_rate: {low: 0, high: 1}}", 3, ["low is 0; it must"]),
    ("momentum of 1", SPACE + "training: {momentum: {low: 0.5, high: 1}}", 3, ["0 to below 1"]),
    (
        "rate of attention",
        SPACE + "training:\n  attention_learning_rate: 0",
        4,
        ["attention_learning_rate is the number 0; a number above 0"],
    ),
    (
        "range of rates of attention",
        SPACE + "training: {attention_learning_rate: {low: 0, high: 1}}",
        3,
        ["attention_learning_rate: low is 0; it must be above 0"],
    ),
    (
        "freeze",
        SPACE + "training:\n  pretrained: true\n  freeze: backbones",
        5,
        ["unknown freeze 'backbones'. Did you mean 'backbone'? Allowed: none, norms, backbone"],
    ),
    (
        "freeze of drawn weights",
        SPACE + "training:\n  freeze: [none, backbone]\n  epochs: 3",
        4,
        ["training.freeze: 'backbone' would keep drawn weights", "training.pretrained: true"],
    ),
    (
        "freeze of weights that may be drawn",
        SPACE + "training: {pretrained: [true, false], freeze: norms}",
        3,
        ["training.freeze: 'norms' would keep drawn weights", "without false"],
    ),
    (
        "pretrained",
        SPACE + "training:\n  pretrained: 3",
        4,
        ["pretrained is the number 3; true, false, a tag of timm's or the path of a checkpoint"],
    ),
    (
        "pretrained is no tag",
        SPACE + "training:\n  pretrained:\n  - true\n  - a1-in1k",
        6,
        ["'a1-in1k' is neither a tag of timm's, such as a1_in1k, nor a file"],
    ),
    ("negative decay", SPACE + "training: {weight_decay: {low: -1, high: 1}}", 3, ["0 or above"]),
    ("half batches", SPACE + "training: {batch_size: {low: 1.5, high: 8}}", 3, ["whole numbers"]),
    (
        "worst accuracy",
        SPACE + "objectives: {accuracy: min}",
        3,
        ["objectives.accuracy is 'min'; higher is better, so write 'max'"],
    ),
    (
        "most operations",
        SPACE + "objectives:\n  accuracy: max\n  flops: max",
        5,
        ["objectives.flops is 'max'; lower is better, so write 'min'"],
    ),
    ("no accuracy", SPACE + "objectives: {flops: min}", 3, ["'accuracy: max' must be one of them"]),
    ("block twice", HEAD + "attention:\n  type: [se, eca, se]", 3, ["'se' is given twice"]),
    (
        "reduction twice",
        HEAD + "attention: {type: se, reduction: [4, 8, 4]}",
        2,
        ["4 is given twice"],
    ),
    ("rate twice", SPACE + "training:\n  learning_rate: [1, 1.0]", 4, ["1.0 is given twice"]),
    ("backbone twice", "backbone: [resnet20, resnet20]\nattention: {type: se}", 1, ["given twice"]),
    (
        "frequency twice",
        HEAD + "attention:\n  type: fca\n  frequency:\n  - '0,0+6,0'\n  - '6,0+0,0'",
        6,
        ["fca.frequency: '6,0+0,0' repeats '0,0+6,0'; give every choice once"],
    ),
    (
        "frequency among singles",
        HEAD + "attention:\n  type: {fca: {frequency: [singles, '3,3']}}",
        3,
        ["fca.frequency: '3,3' repeats 'singles'"],
    ),
    (
        "pair twice",
        HEAD + "attention: {type: fca, frequency: '3,3+3,3'}",
        2,
        ["names a pair twice; give every pair once"],
    ),
]
JARGON = re.compile(
    r"Traceback|value_error|union|tagged|discriminator|dictionary|instance of|pydantic|validation"
    r"|Section\b|ordereddict|input should|Value error|NoneType|(?<!!)\bstr\b|\bint\b|valid string",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    ("text", "line", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_a_bad_file_is_refused_with_its_line_and_the_cure(text, line, words):
    (message,) = messages(text)
    assert message.startswith(f"s.yaml:{line}: ")
    for word in words:
        assert word in message
    assert not JARGON.search(message)
    assert "\t" not in message
    assert message.isprintable()


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_where_it_becomes_too_deep(opening, monkeypatch):
    # The parser alone takes seconds for 3,000 brackets and then ends in a RecursionError.
    events = []
    parse = YAML.parse

    def counted(reader, stream):
        for event in parse(reader, stream):
            events.append(event)
            yield event

    monkeypatch.setattr(YAML, "parse", counted)
    with pytest.raises(YamlRefusal, match="nested more than 12 deep"):
        read_yaml(opening * 5000)
    assert 13 < len(events) < 50


def test_as_deep_as_allowed():
    assert read_yaml("a: " + "[" * 11 + "]" * 11).data  # 12 with the mapping around
    with pytest.raises(YamlRefusal):
        read_yaml("a: " + "[" * 12 + "]" * 12)


def test_mistakes_of_all_kinds_come_together_in_order_of_their_lines():
    lines = messages(
        "backbone: resnet21\n"
        "attention:\n"
        "  type: [none, see]\n"
        "  reducton: 4\n"
        "training:\n"
        "  epochs: 0\n"
        "  epoch: 3\n"
        "  momentum: {low: 0.9, high: 0.5}\n"
        "objectives: {accuracy: min}\n"
        "constraints:\n"
        "  param: 3\n"
        "study: {sampler: x}\n"
    )
    assert [line.split(":")[1] for line in lines] == [*"1346789", "11", "12"]
    for line, word in zip(
        lines,
        ["resnet21", "see", "reducton", "0", "epoch", "momentum", "accuracy", "param", "'x'"],
        strict=True,
    ):
        assert word in line


def test_all_mistakes_within_attention_come_together():
    lines = messages(HEAD + "attention:\n  reducton: 4\n  reduction: big\n  placement: x\n")
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4", "5"]


def test_both_missing_keys_are_named():
    lines = messages("question: what?\n")
    assert [line.split(": ")[2] for line in lines] == [
        "key 'backbone' is missing",
        "key 'attention' is missing",
    ]
    assert len(messages(SPACE + "training: {learning_rate: {}}")) == 2


def test_a_misspelt_block_makes_no_other_mistake():
    # Without the misspelt se no block squeezes: that is not said.
    (line,) = messages(HEAD + "attention:\n  type: [none, see]\n  reduction: [4, 8]\n")
    assert "unknown block 'see'" in line


def test_lines_stay_right_after_a_spoilt_item():
    # Later checks see the list without its first item.
    text = (
        HEAD + "attention:\n  type: fca\n  frequency:\n  - [0, 0]\n  - top4\n  - top3\n  - top9\n"
    )
    lines = messages(text)
    assert [line.split(":")[1] for line in lines] == ["5", "7", "8"]
    assert "top3" in lines[1]
    assert "top9" in lines[2]


def test_items_are_named_by_where_they_stand_in_the_file():
    data = {"backbone": [3, "resnet20", "resnet18", None], "attention": {"type": "se"}}
    document, problems, rest = check_document(data)
    assert [problem.path for problem in problems] == [("backbone", 0), ("backbone", 3)]
    assert document.backbone == ["resnet20", "resnet18"]
    assert original_path(("backbone", 1), rest) == ("backbone", 2)
    assert original_path(("attention", "type"), rest) == ("attention", "type")


def test_text_is_read_as_yaml_1_2():
    text = (
        "a: 1e-5\nb: no\nc: yes\nd: 5e5\ne: 0x10\nf: 1:30\ng: true\nh: ~\ni: 010\nj: 2020-01-01\n"
    )
    assert read_yaml(text).data == {
        "a": 1e-5,
        "b": "no",
        "c": "yes",
        "d": 500_000.0,
        "e": 16,
        "f": "1:30",
        "g": True,
        "h": None,
        "i": 10,
        "j": "2020-01-01",
    }


def test_data_are_plain_types():
    def kinds(node):
        yield type(node)
        if isinstance(node, (dict, list)):
            for child in node.values() if isinstance(node, dict) else node:
                yield from kinds(child)

    data = read_yaml("a: [1, 0.5, 'x', true, ~]\nb: {c: 0x1F, d: 1_000}\ne: |\n  f\n").data
    assert set(kinds(data)) <= {dict, list, int, float, str, bool, type(None)}


def test_every_key_and_item_has_its_line():
    yaml = read_yaml("# comment\na: 1\nb:\n  c:\n  - x\n  - {d: 1,\n     e: 2}\n")
    assert yaml.lines == {
        ("a",): 2,
        ("b",): 3,
        ("b", "c"): 4,
        ("b", "c", 0): 5,
        ("b", "c", 1): 6,
        ("b", "c", 1, "d"): 6,
        ("b", "c", 1, "e"): 7,
    }
    assert yaml.line(("b", "c", 1, "missing")) == 6
    assert yaml.line(("b", "missing")) == 3
    assert yaml.line(()) == 1


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_line_endings_do_not_matter(ending):
    text = "backbone: resnet20\n\nattention:\n  type: [se, x]\n".replace("\n", ending)
    assert messages(text)[0].startswith("s.yaml:4: attention.type, item 2: unknown block 'x'")


def test_texts_of_all_languages():
    question = "哪种注意力？ Où ? 🙂"
    space = parse_space(f"question: {question}\n{SPACE}")
    assert space.question == question
    assert "unknown key 'größe'" in messages(SPACE + "größe: 3")[0]


def test_lines_of_a_long_text_are_kept():
    assert parse_space("question: |\n  One?\n  Two?\n" + SPACE).question == "One?\nTwo?\n"


# The schema, from outside. ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_names_its_draft():
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", shipped_spaces())
def test_the_schema_accepts_shipped_spaces(validator, name):
    data = read_yaml(shipped_spaces()[name].read_text(encoding="utf-8")).data
    assert [error.message for error in validator.iter_errors(data)] == []


GOOD = [
    SPACE,
    HEAD + "attention: {type: {se: {reduction: [4, 8]}, eca: {kernel_size: [auto, 3]}, none: {}}}",
    HEAD + "attention: {type: cbam, norm: [true, false], kernel_size: 7}",
    HEAD + "attention: {type: simam, energy_lambda: [1e-4, 0.1]}",
    SPACE + "training: {learning_rate: {low: 0.01, high: 1, log: true, default: 0.1}}",
    SPACE + "training: {batch_size: [32, 64], momentum: 0, weight_decay: {low: 0, high: 0.1}}",
    SPACE + "training: {pretrained: [true, a1_in1k, ./w.pth], freeze: [none, backbone]}",
    SPACE + "training: {pretrained: false, attention_learning_rate: {low: 1, high: 10, log: true}}",
    SPACE + "constraints: {params: 1.05x baseline, macs: 1.2M, flops: 5e5}",
    SPACE + "constraints: {params: 300k, macs: 300000, flops: 2 x baseline}",
    "name: mine\nquestion: Which?\n" + SPACE + "study: {trials: 3, sampler: grid, seeds: 2}",
    SPACE + "study: {sampler: optuna.samplers.TPESampler, max_seeds: 3}",
    SPACE + "study: {enqueue: [{type: se, reduction: 16}, {type: none}]}",
]


@pytest.mark.parametrize("text", GOOD)
def test_the_schema_accepts_what_the_reader_accepts(validator, text):
    parse_space(text)
    assert [error.message for error in validator.iter_errors(read_yaml(text).data)] == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (SPACE + "trainig: {}", "$"),
        (HEAD, "$"),
        (HEAD + "attention: {type: [none, see]}", "$.attention.type"),
        (HEAD + "attention: {type: {see: {}}}", "$.attention.type"),
        (HEAD + "attention: {type: se, reduction: {low: 4, high: 8}}", "$.attention.reduction"),
        ("backbone: 18\nattention: {type: se}", "$.backbone"),
        (SPACE + "training: {epochs: 0}", "$.training.epochs"),
        (SPACE + "training: {learning_rate: 0}", "$.training.learning_rate"),
        (SPACE + "training: {learning_rate: {low: 1}}", "$.training.learning_rate"),
        (SPACE + "training: {momentum: []}", "$.training.momentum"),
        (SPACE + "training: {pretrained: 3}", "$.training.pretrained"),
        (SPACE + "training: {pretrained: true, freeze: all}", "$.training.freeze"),
        (SPACE + "objectives: {speed: max}", "$.objectives"),
        (SPACE + "objectives: {flops: least}", "$.objectives.flops"),
        (SPACE + "constraints: {params: lots}", "$.constraints.params"),
        (SPACE + "constraints: {params: 0}", "$.constraints.params"),
        (SPACE + "constraints: {params: true}", "$.constraints.params"),
        (SPACE + "constraints: {accuracy: 3}", "$.constraints"),
        (SPACE + "study: {sampler: nsga}", "$.study.sampler"),
        (SPACE + "study: {sampler: mine.samplers.Own}", "$.study.sampler"),
        (SPACE + "study: {enqueue: [{type: [se, eca]}]}", "$.study.enqueue"),
        (SPACE + "study: {seed: -1}", "$.study.seed"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(validator, text, where):
    messages(text)
    found = {error.json_path for error in validator.iter_errors(read_yaml(text).data)}
    assert found == {where}


def enumerations(node):
    """All enumerations in a schema, as sets of tuples."""
    found = set()
    if isinstance(node, dict):
        if isinstance(node.get("enum"), list):
            found.add(tuple(node["enum"]))
        node = list(node.values())
    if isinstance(node, list):
        found = found.union(*map(enumerations, node))
    return found


def test_enumerations_are_the_tables_names():
    schema = json_schema()
    sections = schema["$defs"]
    attention = sections["AttentionSection"]["properties"]
    assert enumerations(attention["type"]) == {(*registry.names(), *registry.adapted_names())}
    assert enumerations(attention["placement"]) == {PLACEMENTS}
    assert enumerations(schema["properties"]["backbone"]) == {backbone.names()}
    assert enumerations(schema["properties"]["objectives"]) == {OBJECTIVES, ("max", "min")}
    assert enumerations(schema["properties"]["constraints"]) == {CAPPED}
    assert enumerations(sections["StudySection"]) == {SAMPLERS, KEEP_WEIGHTS}
    assert enumerations(sections["TrainingSection"]) == {
        *(FREEZES, FLIPS, DECAYED, PRECISIONS, SCHEDULES),
        *(tuple(OPTIMIZERS), tuple(RECIPES)),
    }


def test_a_block_that_joins_later_is_in_the_schema(monkeypatch):
    monkeypatch.setitem(registry._BLOCKS, "mine", registry.spec("se"))
    attention = json_schema()["$defs"]["AttentionSection"]["properties"]
    assert "mine" in next(iter(enumerations(attention["type"])))
    assert parse_space(HEAD + "attention: {type: mine}").attention.blocks.values == ("mine",)


def test_patterns_are_those_of_editors_too():
    # ECMAScript has no (?P<name>...).
    assert "?P<" not in str(json_schema())
