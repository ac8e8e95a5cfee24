"""The table of what a model knows."""

import numpy as np
import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.evaluation import behaviour, bootstrap_interval, score_answers, text_kl, text_loss
from mechunlearn.facts import Fact, Facts, tokenize
from mechunlearn.models import hf

from .models import bridge

WORDS = ["Paris", "Basil", "author", "York", "City", "genre"]
FACTS = Facts(
    Fact(f"The {word} of", WORDS[-place], role=role, domain="books" if place < 3 else "cities")
    for place, word in enumerate(WORDS, start=1)
    for role in ("forget", "near", None)
)
TEXTS = ["The capital of France is Paris.", "who was born?", "the author lives in New York"]


def test_groups_are_measured_with_intervals():
    model, reference = bridge(0), bridge(1)
    table = behaviour(model, FACTS, TEXTS, reference, seed=3)
    assert list(table.columns) == ["role", "measure", "value", "low", "high", "n"]
    assert list(table.role.unique()) == ["forget", "near", "all", "text"]
    row = table[(table.role == "near") & (table.measure == "answer_probability")].iloc[0]
    scores = score_answers(model, tokenize(FACTS.near, model.tokenizer))
    values = scores.mean_logprob.double().exp().numpy()
    assert row.n == 6
    assert row.value == pytest.approx(np.mean(values), rel=1e-5)
    assert (row.low, row.high) == pytest.approx(bootstrap_interval(values, seed=3), rel=1e-5)
    text = table[table.role == "text"].set_index("measure")
    assert text.value["text_loss"] == pytest.approx(text_loss(model, TEXTS))
    assert text.value["text_kl"] == pytest.approx(text_kl(model, reference, TEXTS))
    assert (table.low <= table.value + 1e-12).all() and (table.value <= table.high + 1e-12).all()


def test_recall_is_a_share_of_facts():
    """A model with no say but one: " Paris" is what follows everywhere."""
    model = bridge()
    paris = model.tokenizer(" Paris", add_special_tokens=False)["input_ids"]
    assert len(paris) == 1
    with torch.no_grad():
        hf(model).model.norm.weight.zero_()
    facts = Facts([Fact("The capital of France is", "Paris"), Fact("a", "City"), Fact("b", "City"), Fact("c", "Paris")])
    uniform = behaviour(model, facts).set_index("measure").value
    assert uniform["answer_probability"] == pytest.approx(1 / len(model.tokenizer))

    def says_paris(ids, attention_mask):
        logits = torch.zeros(*ids.shape, len(model.tokenizer))
        logits[..., paris[0]] = 1.0
        return logits

    says_paris.tokenizer = model.tokenizer
    assert behaviour(says_paris, facts).set_index("measure").value["recall"] == 0.5


def test_groups_may_be_finer():
    table = behaviour(bridge(), FACTS, TEXTS, by=("role", "domain"))
    sizes = table[table.measure == "recall"].set_index(["role", "domain"]).n
    roles = ("forget", "near", "all")
    assert sizes.to_dict() == {(role, "books"): 2 for role in roles} | {(role, "cities"): 4 for role in roles}
    assert table[table.role == "text"].domain.isna().all()


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="roles"):
        behaviour(bridge(), FACTS, by=("roles",))
    with pytest.raises(UserError, match="reference"):
        behaviour(bridge(), FACTS, reference=bridge())
    with pytest.raises(UserError, match="fill answers first"):
        behaviour(bridge(), Facts([Fact("p", None)]))
