"""The conformance run: an architecture that is right is called right, and a wrong number is called wrong."""

import importlib
from dataclasses import replace

import pytest

import mechunlearn as mu
from mechunlearn.errors import UserError
from mechunlearn.sites import DEFAULT


@pytest.fixture
def conformance():
    return importlib.import_module("conformance")


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_dense_models_are_right_with_the_default_sites(conformance, name):
    found = conformance.tried(name)
    assert (found["result"], found["message"]) == (conformance.RIGHT, "")
    assert 0 <= found["error"] < conformance.ALLOWED
    assert set(DEFAULT) <= set(found["sites"].split(", "))


@pytest.mark.parametrize("site", ["block", "attention_output"])
def test_one_number_that_is_off_makes_it_wrong_and_says_where(conformance, monkeypatch, site):
    dissect = mu.dissect

    def off(*args, **kwargs):
        result = dissect(*args, **kwargs)
        frame = result.frame.copy()
        there = frame.index[(frame["site"] == site) & (frame["metric"] == "mse") & (frame["first_layer"] == 1)]
        frame.loc[there[0], "distance"] *= 1.1
        return replace(result, frame=frame)

    monkeypatch.setattr(mu, "dissect", off)
    found = conformance.tried("llama")
    assert found["result"] == conformance.WRONG
    assert found["message"].startswith(f"{site}, block 1: off by")


def test_a_refusal_by_name_and_a_traceback_are_told_apart(conformance, monkeypatch):
    def refuses(*args, **kwargs):
        raise UserError("not this one")

    monkeypatch.setattr(mu, "dissect", refuses)
    found = conformance.tried("llama")
    assert (found["result"], found["message"]) == (conformance.REFUSED, "not this one")

    def breaks(*args, **kwargs):
        raise IndexError("7")

    monkeypatch.setattr(mu, "dissect", breaks)
    found = conformance.tried("llama")
    assert (found["result"], found["message"]) == (conformance.WRONG, "IndexError: 7")


def test_at_least_sixty_configurations_each_of_a_kind(conformance):
    recipes = conformance.RECIPES
    assert len(recipes) >= 60
    assert len({recipe.kind for recipe in recipes.values()}) >= 60
