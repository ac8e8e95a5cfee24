"""The list of methods says what the code does."""

import re
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
    for setting, letter in (("beta", "β"), ("delta", "δ"), ("steering", "c"), ("step_norm", "η")):
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


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hypnosis", {}, "npo"),
        ("npo", {"bet": 1}, "no setting 'bet'.*beta"),
        ("npo", {"beta": "high"}, "beta is a number"),
        ("npo", {"beta": True}, "another kind"),
        ("npo", {"retain": 3}, "retain is a word"),
        ("npo", {"beta.x": 1}, "beta is no method"),
        ("cir", {"objective": 3}, "give its name"),
        ("cir", {"objective": "npo", "objective.bet": 3}, "objective has no setting 'bet'"),
    ],
)
def test_bad_settings_are_named(name, settings, message):
    with pytest.raises(UserError, match=message):
        configure(name, settings)
