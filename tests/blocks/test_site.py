import json

import pytest

from blocks.backbone import site_table
from blocks.errors import BackboneError
from blocks.formulas import Cost
from blocks.options import MapShape
from blocks.site import Site, SiteTable


def site(name, placement, stage, unit=0):
    position = "standard" if unit else ""
    return Site(name, placement, stage, unit, position, f"path.{name}", MapShape(8, 4, 4))


TABLE = SiteTable(
    "tiny",
    (3, 8, 8),
    10,
    (
        site("stem", "stem", 0),
        site("stage1.unit1.standard", "in-block", 1, 1),
        site("stage1.unit2.standard", "in-block", 1, 2),
        site("stage1", "stage", 1),
        site("stage2.unit1.standard", "in-block", 2, 1),
        site("stage2", "stage", 2),
    ),
    Cost(1, 1, 2, 4),
)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("stem", ["stem"]),
        ("stage", ["stage1", "stage2"]),
        ("stage2", ["stage2"]),
        (
            "in-block",
            ["stage1.unit1.standard", "stage1.unit2.standard", "stage2.unit1.standard"],
        ),
        ("stage1.in-block", ["stage1.unit1.standard", "stage1.unit2.standard"]),
        ("stage2.in-block", ["stage2.unit1.standard"]),
        ("stage1.unit2.standard", ["stage1.unit2.standard"]),
    ],
)
def test_groups_expand_in_the_order_of_the_forward_pass(where, names):
    assert [site.name for site in TABLE.expand(where)] == names


@pytest.mark.parametrize("where", ["stage3", "stage3.in-block", "", "stage1.unit3.standard", "1"])
def test_sites_that_are_not_there_are_refused(where):
    with pytest.raises(BackboneError) as refusal:
        TABLE.expand(where)
    assert str(refusal.value).startswith(f"tiny has no site {where!r}.")
    assert "Sites: stem, stage, in-block, " in str(refusal.value)
    assert str(refusal.value).endswith("stage2.unit1.standard, stage2")


def test_refusal_names_the_nearest_site():
    with pytest.raises(BackboneError, match=r"no site 'inblock'\. Did you mean 'in-block'\?"):
        TABLE.expand("inblock")


def test_stages_are_counted():
    assert TABLE.stages == 2
    assert site_table("resnet20", (3, 32, 32), 10).stages == 3


def test_table_survives_json():
    assert SiteTable.from_json(json.loads(json.dumps(TABLE.to_json()))) == TABLE
    real = site_table("resnet20", (3, 24, 40), 7)
    assert SiteTable.from_json(json.loads(json.dumps(real.to_json()))) == real
