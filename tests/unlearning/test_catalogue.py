"""The list of methods says what the code does."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import mechunlearn
from mechunlearn.errors import UserError
from mechunlearn.unlearning import CIR, METHODS, NPO, Budget, Layered, configure, make_budget, make_layered

PAGE = (Path(mechunlearn.__file__).parent / "unlearning" / "methods" / "README.md").read_text(encoding="utf-8")


def rows() -> dict[str, str]:
    """The page's table: the line of every method."""
    found = {}
    for line in PAGE.splitlines():
        for name in re.findall(r"`([a-z_]+)`", line.split("|")[1]) if line.startswith("| `") else []:
            found.setdefault(name, line)
    return found


def test_every_method_is_on_the_page_and_every_line_is_a_method():
    assert set(rows()) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_page_gives_the_paper_and_the_defaults(name):
    method, line = METHODS[name], rows()[name]
    assert method.paper in line or name == "repselect"
    for setting, letter in (("beta", "β"), ("delta", "δ"), ("relative", "c"), ("step_norm", "η")):
        stated = re.search(rf"{letter} = ([\d.]*\d)", line.split("|")[4])
        if hasattr(method, setting) and stated:
            assert float(stated[1]) == getattr(method, setting)


def test_methods_are_configured_by_name_and_plain_values():
    assert configure("npo", {"beta": 1}) == NPO(beta=1.0)
    assert configure("rmu", {"layer": 2}).layer == 2
    assert isinstance(configure("rmu", {"layer": 2}).layer, int)
    assert configure("cir", {"objective": "npo", "objective.beta": 0.3}) == CIR(objective=NPO(beta=0.3))
    assert configure("mlp_breaking", {"blocks": [0, 2]}).blocks == (0, 2)
    assert make_budget(0.02) == Budget(kl=0.02) and make_budget({"near": 0.5}) == Budget(near=0.5)
    assert make_layered(NPO(), 3) == Layered(method=NPO(), folds=3)
    assert make_layered(NPO(), {"folds": 2, "order": [2, 1]}).order == (2, 1)
    assert make_layered(NPO(), {"folds": 2, "base": [1, 2.5]}).base == (1.0, 2.5)
    assert configure("circuit_breakers", {"lora_rank": None, "targets": [1, 0.5]}).targets == (1, 0.5)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hypnosis", {}, "npo"),
        ("npo", {"bet": 1}, "no setting 'bet'.*beta"),
        ("npo", {"beta": "high"}, "beta is a number"),
        ("npo", {"beta": True}, "npo: beta is a number, not True"),
        ("npo", {"beta": None}, "npo: beta is a number, not None"),
        ("npo", {"beta": [1]}, "beta is a number"),
        ("cir", {"faithful": 1}, "faithful is true or false, not 1"),
        ("cir", {"activations": "many"}, "activations is a number"),
        ("rmu", {"layer": "middle"}, "layer is a number"),
        ("mlp_breaking", {"blocks": [1]}, "blocks is a list of 2 numbers"),
        ("mlp_breaking", {"blocks": 3}, "blocks is a list of 2 numbers, not 3"),
        ("circuit_breakers", {"targets": [1, "x"]}, "targets is a list of numbers"),
        ("circuit_breakers", {"lora_rank": 2.5}, "lora_rank is a whole number or null, not 2.5"),
        ("idk", {"refusals": "no"}, "refusals is a list of words, not 'no'"),
        ("npo", {"retain": 3}, "retain is a word"),
        ("npo", {"beta.x": 1}, "beta is no method"),
        ("cir", {"objective": 3}, "give its name"),
        ("cir", {"objective": "npo", "objective.bet": 3}, "objective has no setting 'bet'"),
    ],
)
def test_bad_settings_are_named(name, settings, message):
    with pytest.raises(UserError, match=message):
        configure(name, settings)


@pytest.mark.parametrize("kept", METHODS, ids=str)
def test_every_method_takes_its_own_settings(kept):
    values = {field.name: getattr(METHODS[kept], field.name) for field in fields(METHODS[kept])}
    assert configure(kept, values) == METHODS[kept]
    layered = Layered(method=METHODS[kept])
    assert (
        make_layered(layered.method, {field.name: getattr(layered, field.name) for field in fields(layered)}) == layered
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 2.5}, "layered: folds is a whole number, not 2.5"),
        ({"order": 3}, "order is a list of whole numbers or null"),
        ({"order": [1, "x"]}, "order is a list of whole numbers or null"),
        ({"base": "much"}, "base is a number or a list of numbers"),
        ({"stage_stop": [0.1]}, "stage_stop is a number or a word or null"),
    ],
)
def test_bad_layers_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        make_layered(NPO(), settings)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"kl": "small"}, "kl is a number, not 'small'"),
        ({"near": True}, "near is a number, not True"),
        ({"kl": 0.1, "halvings": 2.5}, "halvings is a whole number, not 2.5"),
    ],
)
def test_bad_budgets_are_named(limits, message):
    with pytest.raises(UserError, match=message):
        make_budget(limits)
