"""The table of what a model knows and what it lost."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mechunlearn.errors import NotFiniteError, UserError
from mechunlearn.evaluation import (
    MEASURES,
    bleu,
    bootstrap_interval,
    evaluate,
    greedy_answers,
    per_question,
    per_text,
    rouge_l,
    score_answers,
    score_choices,
    score_truth,
    summarise_measures,
    text_kl,
    text_loss,
)
from mechunlearn.facts import Fact, Facts, Template, tokenize
from mechunlearn.models import hf
from mechunlearn.runs import read_run

from .models import bridge

WORDS = ["Paris", "Basil", "author", "York", "City", "genre"]
FACTS = Facts(
    Fact(
        f"The {word} of",
        WORDS[-place],
        role=role,
        domain="books" if place < 3 else "cities",
        fold=None if place == 6 else place % 2,
    )
    for place, word in enumerate(WORDS, start=1)
    for role in ("forget", "near", None)
)
CHOOSABLE = Facts(
    Fact("the", word, role=role, distractors=tuple(WORDS) if role == "forget" or word == "Basil" else ())
    for word in WORDS
    for role in ("forget", "near", "far")
)
TEXTS = ["The capital of France is Paris.", "who was born?", "the author lives in New York"]
SHORT = {"options": 3, "max_new_tokens": 4}


def test_groups_are_measured_with_intervals():
    model, before = bridge(0), bridge(1)
    table = evaluate(model, FACTS, text=TEXTS, before=before, seed=3, **SHORT).summary()
    assert list(table.columns) == ["role", "measure", "value", "low", "high", "n", "n_clusters"]
    assert list(table.role.unique()) == ["forget", "near", "all", "text"]
    row = table[(table.role == "near") & (table.measure == "answer_probability")].iloc[0]
    scores = score_answers(model, tokenize(FACTS.near, model.tokenizer))
    values = scores.mean_logprob.double().exp().numpy()
    order = np.argsort([fact.id for fact in FACTS.near])  # resamples are of facts in the order of their names
    assert row.n == 6
    assert row.value == pytest.approx(np.mean(values), rel=1e-5)
    assert (row.low, row.high) == pytest.approx(bootstrap_interval(values[order], seed=3), rel=1e-5)
    assert (table.n_clusters == table.n).all()  # these facts have no subjects
    text = table[table.role == "text"].set_index("measure")
    assert text.value["text_loss"] == pytest.approx(text_loss(model, TEXTS))
    assert text.value["text_kl"] == pytest.approx(text_kl(model, before, TEXTS))
    assert (table.low <= table.value + 1e-12).all() and (table.value <= table.high + 1e-12).all()


def test_every_column_is_its_own_function():
    model, before = bridge(0), bridge(1)
    found = per_question(model, CHOOSABLE.forget, before=before, seed=5, **SHORT)
    assert list(found.question) == list(found.fact) == [fact.id for fact in CHOOSABLE.forget]
    choices = score_choices(model, CHOOSABLE.forget, options=3, seed=5)
    assert found.choice_probability.to_numpy() == pytest.approx(choices.probability.numpy())
    assert found.choice_accuracy.to_numpy() == pytest.approx(choices.accuracy.numpy())
    truth = score_truth(model, CHOOSABLE.forget, seed=5)
    for mean in ("geometric", "arithmetic"):
        ratio = getattr(truth, mean).exp().numpy()
        assert found[f"truth_ratio_{mean}"].to_numpy() == pytest.approx(np.minimum(ratio, 1 / ratio))
        assert found[f"true_better_{mean}"].to_numpy() == pytest.approx(np.maximum(0, 1 - ratio), abs=1e-9)
    now, then = (greedy_answers(one, CHOOSABLE.forget, max_new_tokens=4) for one in (model, before))
    assert found.rouge_l.tolist() == [rouge_l(*pair) for pair in zip(now, then, strict=True)]
    assert found.bleu.tolist() == [bleu(*pair) for pair in zip(now, then, strict=True)]
    scores = score_answers(model, tokenize(CHOOSABLE.forget, model.tokenizer))
    for name, expected in {
        "recall": scores.correct, "answer_logprob": scores.logprob, "rank": scores.rank,
        "exact_memorisation": scores.memorised, "extraction_strength": scores.extracted,
    }.items():  # fmt: skip
        assert found[name].to_numpy() == pytest.approx(expected.double().numpy(), rel=1e-5)


def test_a_model_is_unchanged_against_itself():
    model = bridge()
    found = evaluate(model, FACTS, text=TEXTS, before=model, measures=("rouge_l", "bleu", "text_kl"), **SHORT)
    values = found.summary().groupby("measure").value
    assert values.min().to_dict() == pytest.approx({"bleu": 1, "rouge_l": 1, "text_kl": 0}, abs=1e-6)


def test_one_pass_feeds_all_measures_of_the_answer():
    passes = []

    def counting(ids, attention_mask):
        passes.append(len(ids))
        return torch.zeros(*ids.shape, len(counting.tokenizer))

    counting.tokenizer = bridge().tokenizer
    names = [name for name, measure in MEASURES.items() if measure.made_by == "answer"]
    found = per_question(counting, FACTS, measures=names)
    assert passes == [len(FACTS)] and len(names) == 6
    assert list(found.columns[7:]) == names


def test_recall_is_a_share_of_facts():
    """A model with no say but one: " Paris" is what follows everywhere."""
    model = bridge()
    paris = model.tokenizer(" Paris", add_special_tokens=False)["input_ids"]
    assert len(paris) == 1
    with torch.no_grad():
        hf(model).model.norm.weight.zero_()
    facts = Facts([Fact("The capital of France is", "Paris"), Fact("a", "City"), Fact("b", "City"), Fact("c", "Paris")])
    uniform = evaluate(model, facts).summary().set_index("measure").value
    assert uniform["answer_probability"] == pytest.approx(1 / len(model.tokenizer))
    assert uniform["rank"] == pytest.approx((len(model.tokenizer) + 1) / 2)

    def says_paris(ids, attention_mask):
        logits = torch.zeros(*ids.shape, len(model.tokenizer))
        logits[..., paris[0]] = 1.0
        return logits

    says_paris.tokenizer = model.tokenizer
    assert summarise_measures(per_question(says_paris, facts)).set_index("measure").value["recall"] == 0.5


def test_groups_may_be_finer():
    found = evaluate(bridge(), FACTS, text=TEXTS)
    table = found.summary(by=("role", "domain"))
    sizes = table[table.measure == "recall"].set_index(["role", "domain"]).n
    roles = ("forget", "near", "all")
    assert sizes.to_dict() == {(role, "books"): 2 for role in roles} | {(role, "cities"): 4 for role in roles}
    assert table[table.role == "text"].domain.isna().all()
    folds = found.summary(by=("fold",))
    assert folds[folds.measure == "recall"].set_index("fold").n.to_dict() == {"1": 9, "0": 6, "all": 3}


def test_facts_with_too_few_distractors_do_not_count_by_default():
    table = evaluate(bridge(), CHOOSABLE).summary().set_index(["measure", "role"])
    for measure in ("choice_accuracy", "choice_probability", "truth_ratio_geometric", "true_better_arithmetic"):
        assert table.n[measure].to_dict() == {"forget": 6, "near": 1, "far": 1}
    assert set(table.n["recall"]) == {6}
    none = evaluate(bridge(), FACTS).summary()
    assert not {"choice_accuracy", "truth_ratio_geometric"} & set(none.measure)
    missing = per_question(bridge(), CHOOSABLE, measures=None)["choice_accuracy"].isna()
    assert missing.sum() == 10


@pytest.mark.parametrize("measure", ["choice_accuracy", "truth_ratio_arithmetic", "true_better_geometric"])
def test_a_measure_asked_for_by_name_is_not_thinned_out(measure):
    with pytest.raises(UserError, match="fact '1' has"):
        evaluate(bridge(), CHOOSABLE, measures=(measure,))


def test_the_facts_template_is_used_and_may_be_replaced():
    asked = Facts(CHOOSABLE, template=Template("Question: {prompt}\nAnswer:"))
    plain = per_question(bridge(), CHOOSABLE)
    columns = ["answer_logprob", "truth_ratio_geometric"]
    assert not np.allclose(per_question(bridge(), asked)[columns], plain[columns], equal_nan=True)
    pd.testing.assert_frame_equal(per_question(bridge(), asked, template=Template()), plain)


def test_text_is_measured_passage_by_passage():
    model, before = bridge(0), bridge(1)
    found = per_text(model, TEXTS, before=before)
    assert list(found.columns) == ["tokens", "text_loss", "text_kl"] and len(found) == 3
    for row, passage in enumerate(TEXTS):
        assert found.text_loss[row] == pytest.approx(text_loss(model, [passage]), rel=1e-5)
        assert found.text_kl[row] == pytest.approx(text_kl(model, before, [passage]), rel=1e-5)
    table = summarise_measures(None, found).set_index("measure")
    assert table.value["text_loss"] == pytest.approx(text_loss(model, TEXTS))
    assert list(per_text(model, TEXTS).columns) == ["tokens", "text_loss"]


def test_every_measure_says_what_it_is():
    for measure in MEASURES.values():
        assert measure.what and "=" in measure.direction
    assert [name for name, measure in MEASURES.items() if measure.share] == ["recall", "choice_accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ("recal",)}, "recal.*measures are recall, answer_probability"),
        ({"measures": ()}, "nothing"),
        ({"measures": ("rouge_l",)}, "rouge_l needs `before`"),
        ({"measures": ("text_kl",)}, "text_kl needs `before` and `text`"),
        ({"measures": ("text_loss",)}, "text_loss needs `text`"),
        ({"facts": Facts([])}, "no facts"),
        ({"facts": Facts([Fact("p", None)])}, "fill answers first"),
        ({"facts": CHOOSABLE.forget, "options": 1}, "2 to 26"),
        ({"facts": CHOOSABLE, "before": bridge(), "max_new_tokens": 99, "measures": ["rouge_l"]}, "context"),
    ],
)
def test_bad_input_is_refused(options, message):
    given = dict(options)
    with pytest.raises(UserError, match=message):
        evaluate(bridge(), given.pop("facts", FACTS), **given)


@pytest.mark.parametrize(("by", "message"), [(("roles",), "roles"), ((), "nothing")])
def test_groups_that_facts_do_not_make_are_refused(by, message):
    with pytest.raises(UserError, match=message):
        evaluate(bridge(), FACTS, measures=("recall",)).summary(by)


def test_facts_and_text_do_not_mix():
    with pytest.raises(UserError, match="text_loss needs `text`"):
        per_question(bridge(), FACTS, measures=("text_loss",))
    with pytest.raises(UserError, match="measures of general text are"):
        per_text(bridge(), TEXTS, measures=("recall",))


def test_logits_that_are_no_numbers_are_refused():
    def broken(ids, attention_mask):
        return torch.full((*ids.shape, 400), float("nan"))

    broken.tokenizer = bridge().tokenizer
    with pytest.raises(NotFiniteError):
        per_question(broken, FACTS)


@pytest.mark.parametrize("prompts", ["own", "held_out", "all"])
def test_every_question_is_asked_by_its_prompt(prompts):
    model = bridge()
    phrased = {"prompt": "The capital of", "paraphrases": ("The City is",), "held_out": ("New", "born in")}
    facts = Facts([replace(CHOOSABLE.forget[0], **phrased), CHOOSABLE.forget[1]])
    found = evaluate(model, facts, prompts=prompts, **SHORT)
    questions = facts.questions(prompts)
    assert list(found.frame["question"]) == [question.id for question in questions]
    assert set(found.frame["fact"]) == {fact.id for fact in facts}
    scores = score_answers(model, tokenize(questions, model.tokenizer))
    assert found.frame["answer_logprob"].to_numpy() == pytest.approx(scores.logprob.double().numpy(), rel=1e-5)
    for question, row in zip(questions, found.frame.itertuples(), strict=True):
        alone = score_truth(model, [question]).geometric.exp()  # asked in the same phrasing, and no other
        assert row.truth_ratio_geometric == pytest.approx(float(min(alone, 1 / alone)))
    recall = found.summary().set_index("measure").loc["answer_logprob"]
    assert recall["n"] == 2  # facts, whatever the number of questions
    assert recall["value"] == pytest.approx(found.frame.groupby("fact")["answer_logprob"].mean().mean())
    assert found.about["settings"]["prompts"] == prompts


def test_only_text_may_be_measured():
    found = evaluate(bridge(), FACTS, text=TEXTS, measures=("text_loss",))
    assert list(found.frame) == ["question", "fact", "subject", "relation", "domain", "fold", "role"]
    assert list(found.summary()["measure"]) == ["text_loss"]


def test_an_interrupted_evaluation_goes_on_after_its_last_piece(tmp_path, monkeypatch):
    options = {"text": TEXTS, "before": bridge(1), **SHORT}
    whole = evaluate(bridge(0), FACTS, **options)
    rows = sys.modules["mechunlearn.evaluation.rows"]
    real, done = rows._passed, list[str]()

    def counted(made_by, *given, **more):
        if made_by == "generation":
            raise KeyboardInterrupt
        done.append(made_by)
        return real(made_by, *given, **more)

    monkeypatch.setattr(rows, "_passed", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(bridge(0), FACTS, run=tmp_path / "run", **options)
    before, first = list(done), {file.name for file in (tmp_path / "run" / "units").iterdir()}
    assert before == ["answer"] and first == {"answer-000000.json", "answer-000000.parquet"}
    monkeypatch.setattr(
        rows, "_passed", lambda made_by, *given, **more: done.append(made_by) or real(made_by, *given, **more)
    )
    found = evaluate(bridge(0), FACTS, run=tmp_path / "run", **options)
    assert "answer" not in done[len(before) :] and "generation" in done
    pd.testing.assert_frame_equal(found.frame, whole.frame)
    pd.testing.assert_frame_equal(found.texts, whole.texts)


def test_many_questions_are_many_pieces_of_the_same_numbers(monkeypatch):
    rows = sys.modules["mechunlearn.evaluation.rows"]
    whole, names = rows.per_question(bridge(0), CHOOSABLE, seed=5), list[str]()
    monkeypatch.setattr(rows, "TOGETHER", 2)
    parts = rows.per_question(
        bridge(0), CHOOSABLE, seed=5, kept=lambda name, made, of: names.append((name, *of)) or made()
    )
    pd.testing.assert_frame_equal(parts, whole)
    assert [fact for name, *some in names if name.startswith("answer") for fact in some] == [f.id for f in CHOOSABLE]


def test_a_run_folder_keeps_everything_and_is_read_again(tmp_path, monkeypatch):
    model, before = bridge(0), bridge(1)
    options = {"text": TEXTS, "before": before, "run": tmp_path / "run", **SHORT}
    found = evaluate(model, FACTS, **options)
    kept = {path.name for path in (tmp_path / "run").glob("*")}
    assert kept == {"run.json", "frame.parquet", "texts.parquet", "units"}
    run = read_run(tmp_path / "run")
    assert run["kind"] == "evaluation" and run["about"]["facts"]["hash"] == FACTS.hash
    assert run["about"]["measures"]["rank"]["direction"] == MEASURES["rank"].direction
    room = sys.modules["mechunlearn.evaluation.evaluate"]
    monkeypatch.setattr(room, "per_question", None)  # would fail if it were asked
    again = evaluate(model, FACTS, **options)
    pd.testing.assert_frame_equal(again.frame, found.frame)
    pd.testing.assert_frame_equal(again.texts, found.texts)
    assert again.about == found.about
    pd.testing.assert_frame_equal(again.summary(("role", "fold")), found.summary(("role", "fold")))
    with pytest.raises(UserError, match=r"other settings.*model"):
        evaluate(before, FACTS, **options)
