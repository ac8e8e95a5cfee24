"""What the recipient says under every patch, against TransformerLens' own hooks and against both models as they are."""

import numpy as np
import pytest
import torch

from mechunlearn.dissection import Dissection, dissect
from mechunlearn.dissection.said import said_under, summarise_said
from mechunlearn.evaluation import score_answers
from mechunlearn.facts import Fact, Facts, tokenize
from mechunlearn.models import load

from ..architectures import VOCABULARY, tiny
from ..folders import rewritten
from ..pairs import changed, word_level
from .test_dissect import make_facts

WORDS = [f"w{number}" for number in range(VOCABULARY - 3)]
SITES = ("mlp_coefficients", "value_vectors", "embedding", "everything")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    tokenizer = word_level(WORDS, tmp_path_factory.mktemp("tokenizer"))
    model = load(tiny("llama"), device="cpu", tokenizer=tokenizer)
    return model, changed(model, lambda slot: slot.layer >= 1 and "mlp_keys" in slot.roles, 3.0)


@pytest.fixture(scope="module")
def facts(pair):
    """Some answers that the model before gives, among others that nobody gives; one token to three."""
    asked = make_facts(9)
    tokens = tokenize(asked, pair[0].tokenizer)
    with torch.no_grad():
        said = pair[0](tokens.ids).argmax(-1)
    known = []
    for row, fact in enumerate(asked):
        first = pair[0].tokenizer.decode([int(said[row][tokens.predicts[row]][0])])
        known.append(Fact(fact.prompt, first if first in WORDS else f"{fact.answer} w1", id=fact.id))
    return Facts(known)


@pytest.fixture(scope="module")
def result(pair, facts):
    return dissect(*pair, facts, sites=SITES, windows="single,all", progress=False)


def said(model, facts) -> tuple[list[str], list[bool]]:
    """The most probable tokens where answers are predicted: one fact at a time, no padding."""
    words, right = [], []
    for fact in facts:
        tokens = tokenize(Facts([fact]), model.tokenizer)
        with torch.no_grad():
            best = model(tokens.ids).argmax(-1)[tokens.predicts]
        words.append(model.tokenizer.decode(best.tolist()).strip())
        right.append(best.tolist() == tokens.targets.tolist())
    return words, right


def under(result, site, first, last):
    chosen = result.answers.query("site == @site and first_layer == @first and last_layer == @last")
    return chosen["answer"].tolist(), chosen["correct"].tolist()


def test_one_row_a_fact_and_patch(result, facts):
    assert list(result.answers.columns) == [
        "fact", "question", "subject", "site", "direction", "first_layer", "last_layer", "answer", "correct",
        "probability", "rank",
    ]  # fmt: skip
    patches = result.frame[["site", "first_layer", "last_layer"]].drop_duplicates()
    assert len(result.answers) == len(patches) * len(facts)
    assert not result.answers.duplicated(["fact", "site", "first_layer", "last_layer"]).any()
    assert list(result.answers["fact"].unique()) == [fact.id for fact in facts]


def test_probability_and_rank_are_those_of_the_models_themselves(result, pair, facts):
    """Everything restored is the model before, the equal embedding put back is the model after, by another path."""
    for model, which, site in ((pair[0], "before", "everything"), (pair[1], "after", "embedding")):
        scores = score_answers(model, tokenize(facts, model.tokenizer))
        own = result.facts.set_index("fact").loc[[fact.id for fact in facts]]
        rows = result.answers[result.answers["site"] == site].set_index("fact").loc[[fact.id for fact in facts]]
        for found in (own[f"{which}_probability"], rows["probability"]):
            np.testing.assert_allclose(found, scores.mean_logprob.double().exp(), rtol=1e-4)
        for found in (own[f"{which}_rank"], rows["rank"]):
            np.testing.assert_allclose(found, scores.rank, rtol=1e-6)


def test_what_is_said_of_one_patch_is_counted_over_facts(result):
    place = ("mlp_coefficients", 0, 2)
    rows = result.answers.query("site == @place[0] and first_layer == @place[1] and last_layer == @place[2]")
    if rows.empty:
        first, last = result.answers.query("site == @place[0]")[["first_layer", "last_layer"]].iloc[0]
        place = (place[0], int(first), int(last))
        rows = result.answers.query("site == @place[0] and first_layer == @place[1] and last_layer == @place[2]")
    found = said_under(result.facts, result.answers, *place, "before->after")
    assert found.right == rows["correct"].mean() and found.low <= found.right <= found.high
    assert found.before == result.facts["before_correct"].mean()
    assert found.probability[2] == pytest.approx(rows["probability"].mean())
    assert found.returned == pytest.approx((found.right - found.after) / (found.before - found.after))
    assert said_under(result.facts, result.answers, "no such site", 0, 0, "before->after") is None
    curve = summarise_said(result.answers)
    same = curve.query("site == @place[0] and first_layer == @place[1] and last_layer == @place[2]")
    assert same["mean_of_ratios"].item() == found.right and same["mean_low"].item() == found.low


def test_everything_says_what_before_says_and_nothing_what_after_says(result, pair, facts):
    before, after = (said(model, facts) for model in pair)
    assert before[0] != after[0] and any(before[1]) and not all(before[1])
    assert under(result, "everything", -1, -1) == before
    assert under(result, "embedding", -1, -1) == after  # these parameters do not differ
    assert under(result, "value_vectors", 0, 0) == after
    assert result.facts["before_correct"].tolist() == before[1]
    assert result.facts["before_answer"].tolist() == before[0]


@pytest.mark.parametrize("layer", [1, 2])
def test_an_activation_patch_says_what_transformer_lens_says(result, pair, facts, layer):
    before, after = pair
    words, right = [], []
    name = f"blocks.{layer}.mlp.hook_post"
    for fact in facts:
        tokens = tokenize(Facts([fact]), before.tokenizer)
        with torch.no_grad():
            _, cache = before.run_with_cache(tokens.ids)
            donor = cache[name]
            logits = after.run_with_hooks(tokens.ids, fwd_hooks=[(name, lambda value, hook, donor=donor: donor)])
        best = logits.argmax(-1)[tokens.predicts]
        words.append(before.tokenizer.decode(best.tolist()).strip())
        right.append(best.tolist() == tokens.targets.tolist())
    assert under(result, "mlp_coefficients", layer, layer) == (words, right)
    assert words != said(after, facts)[0]


def test_kept_and_gone_on_with(pair, facts, tmp_path, result):
    run = dissect(*pair, facts, sites=SITES, windows="single,all", run=tmp_path / "run", progress=False)
    assert run.answers.equals(result.answers)
    rewritten(tmp_path / "run", about=None, files=None)
    again = dissect(*pair, facts, sites=SITES, windows="single,all", run=tmp_path / "run", progress=False)
    assert again.answers.equals(result.answers)
    kept = Dissection.load(result.save(tmp_path / "saved")).answers
    assert kept.astype(str).equals(result.answers.astype(str))


def test_single_positions_are_left_to_the_maps(pair, facts):
    found = dissect(*pair, facts, sites="residual", windows="single", positions="each", progress=False)
    assert found.answers.empty and len(found.frame)
