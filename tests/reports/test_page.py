import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from blocks.errors import StudyError
from reports.page import write_report

EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def report(small):
    return text_of(small)


def text_of(studies, study="attention"):
    path = write_report(study, storage=studies.url, output=Path(studies.folder) / "r.html")
    return path.read_text(encoding="utf-8")


def data_of(text):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    )


class Tags(HTMLParser):
    """All tags with their attributes, and the visible text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.words, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        self.inside = self.inside[: len(self.inside) - 1 - self.inside[::-1].index(tag)]

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside):
            self.words.append(data)


def words_of(text):
    words = " ".join("".join(Tags(text.replace("</t", " </t")).words).split())
    return words.replace("\u202f", " ")


def test_default_place_is_the_current_folder(small, monkeypatch, tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert write_report("attention", storage=small.url) == Path("attention-report.html")
    assert [p.name for p in folder.iterdir()] == ["attention-report.html"]


def test_numbers_are_those_of_the_records(report, small):
    rows = data_of(report)["rows"]
    trials = {t.number: t for t in small.trials()}
    assert sorted(rows["number"]) == sorted(trials)
    for index, number in enumerate(rows["number"]):
        trial = trials[number]
        for key in ("flops", "macs", "params", "label", "digest", "seed", "epochs"):
            assert rows[key][index] == getattr(trial, key)
        assert rows["accuracy"][index] == pytest.approx(trial.accuracy, abs=1e-6)
    front = {n for n, flag in zip(rows["number"], rows["front"], strict=True) if flag}
    assert front == {0, 1, 2, 3, 4}
    assert rows["accuracy"][:3] == sorted(rows["accuracy"][:3], reverse=True)


def test_says_what_must_always_be_said(report):
    words = words_of(report)
    for sentence in (
        "6 complete, 1 reused, 1 failed, 1 diverged, 1 rejected",
        "98.6 %",
        "One seed each",
        "repeated 2 was in the study already",
        "parameters up to 1.05x baseline",
        "RuntimeError: out of memory",
        "1,077 images to train, 360 for validation, 360 for test",
        "Test accuracy was measured once",
        "all floating-point operations for one image",
        "Some CPU",
        "Which attention block, where, and how strong?",
    ):
        assert sentence in words, sentence


def test_hostile_texts_are_only_ever_text(studies, make, more, complete, failed):
    studies.add(space=f"question: {json.dumps(EVIL)}\n" + SPACE_WITHOUT_QUESTION)
    studies.trial(0, make(label=EVIL), more(0, 0), complete(350), baseline=True)
    studies.trial(1, make("se", label=EVIL), more(9, 9), complete(352), parameters={EVIL: EVIL})
    studies.trial(2, make("eca"), more(9, 9), failed(EVIL), provenance={EVIL: EVIL})
    studies.propose(3, "impossible", EVIL)
    studies.store.update_study(studies.ids["attention"], note=EVIL)
    text = text_of(studies)
    hostile = Tags(text)
    assert EVIL not in text
    assert "<script>alert" not in text
    assert "<img" not in text
    assert [t for t, _ in hostile.found if t == "script"] == ["script", "script"]
    assert EVIL in data_of(text)["rows"]["label"]


SPACE_WITHOUT_QUESTION = """\
backbone: resnet20
attention: {type: [none, se, eca], placement: [stem, stage]}
training: {epochs: 12}
objectives: {accuracy: max, flops: min}
"""


def test_nothing_is_loaded_from_outside(report):
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(https?:)?//[^"'> ]+|url\(|@import""", report)
    for tag, attributes in Tags(report).found:
        assert tag not in ("link", "img", "iframe", "object", "embed", "form", "base")
        assert not {"src", "style", "srcset", "action"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#").startswith("#")
    assert "innerHTML" not in report
    assert "eval(" not in report


def test_policy_allows_the_pages_own_script_and_style_alone(report):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', report)[1].replace(
        "&#39;", "'"
    )
    (script,) = re.findall(r"<script>(.*?)</script>", report, re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", report, re.S)
    for kind, content in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_same_database_gives_the_same_bytes(small):
    first = text_of(small).encode()
    command = (
        "import sys; from reports.page import write_report;"
        " write_report('attention', storage=sys.argv[1], output=sys.argv[2])"
    )
    other = Path(small.folder) / "other.html"
    subprocess.run(
        [sys.executable, "-c", command, small.url, str(other)],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"},
    )
    assert other.read_bytes() == first


def test_an_older_report_is_replaced_and_nothing_left_beside(small, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "r.html"
    write_report("attention", storage=small.url, output=target)
    before = target.read_bytes()
    write_report("first", storage=small.url, output=target)
    assert target.read_bytes() != before
    assert os.listdir(folder) == ["r.html"]


def test_a_strangers_file_is_left_alone(small, tmp_path):
    target = tmp_path / "index.html"
    target.write_text("<html>my page</html>")
    with pytest.raises(StudyError, match=r"is no report of this tool.*--output"):
        write_report("attention", storage=small.url, output=target)
    assert target.read_text() == "<html>my page</html>"


def test_places_that_are_none_are_refused_with_the_cure(small, tmp_path):
    with pytest.raises(StudyError, match=r"there is no folder .*nowhere.*--output"):
        write_report("attention", storage=small.url, output=tmp_path / "nowhere" / "r.html")
    with pytest.raises(StudyError, match="is a folder; name a file"):
        write_report("attention", storage=small.url, output=tmp_path)


def test_a_name_from_elsewhere_cannot_leave_the_folder(studies, monkeypatch, tmp_path):
    folder = tmp_path / "deep" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    studies.add("../../x")
    assert write_report("../../x", storage=studies.url) == Path("x-report.html")


def test_empty_and_unfinished_studies_say_so(studies, make, more):
    studies.add(status="running")
    words = words_of(text_of(studies))
    assert "This study has no trials yet" in words
    assert "This study has not ended: 0 of 9 trials are finished" in words
    studies.trial(0, make(), more(0, 0), baseline=True, running=True)
    assert "No trial has finished yet" in words_of(text_of(studies))


def test_mixed_hardware_is_warned_of(studies, make, more, complete):
    studies.add().trial(0, make(), more(0, 0), complete(350), provenance={"device": "cpu"})
    studies.trial(1, make("se"), more(9, 9), complete(351), provenance={"device": "cuda:0"})
    words = words_of(text_of(studies))
    assert "The trials were not all made alike: device differs between them" in words


@pytest.mark.slow
def test_ten_thousand_trials_fit_into_three_megabytes(studies, fill):
    fill(studies, 10_000)
    text = text_of(studies)
    assert len(text.encode()) < 3_000_000
    data = data_of(text)
    assert len(data["rows"]["number"]) == 10_000
    assert len(data["curves"]) <= 400
    assert text.count('<td class="num test">') <= 100 + 200


def test_importing_the_page_loads_no_torch():
    command = "import sys, reports.page, reports.frame; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", command],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
