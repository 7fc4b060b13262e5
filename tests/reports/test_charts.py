import re

import pytest

from reports import wording
from reports.charts import Axis, even_ticks, front_views, hidden_below, nice_step
from reports.figures import front_chart, marker, sparkline
from reports.findings import Findings
from reports.records import read_records


def findings(studies):
    return Findings(read_records(studies.url, "attention"))


def test_ticks_of_a_span_worked_out_by_hand():
    assert nice_step(10.0, 5) == 2.0
    assert even_ticks(0.3, 2.1, 4) == ([0.5, 1.0, 1.5, 2.0], 0.5)


def test_log_axis_puts_the_geometric_mean_in_the_middle():
    axis = Axis(1.0, 100.0, 0.0, 200.0, log=True)
    assert (axis(1), axis(10), axis(100), axis(1000)) == (0, 100, 200, 200)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (17_062_954, "17.06 M"),
        (269_434, "269.4 k"),
        (999, "999"),
        (1_500, "1.500 k"),
        (3e9, "3.000 G"),
    ],
)
def test_quantities(value, shown):
    assert wording.quantity(value).replace(wording.THIN, " ") == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(100, "±0 %"), (100.256, "+0.26 %"), (98.7, "−1.3 %"), (100.004, "+0.004 %"), (350, "+250 %")],
)
def test_changes(value, shown):
    assert wording.change(value, 100).replace(wording.THIN, " ") == shown


def test_every_metric_scale_and_size_has_a_view(small):
    views = front_views(findings(small))
    assert len(views) == 18
    for view in views.values():
        assert len(view.x_ticks) >= 2
        assert len({text for _, text, _ in view.x_ticks}) == len(view.x_ticks)
        assert len(view.y_ticks) >= 2


def test_labels_cover_neither_each_other_nor_front_points(small):
    found = findings(small)
    for name, view in front_views(found).items():
        boxes = [
            (
                x - {"start": 0, "end": 1, "middle": 0.5}[anchor] * 6.7 * len(text),
                y,
                6.7 * len(text),
            )
            for _, text, x, y, anchor in view.labels
        ]
        for index, (x, y, width) in enumerate(boxes):
            assert view.plot[0] <= x <= view.plot[2] - width, name
            for other_x, other_y, other_width in boxes[:index]:
                apart = x + width <= other_x or other_x + other_width <= x or abs(y - other_y) >= 15
                assert apart, name


def test_line_climbs_to_the_right(small):
    view = front_views(findings(small))["flops-linear-wide"]
    heights = [float(y) for y in re.findall(r"V([\d.]+)", view.line)]
    assert heights == sorted(heights, reverse=True)
    assert len(heights) == len(view.members) - 1


def test_far_outliers_below_do_not_flatten_the_chart(studies, make, more, complete):
    studies.add().trial(0, make(), more(0, 0), complete(350), baseline=True)
    for number in range(1, 12):
        studies.trial(
            number, make("se", reduction=number + 1), more(number, 90 * number), complete(351)
        )
    studies.trial(12, make("eca"), more(500, 2_000), complete(36))
    found = findings(studies)
    view = front_views(found)["flops-linear-wide"]
    assert view.y.low > 0.95
    assert hidden_below(found) == 1
    assert view.y(0.1) == view.plot[3]


def test_drawing_has_a_title_a_description_and_every_front_point(small):
    found = findings(small)
    drawing = front_chart(found, front_views(found)["flops-linear-wide"])
    assert drawing.startswith("<svg")
    assert 'role="img"' in drawing
    assert "<title" in drawing
    assert "<desc" in drawing
    assert drawing.count('class="strong') == len(found.records.front)
    assert "no attention" in drawing


def test_one_trial_alone_can_be_drawn(studies, make, more, complete):
    studies.add().trial(0, make(), more(0, 0), complete(360), baseline=True)
    found = findings(studies)
    assert "100" in front_chart(found, front_views(found)["params-log-narrow"])


def test_shapes_differ():
    assert len({marker(index, 5) for index in range(9)}) == 9


def test_sparkline_needs_two_epochs(small):
    curves = read_records(small.url, "attention").curves
    assert sparkline(curves[0][:1]) == ""
    assert "over 12 epochs" in sparkline(curves[0])
