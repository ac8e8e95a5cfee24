"""Arguments that are no numbers of anything are refused before any work."""

import pytest

import mechunlearn as mu
from mechunlearn.errors import UserError, check_whole

CALLS = {
    "dissect": lambda **given: mu.dissect("organism", "organism:never-knew", "organism", **given),
    "evaluate": lambda **given: mu.evaluate("organism", "organism", **given),
    "attack": lambda **given: mu.attack("organism", "organism", **given),
    "relearn": lambda **given: mu.relearn("organism", "organism", "organism", **given),
    "unlearn": lambda **given: mu.unlearn("organism", "npo", *_facts(), **given),
}


def _facts():
    facts = mu.Facts.builtin("organism")
    return facts.forget, facts.retain


@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize(("seed", "says"), [(-1, "at least 0, not -1"), (2**64, f"at most {2**63 - 1}")])
def test_a_seed_that_cannot_be_one_is_refused_before_anything_is_written(verb, seed, says, tmp_path):
    with pytest.raises(UserError, match=f"seed must be .*{says}"):
        CALLS[verb](seed=seed, run=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_whole_number_is_no_other_kind(value):
    with pytest.raises(UserError, match=f"count must be a whole number, not {value!r}"):
        check_whole("count", value, 1)
