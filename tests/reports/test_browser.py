"""The page in a real browser: its script runs under its own policy and says nothing."""

import re
import shutil
import subprocess

import pytest

from reports.page import write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed"),
]


def opened(path, profile):
    """The page's document after its script has run, and what the console said."""
    run = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *("--virtual-time-budget=3000", "--window-size=1280,900", f"--user-data-dir={profile}"),
            *("--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def test_script_runs_without_a_word(small, tmp_path):
    path = write_report("attention", storage=small.url, output=tmp_path / "r.html")
    document, console = opened(path, tmp_path / "profile")
    assert console == []
    assert '<html lang="en" class="js">' in document
    body = re.search(r'<tbody id="trial-body">(.*?)</tbody>', document, re.S)[1]
    assert body.count("data-row=") == 9
    assert document.count('class="hit"') == 5
    assert 'aria-sort="descending"' in document
    assert "failed 1</button>" in document
    assert 'aria-label="se stage1 r=4, trial 2: accuracy 98.6' in document


def test_script_and_server_write_numbers_alike(small, tmp_path):
    path = write_report("attention", storage=small.url, output=tmp_path / "r.html")
    document, _ = opened(path, tmp_path / "profile")
    before, after = (numbers(text) for text in (path.read_text(encoding="utf-8"), document))
    assert len(before) == 9
    assert before == after


def test_latency_is_written_alike_and_can_be_the_axis(timed, tmp_path):
    path = write_report("attention", storage=timed.url, output=tmp_path / "r.html")
    before = path.read_text(encoding="utf-8")
    document, console = opened(path, tmp_path / "profile")
    assert console == []
    assert cells(before) == cells(document) != []
    assert '<span class="tag">busy</span>' in document
    assert "trial 2: accuracy 98.6" in document
    assert ", latency 1.125×" in document


def cells(document):
    body = re.search(r'<tbody id="trial-body">(.*?)</tbody>', document, re.S)[1]
    return re.findall(r'<td class="num" title="([^"]*)">([^<]*)', body)


def numbers(document):
    body = re.search(r'<tbody id="trial-body">(.*?)</tbody>', document, re.S)[1]
    rows = re.findall(r"<tr.*?</tr>", body, re.S)
    return [re.findall(r'<td class="num[^"]*">([^<]*)</td>', row) for row in rows]


def test_hostile_labels_run_nothing(studies, make, more, complete, tmp_path):
    evil = "</script><img src=x onerror=console.error(1)>"
    studies.add().trial(0, make("se", label=evil), more(9, 9), complete(350))
    path = write_report("attention", storage=studies.url, output=tmp_path / "r.html")
    document, console = opened(path, tmp_path / "profile")
    assert console == []
    assert "<img" not in document


@pytest.mark.parametrize("finished", [False, True])
def test_pages_without_results_are_quiet_too(studies, make, more, failed, tmp_path, finished):
    studies.add()
    if finished:
        studies.trial(0, make(), more(0, 0), failed(), baseline=True)
    path = write_report("attention", storage=studies.url, output=tmp_path / "r.html")
    document, console = opened(path, tmp_path / "profile")
    assert console == []
    assert 'class="js"' in document
