import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from reports.insight import IMAGES_AT_MOST, TRIALS_AT_MOST
from reports.insight_figures import Line, heat_colours, map_picture, overlaid, specificity_chart
from reports.page import write_report
from search.insight.store import Insight, write_insights


def cams(images=2, wrong=(), seed=0, **more):
    """Made-up Grad-CAM of an image size of 14 x 14."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "image": 10 + row,
            "true": row % 10,
            "predicted": (row + (row in wrong)) % 10,
            "probability": 0.75,
            "true_probability": 0.25,
            "evidence": {"true": True, "predicted": True},
        }
        for row in range(images)
    ]
    pictures = random.integers(0, 256, (images, 1, 14, 14), dtype=np.uint8)
    maps = random.random((images, 4, 4)).astype(np.float16)
    content = {"site": "stage3", "split": "validation", "images": rows, "notes": [], **more}
    return Insight(content, {"pictures": pictures, "true": maps, "predicted": maps})


def stage(number, specificity):
    return {
        "stage": number,
        "sites": 3,
        "gain": 0.5,
        "between_channels": 0.125,
        "across_images": 0.0625,
        "specificity": specificity,
    }


GATES = Insight(
    {
        "images": 360,
        "by_chance": 0.025,
        "sites": [],
        "stages": [stage(0, None), stage(1, 0.2), stage(3, 0.8)],
    }
)
FREQUENCY = Insight(
    {
        "sites": [
            {
                "site": "stage2",
                "stage": 2,
                "size": [4, 4],
                "distinct": 16,
                "groups": [
                    {"u": u, "v": 0, "share": 0.05 * u, "mean_share": 0.3, "energy": 0.125}
                    for u in range(8)
                ],
                "spectrum": [],
            }
        ]
    }
)
HEAD = {"entropy": 1.0, "relative_entropy": 0.5, "distance": 2.0, "relative_distance": 0.25}
MAPS = Insight(
    {
        "images": 2,
        "sites": [
            {
                "site": "stage1",
                "stage": 1,
                "block": "mha",
                "size": [14, 14],
                "uniform_distance": 7.25,
                "gamma": None,
                "heads": [HEAD, HEAD | {"relative_entropy": 0.75, "relative_distance": None}],
            }
        ],
    },
    {
        "stage1.centre": np.zeros((2, 2, 7, 7), dtype=np.uint8),
        "stage1.received": np.zeros((2, 2, 7, 7), dtype=np.uint8),
    },
)


@pytest.fixture
def explained(small):
    """The small study, of which three trials were looked at."""
    keys = {trial.number: trial.id for trial in small.trials()}
    engine = small.store.engine
    write_insights(engine, keys[0], {"gradcam": cams(notes=["no attention is inserted: ..."])})
    write_insights(
        engine, keys[1], {"gradcam": cams(wrong=[1], notes=["<b>unseen</b>"]), "gates": GATES}
    )
    write_insights(
        engine,
        keys[2],
        {"gradcam": cams(), "gates": GATES, "frequency": FREQUENCY, "maps": MAPS},
    )
    return small


def section(studies):
    path = write_report("attention", storage=studies.url, output=studies.folder / "r.html")
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<section id="insight".*?</section>', text, re.S)
    return found[0] if found else None


def words(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).replace("\u202f", " ").split())


def test_a_study_that_nobody_looked_at_has_no_section(small):
    assert section(small) is None


def test_says_all_that_was_seen(explained):
    text = words(section(explained))
    for sentence in (
        "Seen in 3 trained networks",
        "image 11, class 1",
        "1 (75 %)",
        "2 (75 %) wrong",
        "stage 3 3 0.500 0.125 0.063 0.800",
        "stem 3 0.500 0.125 0.063 –",
        "by chance (0.025)",
        "7,0 35.0 % ; 6,0 30.0 %",
        "2 more",
        "2 – 0.500 to 0.750 2.00 0.250 7.25",
        "Trial 1: &lt;b&gt;unseen&lt;/b&gt;.",
    ):
        assert sentence in text, sentence
    assert "Trial 0: no attention" not in text


def test_pictures_are_pngs_in_the_page(explained):
    html = section(explained)
    pictures = re.findall(r'<img [^>]*src="data:image/png;base64,([^"]+)"', html)
    assert len(pictures) == 2 * (1 + 3) + 2  # images x (themselves and trials), and heads
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert image.format == "PNG"
            assert max(image.size) <= 64
    assert html.count('alt=""') == len(pictures)
    assert "style=" not in html


def test_trials_that_saw_other_images_do_not_stand_beside(explained):
    trial = explained.trials()[3]
    other = cams(images=2)
    for row in other.content["images"]:
        row["image"] += 50
    write_insights(explained.store.engine, trial.id, {"gradcam": other})
    html = section(explained)
    assert "image 60" in html
    assert "image 11" not in html
    assert "3 more trials are in the database" in words(html)


def test_very_many_trials_and_images_keep_the_page_small(studies, make, more, complete):
    studies.add()
    for number in range(12):
        studies.trial(number, make("se", reduction=2 + number), more(number, number), complete(350))
    for trial in studies.trials():
        write_insights(studies.store.engine, trial.id, {"gradcam": cams(images=20), "gates": GATES})
    html = section(studies)
    assert html.count("<img") == IMAGES_AT_MOST * (1 + TRIALS_AT_MOST)
    assert len(html) < 400_000


def test_the_same_database_gives_the_same_section(explained):
    assert section(explained) == section(explained)


# Figures. --------------------------------------------------------------------------------------


def pixels(markup):
    (data,) = re.findall(r"base64,([^\"]+)", str(markup))
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_where_nothing_speaks_the_image_shows_in_grey_and_where_much_does_in_colour():
    picture = np.full((3, 64, 64), 100, dtype=np.uint8)
    heat = np.zeros((2, 2))
    heat[0, 0] = 1
    shown = pixels(overlaid(picture, heat))
    assert shown.shape == (64, 64, 3)
    assert shown[-1, -1].tolist() == [100, 100, 100]
    assert shown[0, 0].tolist() == pytest.approx(
        [0.85 * c + 0.15 * 100 for c in (252, 255, 164)], abs=1
    )
    assert pixels(overlaid(picture, None)).min() == pixels(overlaid(picture, None)).max() == 100


def test_small_images_are_enlarged_and_maps_are_as_they_are():
    assert pixels(overlaid(np.zeros((1, 14, 7), np.uint8), np.zeros((2, 2)))).shape == (56, 28, 3)
    assert pixels(map_picture(np.zeros((4, 6), np.uint8))).shape == (4, 6, 3)


def test_colours_rise_in_lightness():
    light = heat_colours(np.linspace(0, 1, 9)).dot([0.299, 0.587, 0.114])
    assert (np.diff(light) > 5).all()
    assert heat_colours(np.array([np.nan])).tolist() == heat_colours(np.zeros(1)).tolist()


def test_chart_has_a_line_for_each_trial_and_names_that_do_not_touch():
    lines = [Line(n, n, {1: 0.1, 2: 0.5 + n / 1000}) for n in range(4)] + [Line(9, 1, {2: 1.0})]
    chart = str(specificity_chart(lines, 0.1))
    assert chart.count('class="line c') == 5
    assert chart.count('class="baseline"') == 1
    ends = [float(y) for y in re.findall(r'<text class="tick" x="[\d.]+" y="([\d.]+)">\d', chart)]
    assert len(ends) == 5
    assert min(np.diff(ends)) >= 13
    assert specificity_chart([], 0.1) == ""
    assert 'class="baseline"' not in str(specificity_chart(lines, None))
