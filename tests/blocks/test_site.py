import json

import pytest

from blocks.backbone import site_table
from blocks.errors import BackboneError
from blocks.formulas import Cost
from blocks.options import MapShape
from blocks.site import Site, SiteTable


def site(name, placement, stage, unit=0):
    position = "standard" if unit else ""
    shape = MapShape(8, 4, 4)
    return Site(name, placement, stage, unit, position, f"path.{name}", shape=shape)


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


# Positions. --------------------------------------------------------------------------------------


def unit_site(stage, unit, position, **more):
    name = f"stage{stage}.unit{unit}.{position}"
    return Site(name, "in-block", stage, unit, position, name, shape=MapShape(8, 4, 4), **more)


def last(stage, unit):
    name = f"stage{stage}"
    return Site(name, "stage", stage, unit, "post", name, shape=MapShape(8, 4, 4))


UNITS = SiteTable(
    "units",
    (3, 8, 8),
    10,
    (
        site("stem", "stem", 0),
        unit_site(1, 1, "standard"),
        unit_site(1, 1, "expanded", own=True),
        unit_site(1, 1, "post"),
        unit_site(1, 2, "standard"),
        last(1, 2),
        unit_site(2, 1, "pre", side="before"),
        unit_site(2, 1, "standard", own=True),
        last(2, 1),
    ),
    Cost(1, 1, 2, 4),
)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("in-block", ["stage1.unit1.standard", "stage1.unit2.standard", "stage2.unit1.standard"]),
        ("in-block.standard", [f"stage{s}.unit{u}.standard" for s, u in ((1, 1), (1, 2), (2, 1))]),
        ("in-block.post", ["stage1.unit1.post", "stage1", "stage2"]),
        ("stage1.in-block.post", ["stage1.unit1.post", "stage1"]),
        ("stage1.unit2.post", ["stage1"]),
        ("stage1.unit2.in-block.post", ["stage1"]),
        ("stage1.unit1.in-block", ["stage1.unit1.standard"]),
        ("in-block.own", ["stage1.unit1.expanded", "stage2.unit1.standard"]),
        ("in-block.pre", ["stage2.unit1.pre"]),
        ("stage2.stage", ["stage2"]),
    ],
)
def test_positions_expand(where, names):
    assert [site.name for site in UNITS.expand(where)] == names
    assert UNITS.expand(where) == UNITS.expand(where)


def test_positions_and_units_that_there_are():
    assert UNITS.positions == ("standard", "pre", "post", "expanded", "own")
    assert (UNITS.stages, UNITS.units(1), UNITS.units(2), UNITS.units(3)) == (2, 2, 1, 0)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("in-block.inner", "its units have no position 'inner'. Positions: standard, pre, post,"),
        ("stage1.in-block.pre", "its units in stage 1 have no position 'pre'. Positions: standard"),
        ("stage1.unit2.in-block.expanded", "no position 'expanded'. Positions: standard, post$"),
        ("in-block.inside", "Did you mean 'in-block"),
        ("stage1.unit3.post", "Sites: stem, stage, in-block, in-block.pre"),
    ],
)
def test_positions_that_are_not_there_are_refused(where, words):
    with pytest.raises(BackboneError, match=f"units has no site {where!r}.*{words}"):
        UNITS.expand(where)


def test_where_units_are_not_known_in_block_is_not():
    bare = SiteTable("bare", (3, 8, 8), 10, UNITS.sites[:1], Cost())
    with pytest.raises(BackboneError, match="in-block is not known for it.* Sites: stem$"):
        bare.expand("in-block")


def test_a_long_list_of_sites_is_cut():
    many = tuple(unit_site(1, unit, "standard") for unit in range(1, 60))
    with pytest.raises(BackboneError, match=r"\.\.\. \(search blocks --sites long\)$"):
        SiteTable("long", (3, 8, 8), 10, many, Cost()).expand("nowhere")


def test_positions_survive_json():
    assert SiteTable.from_json(json.loads(json.dumps(UNITS.to_json()))) == UNITS
