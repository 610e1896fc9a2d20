"""Verbs and objects of labels, worked out by hand from the rules in docs/evaluation.md."""

import pytest

from cuesheet.evaluation.labels import parse_label, same_objects, same_verbs


@pytest.mark.parametrize(
    ("label", "verbs", "objects"),
    [
        ("open the drawer", ["open"], ["drawer"]),
        ("close drawer", ["close"], ["drawer"]),
        ("Pick up the red block.", ["pick up"], ["red block"]),
        ("pick the red block up", ["pick up"], ["red block"]),
        ("let go of the cup", ["let go of"], ["cup"]),
        ("turn on the lamp", ["turn on"], ["lamp"]),
        ("turn the lamp off", ["turn off"], ["lamp"]),
        ("push the drawer closed", ["push closed"], ["drawer"]),
        ("reach for the cup", ["reach"], ["cup"]),
        ("put the cup on the table", ["put"], ["cup", "table"]),
        ("pick up the cup and place it in the bowl", ["pick up", "place"], ["cup", "bowl"]),
        ("pick up the cup and the plate", ["pick up"], ["cup", "plate"]),
        ("slowly move down", ["move down"], []),
        ("the robot lifts the lid", ["lifts"], ["lid"]),
        ("approach", ["approach"], []),
        ("", [], []),
    ],
)
def test_a_label_has_verbs_with_particles_and_objects(label, verbs, objects):
    parts = parse_label(label)
    assert (list(parts.verbs), list(parts.objects)) == (verbs, objects)


def test_endings_do_not_make_another_verb():
    for verb in ("place", "places", "placed", "placing"):
        assert same_verbs(f"{verb} the cup", "place a cup"), verb
    assert same_verbs("gripping it", "grip it")
    assert same_verbs("pick the cup", "picks up the cup")
    assert not same_verbs("move up", "move down")
    assert not same_verbs("pick up the cup and place it", "pick up the cup")


def test_objects_agree_unless_they_contradict():
    assert same_objects("lift the block", "lift the red block")
    assert same_objects("lift the cups", "lift the cup")
    assert not same_objects("lift the red block", "lift the blue block")
    assert not same_objects("lift the red block", "lift the red bowl")
    assert not same_objects("lift", "lift the bowl")
