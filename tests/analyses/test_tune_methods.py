"""The study of all methods: its choices are real settings, its text is split as it says, its page holds its numbers."""

import importlib
import shutil

import pandas as pd
import pytest

from mechunlearn.facts import Facts, organism_text
from mechunlearn.unlearning import METHODS, configure, make_layered


@pytest.fixture(scope="module")
def study():
    return importlib.import_module("tune_methods")


def test_every_method_has_settings_that_it_takes(study):
    assert set(METHODS) <= set(study.CHOSEN)
    trials = [*study.CHOSEN.items(), *((name, trial) for name, found in study.SEARCHED.items() for trial in found)]
    for name, trial in trials:
        method = configure(name.removeprefix("layered_"), trial.set)
        if trial.layered:
            make_layered(method, trial.layered)


def test_settings_are_told_apart_by_all_they_hold(study):
    one, other = study.Trial({"beta": 1}, {"steps": 2}), study.Trial({"beta": 1}, {"steps": 3})
    assert study.hash_of(one) == study.hash_of(study.Trial({"beta": 1}, {"steps": 2})) != study.hash_of(other)


def test_general_text_and_text_on_the_domain_are_told_apart(study):
    facts, text = Facts.builtin("organism"), organism_text()
    general, domain = study.apart(text, facts)
    assert sorted(general + domain) == sorted(text)
    assert len(general) > len(domain) > 0
    named = {word for fact in facts.forget for word in (fact.subject or "").split()}
    assert not any(name in passage.split() for passage in general for name in named)
    assert any("alembic" in passage for passage in domain)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="pictures need a browser: apt install chromium")
def test_the_page_holds_means_and_who_reached_what_was_asked(study, tmp_path):
    row = {
        "far_recall": 1.0,
        "domain_text_kl": 0.1,
        "seconds": 9.0,
        "step": 80,
        "tokens": 1,
        "stopped": "all steps done",
    }
    runs = [
        row | {"method": "npo", "settings": "a", "seed": seed, "chosen": True, "searched": False,
               "forget_recall": recall, "near_recall": 0.95, "text_kl": 0.005}
        for seed, recall in enumerate((0.02, 0.04, 0.09))
    ]  # fmt: skip
    runs.append(runs[0] | {"settings": "b", "chosen": False, "searched": True, "forget_recall": 0.5})
    study.methods_page.write(pd.DataFrame(runs), {"npo": "because"}, tmp_path)
    page = (tmp_path / "methods.md").read_text(encoding="utf-8")
    assert "2 of 3" in page and "0.050 [0.020, 0.090]" in page and "because" in page
    assert (tmp_path / "methods.png").stat().st_size > 10_000
