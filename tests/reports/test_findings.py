import math

import moocore
import numpy as np
import pytest

from reports.findings import Findings, standard_error
from reports.records import read_records
from reports.wording import THIN


def findings(studies, name="attention"):
    return Findings(read_records(studies.url, name))


def said(sentences):
    parts = [
        part.text for sentence in sentences for part in [*sentence, sentence[0]._replace(text=" ")]
    ]
    return "".join(parts).replace(THIN, " ")


def test_standard_error_of_half_of_a_hundred():
    assert standard_error(0.5, 100) == 0.05


def test_standard_error_is_not_zero_when_all_are_right():
    assert standard_error(1.0, 360) == standard_error(359 / 360, 360) > 0


def test_verdict_names_the_best_and_the_cheapest_within_one_error(small):
    # 355 of 360 right: the error is sqrt(.98611 * .01389 / 360) = 0.617 points, 2.2 images; so
    # 353 is within it and 352 is not. Of 355, 354 and 353, trial 3 has the fewest FLOPs.
    text = said(findings(small).verdict())
    assert (
        "5 of 7 complete trials are on the Pareto front of accuracy, FLOPs and parameters" in text
    )
    assert (
        "The most accurate is se stage1 r=4 (trial 2): 98.6 % of the validation images right"
        in text
    )
    assert "1.4 points above no attention, for 0.08 % more FLOPs and 1.0 % more parameters" in text
    assert (
        "Within one standard error of it (0.6 points), the cheapest is eca stem (trial 3)" in text
    )


def test_one_seed_is_warned_of_with_its_reach(small):
    found = findings(small)
    reach = 1.96 * math.sqrt(2) * standard_error(355 / 360, 360)
    assert found.chance == pytest.approx(reach)
    text = said([found.caution()])
    assert f"differences under about {100 * reach:.1f} points cannot be told from chance" in text
    assert "The lead of 1.4 points over no attention is among them." in text
    assert "significan" not in said(found.verdict()) + text


def test_front_and_staircase_are_moocores(small):
    found = findings(small)
    trials = found.records.successes
    points = np.array([[t.accuracy, t.flops, t.params] for t in trials])
    kept = moocore.is_nondominated(points, maximise=[True, False, False], keep_weakly=True)
    assert found.records.front == {t.number for t, keep in zip(trials, kept, strict=True) if keep}
    kept = moocore.is_nondominated(points[:, :2], maximise=[True, False], keep_weakly=True)
    assert {t.number for t in found.staircase("flops")} == {
        t.number for t, keep in zip(trials, kept, strict=True) if keep
    }


def test_no_block_above_no_attention_is_said(studies, make, more, complete):
    studies.add().trial(0, make(), more(0, 0), complete(355), baseline=True)
    studies.trial(1, make("eca"), more(9, 9), complete(350))
    assert "No block beat no attention" in said(findings(studies).verdict())


def test_no_attention_within_one_error_is_said(studies, make, more, complete):
    studies.add().trial(0, make(), more(0, 0), complete(354), baseline=True)
    studies.trial(1, make("eca"), more(9, 9), complete(355))
    assert "do not show that attention helps" in said(findings(studies).verdict())


def test_replicates_are_compared_by_their_means(studies, make, more, complete):
    studies.add(seeds=2)
    for number, (block, seed, right) in enumerate(
        [("none", 0, 350), ("none", 1, 352), ("se", 0, 352), ("se", 1, 356), ("eca", 0, 359)]
    ):
        studies.trial(
            number,
            make(block),
            more(0 if block == "none" else 900, 9),
            complete(right),
            seed=seed,
            baseline=block == "none",
        )
    found = findings(studies)
    assert found.best.first.label == "se stage1"
    assert found.best.accuracy == pytest.approx(354 / 360)
    assert found.records.baselines["resnet20"].accuracy == pytest.approx(351 / 360)
    assert "on average over 2 seeds" in said(found.verdict())
    assert "1 to 2 seeds per candidate" in said([found.caution()])


def test_only_failures_are_said(studies, make, more, failed):
    studies.add().trial(0, make(), more(0, 0), failed(), baseline=True)
    text = said(findings(studies).verdict())
    assert text.startswith("No trial has a final accuracy: 1 trial failed.")
    assert findings(studies).caution() is None


def test_nothing_yet_and_nothing_finished(studies, make, more):
    studies.add(status="running")
    assert "no trials yet" in said(findings(studies).verdict())
    studies.trial(0, make(), more(0, 0), baseline=True, running=True)
    assert "No trial has finished yet; 1 trial to come." in said(findings(studies).verdict())


def test_no_images_known_no_reach_claimed(studies, make, more, complete):
    studies.add(data={"name": "mine"}).trial(0, make("se"), more(9, 9), complete(350))
    found = findings(studies)
    assert found.chance is None
    assert "is not known here" in said([found.caution()])
