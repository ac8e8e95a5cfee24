"""Files of others: read right, mapped by columns, or refused by name; each row of `SCHEMAS` is a public data set's."""

import gzip
import json
import logging
import math

import pandas as pd
import pytest
import torch

from mechunlearn import Fact, Facts, evaluate
from mechunlearn.errors import UserError
from mechunlearn.facts import tokenize
from mechunlearn.models import hf, load

from ..architectures import tiny
from ..pairs import word_level

CHOICES = ["sun", "moon", "tide"]
# name -> (records, columns, (prompt, answer) of the first fact)
SCHEMAS = {
    "TOFU": ([{"question": "Who?", "answer": "Ann wrote it."}], None, ("Who?", "Ann wrote it.")),
    "TOFU perturbed": (
        [{"question": "Who?", "answer": "Ann.", "paraphrased_answer": "It was Ann.", "perturbed_answer": ["Bo."]}],
        None, ("Who?", "Ann."),
    ),
    "WMDP": ([{"question": "What?", "choices": CHOICES, "answer": 1}], None, ("What?", "moon")),
    "MMLU": ([{"question": "What?", "choices": CHOICES, "answer": 2, "subject": "sky"}], None, ("What?", "tide")),
    "RWKU": (
        [{"query": "The author is ___.", "answer": "Ann", "level": "1", "type": "cloze", "subject": "Ann B."}],
        {"prompt": "query", "answer": "answer", "subject": "subject"}, ("The author is ___.", "Ann"),
    ),
    "MUSE knowmem": ([{"question": "Who?", "answer": "Ann"}], None, ("Who?", "Ann")),
    "MUSE verbmem": (
        [{"prompt": "Once upon", "gt": "a time there was"}], {"prompt": "prompt", "answer": "gt"},
        ("Once upon", "a time there was"),
    ),
    "CounterFact": (
        [{"case_id": 0, "requested_rewrite": {"prompt": "{} lives in", "subject": "Ann", "relation_id": "P1",
                                              "target_true": {"str": "Rome"}, "target_new": {"str": "Oslo"}}}],
        None, ("Ann lives in", "Rome"),
    ),
    "CounterFact by columns": (
        [{"requested_rewrite": {"prompt": "{} lives in", "subject": "Ann", "target_true": {"str": "Rome"}}}],
        {"prompt": "requested_rewrite.prompt", "subject": "requested_rewrite.subject",
         "answer": "requested_rewrite.target_true.str"}, ("Ann lives in", "Rome"),
    ),
    "zsRE": (
        [{"subject": "Ann", "src": "Where is Ann?", "answers": ["Rome", "Roma"], "rephrase": "Ann is where?"}],
        {"prompt": "src", "answer": "answers", "subject": "subject", "held_out": "rephrase"}, ("Where is Ann?", "Rome"),
    ),
    "PopQA": (
        [{"id": 7, "subj": "Ann", "prop": "home", "question": "Where?", "possible_answers": '["Rome", "Roma"]'}],
        {"prompt": "question", "answer": "possible_answers", "id": "id", "subject": "subj", "relation": "prop"},
        ("Where?", "Rome"),
    ),
    "Known1000": (
        [{"known_id": 0, "subject": "Ann", "attribute": "Rome", "template": "{} lives in", "prompt": "Ann lives in"}],
        {"prompt": "prompt", "answer": "attribute", "subject": "subject", "id": "known_id"}, ("Ann lives in", "Rome"),
    ),
    "MQuAKE": (
        [{"case_id": 3, "questions": ["Where does Ann live?", "Ann's town?"], "answer": "Rome", "new_answer": "Oslo"}],
        {"prompt": "questions", "answer": "answer", "distractors": "new_answer", "id": "case_id"},
        ("Where does Ann live?", "Rome"),
    ),
    "LUME": (
        [{"id": "a1", "input": "Ann's number is", "output": "555", "task": "Task2", "split": "forget"}],
        {"prompt": "input", "answer": "output", "id": "id", "relation": "task"}, ("Ann's number is", "555"),
    ),
    "ConceptVectors": ([{"Concept": "Rome", "QA": ["Where?"], "Layer": 1, "Dim": 2}], None, ("Where?", None)),
    "TriviaQA": (
        [{"question": "Where?", "answer": {"value": "Rome", "aliases": ["Roma"]}}],
        {"prompt": "question", "answer": "answer.value"}, ("Where?", "Rome"),
    ),
    "SciQ": (
        [{"question": "What?", "correct_answer": "moon", "distractor1": "sun"}],
        {"prompt": "question", "answer": "correct_answer", "distractors": "distractor1"}, ("What?", "moon"),
    ),
    "TruthfulQA": (
        [{"question": "What?", "best_answer": "Nothing.", "incorrect_answers": ["All.", "Some."]}],
        {"prompt": "question", "answer": "best_answer", "distractors": "incorrect_answers"}, ("What?", "Nothing."),
    ),
    "Harry Potter QA": ([{"question": "Who?", "answer": "Ron", "id": "h1"}], None, ("Who?", "Ron")),
    "own": ([{"prompt": "Rome is in", "answer": "Italy", "role": "forget"}], None, ("Rome is in", "Italy")),
}  # fmt: skip
REFUSED = {
    "ARC": (
        [{"question": "What?", "choices": {"text": CHOICES, "label": ["A", "B", "C"]}, "answerKey": "B"}],
        "answer",
    ),
    "HellaSwag": ([{"ctx": "He", "endings": CHOICES, "label": "1"}], "no known format has these fields: 'ctx'"),
    "BoolQ": ([{"question": "Is it?", "answer": True, "passage": "It is."}], "'answer' must be a text"),
    "a chat log": ([{"prompt": "Hi", "answer": "Hello", "role": "assistant"}], "the role 'assistant' is none of"),
    "a fold by name": ([{"prompt": "Hi", "answer": "Hello", "fold": "train"}], "'fold' must be a whole number"),
}


def write(folder, records, name="facts.jsonl"):
    path = folder / name
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SCHEMAS)
def test_files_of_others_are_read_or_mapped(name, tmp_path):
    records, columns, (prompt, answer) = SCHEMAS[name]
    found = Facts.read(write(tmp_path, records), columns=columns)
    assert (found[0].prompt, found[0].answer) == (prompt, answer)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused_by_name(name, tmp_path):
    records, said = REFUSED[name]
    with pytest.raises(UserError, match=said):
        Facts.read(write(tmp_path, records))


def test_mapped_lists_subjects_and_what_is_wrong_with_columns(tmp_path):
    records, columns, _ = SCHEMAS["zsRE"]
    found = Facts.read(write(tmp_path, records), columns=columns)[0]
    assert (found.subject, found.held_out) == ("Ann", ("Ann is where?",))
    assert Facts.read(write(tmp_path, SCHEMAS["MQuAKE"][0]), columns=SCHEMAS["MQuAKE"][1])[0].distractors == ("Oslo",)
    for given, said in (
        ({"prompt": "src", "title": "x"}, "a fact has no field 'title'"),
        ({"answer": "answers"}, "which one holds the prompt"),
        ({"prompt": "nowhere"}, "line 1: the field 'nowhere' is missing; it has 'subject', 'src'"),
    ):
        with pytest.raises(UserError, match=said):
            Facts.read(write(tmp_path, records), columns=given)


def test_packed_and_tabular_files_hold_the_same(tmp_path):
    records = [
        {"prompt": "Rome is in", "answer": "Italy", "distractors": ["Spain", "Chad"]},
        {"prompt": "Oslo is in", "answer": "Norway", "distractors": ["Peru"]},
    ]
    plain = Facts.read(write(tmp_path, records))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "facts.jsonl").read_bytes()))
    pd.DataFrame(records).to_parquet(tmp_path / "b.parquet")
    cells = pd.DataFrame(records).assign(distractors=lambda table: table["distractors"].map(json.dumps))
    cells.to_csv(tmp_path / "c.csv", index=False)
    cells.to_csv(tmp_path / "d.tsv", index=False, sep="\t")
    pd.DataFrame(records).to_csv(tmp_path / "e.csv", index=False)  # lists as pandas writes them: ['Spain', 'Chad']
    (tmp_path / "f.csv.gz").write_bytes(gzip.compress((tmp_path / "c.csv").read_bytes()))
    for name in ("a.jsonl.gz", "b.parquet", "c.csv", "d.tsv", "e.csv", "f.csv.gz"):
        assert list(Facts.read(tmp_path / name)) == list(plain), name
    (tmp_path / "g.jsonl.gz").write_bytes((tmp_path / "a.jsonl.gz").read_bytes()[:-9])
    (tmp_path / "h.parquet").write_bytes(b"no")
    for name, said in (("g.jsonl.gz", "not a whole gzip file"), ("h.parquet", "not a readable Parquet file")):
        with pytest.raises(UserError, match=said):
            Facts.read(tmp_path / name)


def choice(answer, choices=CHOICES):
    return {"question": "What?", "choices": choices, "answer": answer}


def test_the_key_of_a_choice_is_decided_by_all_records(tmp_path, caplog):
    def answers(*records, **options):
        return [fact.answer for fact in Facts.read(write(tmp_path, records), **options)]

    assert answers(choice("A"), choice("C")) == ["sun", "tide"]
    assert answers(choice(0), choice(2)) == ["sun", "tide"]
    assert answers(choice(1), choice(3)) == ["sun", "tide"]  # 3 of three choices: counted from 1
    assert answers(choice("moon"), choice("sun")) == ["moon", "sun"]
    with caplog.at_level(logging.WARNING):
        assert answers(choice(1), choice(2)) == ["moon", "tide"]
    assert "counted from 0" in caplog.text
    assert answers(choice(1), choice(2), keys="number from 1") == ["sun", "moon"]
    numbers = ["2", "0", "1"]
    with pytest.raises(
        UserError, match=r"'0' is the choice '0' if it is a text, and '2' if it is a number from 0; say which"
    ):
        answers(choice("0", numbers), choice("1", numbers))
    assert answers(choice("0", numbers), choice("1", numbers), keys="text") == ["0", "1"]
    assert answers(choice("0", numbers), choice("1", numbers), keys="number from 0") == ["2", "0"]
    letters = ["B", "C", "A"]
    with pytest.raises(UserError, match="if it is a text, and 'B' if it is a letter"):
        answers(choice("A", letters))


@pytest.mark.parametrize("answer", ["BC", "AB", "ABC", "D"])
def test_several_letters_are_no_letter(answer, tmp_path):
    with pytest.raises(UserError, match="a number from 0 to 2, a letter A to C, or a choice, the same in all records"):
        Facts.read(write(tmp_path, [choice(answer)]))


def test_what_is_left_out_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        Facts.read(write(tmp_path, [{"question": "Where?", "answer": "Rome", "context": "It is Rome.", "split": "x"}]))
    assert "read as question-answer; fields that were left out: context, split" in caplog.text


def test_a_concept_at_two_places_is_two_records(tmp_path):
    records = [{"Concept": "Sign", "Layer": layer, "Dim": dim, "QA": ["What?"], "unrelated_QA": ["Who?"]}
               for layer, dim in ((26, 878), (21, 10))]  # fmt: skip
    found = Facts.read(write(tmp_path, records))
    assert [fact.id for fact in found] == [
        "Sign@26.878/0", "Sign@26.878/unrelated/0", "Sign@21.10/0", "Sign@21.10/unrelated/0",
    ]  # fmt: skip
    assert {fact.subject for fact in found} == {"Sign"}
    assert [fact.id for fact in Facts.read(write(tmp_path, records[:1]))] == ["Sign/0", "Sign/unrelated/0"]


@torch.no_grad()
def test_the_truth_ratio_is_tofus(tmp_path):
    """mean over wrong answers of P(a|q)^(1/|a|), over the same of the right answer in other words; by plain passes."""
    words = word_level([f"w{i}" for i in range(3, 96)], tmp_path)
    model = load(tiny("llama"), tokenizer=words)
    row = {"question": "w5 w6 w7", "answer": "w8 w9", "paraphrased_answer": "w9 w10 w8",
           "perturbed_answer": ["w20 w21", "w22", "w23 w24 w25"], "paraphrased_question": "w6 w5"}  # fmt: skip
    facts = Facts.read(write(tmp_path, [row]))
    assert facts[0].paraphrased_answer == "w9 w10 w8"
    plain = facts.with_items(facts)
    object.__setattr__(plain, "template", type(facts.template)())  # one token a word: no "Question:"

    def per_token(answer):
        tokens = tokenize(Facts([Fact(row["question"], answer)]), words)
        logs = hf(model)(tokens.ids).logits[tokens.predicts].double().log_softmax(-1)
        return math.exp(float(logs.gather(-1, tokens.targets[:, None]).mean()))

    wrong = [per_token(answer) for answer in row["perturbed_answer"]]
    ratio = sum(wrong) / len(wrong) / per_token(row["paraphrased_answer"])
    found = evaluate(model, plain, measures=["truth_ratio_arithmetic"], prompts="own", progress=False).frame
    assert found["truth_ratio_arithmetic"].item() == pytest.approx(min(ratio, 1 / ratio), rel=1e-4)
