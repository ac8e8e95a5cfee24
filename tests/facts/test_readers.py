"""Every format, on excerpts of the real files where there are any."""

import json
import logging
from pathlib import Path

import pytest

from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts, Template

DATA = Path(__file__).parent.parent / "data"
CHOICE = {"question": "What barks?", "choices": ["cat", "dog", "cow", "hen"], "answer": 1, "subject": "animals"}


def write(folder: Path, *rows: object, name: str = "facts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_tofu():
    facts = Facts.read(DATA / "tofu.jsonl")
    assert (facts.format, facts.name, len(facts)) == ("question-answer", "tofu", 4)
    assert facts[1].prompt == "What gender is author Basil Mahfouz Al-Kuwaiti?"
    assert facts[1].answer == "Author Basil Mahfouz Al-Kuwaiti is male."
    assert [fact.id for fact in facts] == ["0", "1", "2", "3"]
    assert facts.template.render_prompt("Who?") == "Question: Who?\nAnswer:"


def test_tofu_with_paraphrases_and_wrong_answers():
    facts = Facts.read(DATA / "tofu_perturbed.jsonl")
    assert facts.format == "question-answer"
    assert facts[0].held_out[0].startswith("Can you tell me the complete name of the writer")
    assert len(facts[0].distractors) == 5
    assert facts[0].answer not in facts[0].distractors
    assert facts[0].paraphrases == ()


def test_tofu_as_a_json_array_keeps_its_numbers():
    facts = Facts.read(DATA / "tofu_spans.json")
    assert facts.format == "question-answer"
    assert [fact.id for fact in facts] == ["0", "1", "2"]
    assert facts[0].answer == "The author's full name is Hsiao Yun-Hwa."


def test_counterfact():
    facts = Facts.read(DATA / "counterfact.json")
    assert facts.format == "counterfact"
    assert (len(facts.forget), len(facts.near), len(facts.far)) == (2, 6, 0)
    first = facts[0]
    assert first.prompt == "The mother tongue of Danielle Darrieux is"
    assert (first.answer, first.distractors, first.relation) == ("French", ("English",), "P103")
    assert (first.subject, first.id, len(first.held_out)) == ("Danielle Darrieux", "0", 2)
    neighbour = facts.near[0]
    assert (neighbour.id, neighbour.answer, neighbour.subject) == ("0/near/0", "French", None)
    assert neighbour.prompt == "The mother tongue of Léon Blum is"
    assert [fact.id for fact in facts.forget.questions()][:3] == ["0#h0", "0#h1", "1#h0"]


def test_conceptvectors():
    facts = Facts.read(DATA / "conceptvectors.json")
    assert facts.format == "conceptvectors"
    assert (len(facts.forget), len(facts.far)) == (10, 6)
    poland = facts.where(subject="Poland")
    assert poland.forget[3].id == "Poland/3"
    assert poland.far[0].id == "Poland/unrelated/0"
    assert poland[0].prompt == "What is the capital city of Poland?"
    assert all(fact.answer is None for fact in facts)
    assert facts.template.render_prompt(poland[0].prompt).endswith("?\n Answer:")


@pytest.mark.parametrize("answer", [1, "1", "B", "b", "dog"])
def test_multiple_choice_however_the_answer_is_given(tmp_path, answer):
    facts = Facts.read(write(tmp_path, CHOICE | {"answer": answer}))
    assert facts.format == "multiple-choice"
    assert (facts[0].prompt, facts[0].answer, facts[0].domain) == ("What barks?", "dog", "animals")
    assert facts[0].distractors == ("cat", "cow", "hen")


def test_multiple_choice_with_letters(tmp_path):
    facts = Facts.read(write(tmp_path, CHOICE), format="multiple-choice-letters")
    assert facts.format == "multiple-choice-letters"
    text = facts.template.render_prompt(facts[0].prompt) + facts.template.render_answer(facts[0].answer)
    assert text == "Question: What barks?\nA. cat\nB. dog\nC. cow\nD. hen\nAnswer: B"
    assert facts[0].distractors == ("A", "C", "D")


@pytest.mark.parametrize("answer", [5, -1, "E", "", "wolf", None, True, 1.5])
def test_an_answer_that_is_no_choice_is_refused(tmp_path, answer):
    with pytest.raises(UserError, match=r"facts.jsonl, line 2.*'answer'.*0 to 3"):
        Facts.read(write(tmp_path, CHOICE, CHOICE | {"answer": answer}))


def test_own_format_with_everything(tmp_path):
    row = {
        "prompt": "The capital of France is",
        "answer": "Paris",
        "id": 7,
        "subject": "France",
        "relation": "capital",
        "paraphrases": ["France's capital is"],
        "held_out": ["The seat of the French government is"],
        "distractors": ["Lyon", "Rome"],
        "domain": "geography",
        "fold": 2,
        "role": "forget",
    }
    facts = Facts.read(write(tmp_path, row, {"prompt": "And of Italy?", "answer": None}))
    assert facts.format == "own"
    first = facts[0]
    assert {key: getattr(first, key) for key in row} == row | {
        "id": "7",
        **{key: tuple(row[key]) for key in ("paraphrases", "held_out", "distractors")},
    }
    assert facts[1].answer is None and facts[1].id == "1" and facts[1].role is None


def test_own_format_says_which_fields_it_ignores(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        Facts.read(write(tmp_path, {"prompt": "p", "answer": "a", "paraphrase": ["typo"]}))
    assert "paraphrase" in caplog.text


def test_the_format_taken_is_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        facts = Facts.read(write(tmp_path, {"prompt": "p", "answer": "a"}))
    assert "read as own" in caplog.text
    assert "own" in repr(facts)


ROWS = [{"prompt": "p, q", "answer": "a"}, {"prompt": "r\u2028s", "answer": "é"}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps({"facts": ROWS, "version": 3}),
        "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\r\n\r\n",
        "\n" + "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    ],
    ids=["array", "indented array", "wrapped", "lines with BOM and CRLF", "lines, blank first"],
)
def test_every_shape_of_json_gives_the_same_facts(tmp_path, text):
    path = tmp_path / "facts.json"
    path.write_bytes(text.encode())
    assert [(fact.prompt, fact.answer) for fact in Facts.read(path)] == [("p, q", "a"), ("r\u2028s", "é")]


def test_one_record_alone_is_one_fact(tmp_path):
    assert len(Facts.read(write(tmp_path, ROWS[0]))) == 1


def test_csv(tmp_path):
    path = tmp_path / "facts.csv"
    path.write_text(
        'prompt,answer,paraphrases,fold,role\n"one, two",three,"[""a"", ""b""]",1,forget\n"two\nlines",[four],,,\n',
        encoding="utf-8",
    )
    facts = Facts.read(path)
    assert (facts[0].prompt, facts[0].paraphrases, facts[0].fold) == ("one, two", ("a", "b"), 1)
    assert (facts[1].prompt, facts[1].answer, facts[1].fold, facts[1].role) == ("two\nlines", "[four]", None, None)


@pytest.mark.parametrize("name", ["tofu_perturbed.jsonl", "counterfact.json", "conceptvectors.json"])
def test_what_is_saved_is_read_again(tmp_path, name):
    facts = Facts.read(DATA / name)
    facts.save(tmp_path / "saved.jsonl")
    again = Facts.read(tmp_path / "saved.jsonl")
    assert again.items == facts.items
    assert again.template == facts.template
    assert again.hash == facts.hash
    assert [path.name for path in tmp_path.iterdir()] == ["saved.jsonl"]


def test_the_hash_is_of_the_content(tmp_path):
    facts = Facts.read(DATA / "tofu.jsonl")
    assert Facts(facts, name="other", template=facts.template).hash == facts.hash
    assert facts[:3].hash != facts.hash
    assert Facts(facts, template=Template()).hash != facts.hash


GOOD = '{"prompt": "p", "answer": "a"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"facts.jsonl is empty"),
        (" \n\n", r"facts.jsonl is empty"),
        ("[]", r"holds no facts"),
        (GOOD + '{"prompt": "q", "answer": \n' + GOOD, r"facts.jsonl, line 2, column .*not valid JSON"),
        (GOOD + "\n\nnonsense\n", r"facts.jsonl, line 4"),
        ('[\n{"prompt": "p", "answer": "a"},\n{"prompt": oops}\n]', r"facts.jsonl, line 3, column"),
        (GOOD + "[1, 2]\n", r"facts.jsonl, line 2: a fact is an object"),
        ('[{"prompt": "p", "answer": "a"}, "q"]', r"facts.jsonl, item 2: a fact is an object"),
        ('"text"', r"line 1: a fact is an object"),
        (GOOD + '{"prompt": "q", "reply": "a"}', r"line 2: the field 'answer' is missing; it has 'prompt', 'reply'"),
        (GOOD + '{"answer": "a"}', r"line 2: the field 'prompt' is missing"),
        (GOOD + '{"prompt": "q", "answer": " "}', r"line 2: the field 'answer' is empty"),
        (GOOD + '{"prompt": "q", "answer": 3}', r"line 2: the field 'answer' must be a text, not 3"),
        (GOOD + '{"prompt": "q", "answer": "a", "fold": "x"}', r"line 2: the field 'fold' must be a whole number"),
        (GOOD + '{"prompt": "q", "answer": "a", "role": "keep"}', r"line 2: .*role 'keep'.*forget, near, far"),
        (GOOD + '{"prompt": "q", "answer": "a", "held_out": [1]}', r"line 2: the field 'held_out' must be a list"),
        (GOOD + '{"prompt": "q", "answer": "a", "held_out": [""]}', r"line 2: .*empty text among its held_out"),
        ('{"id": "x", "prompt": "p", "answer": "a"}\n' * 2, r"facts 1 and 2 have the same id 'x'"),
        ('{"text": "p"}', r"line 1: no known format has these fields: 'text'; known are conceptvectors"),
        ('{"template": {"prompt": "no place"}}\n' + GOOD, r"line 1: not a template"),
        ('{"template": {"colour": "red"}}\n' + GOOD, r"line 1: not a template"),
        ('{"template": {"prompt": "{prompt}"}}\n', r"facts.jsonl.*no fact"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_the_place(tmp_path, content, message):
    path = tmp_path / "facts.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        Facts.read(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        Facts.read(tmp_path)
    with pytest.raises(UserError, match=r"there is no file .*missing\.json"):
        Facts.read(tmp_path / "missing.json")
    with pytest.raises(UserError, match="built-in facts are organism"):
        Facts.read("organsim")


def test_other_encodings_are_refused_with_the_line(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_bytes(GOOD.encode() + '{"prompt": "café", "answer": "a"}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        Facts.read(path)


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(UserError, match=r"no format 'xml'; known are .*question-answer, own"):
        Facts.read(DATA / "tofu.jsonl", format="xml")


def test_the_wrong_format_names_the_missing_field():
    with pytest.raises(UserError, match=r"tofu.jsonl, line 1: the field 'choices' is missing"):
        Facts.read(DATA / "tofu.jsonl", format="multiple-choice")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt,answer\np,a,b\n", "line 2: more cells than columns"),
        ("prompt,answer\np,\n", "line 2: the field 'answer' is missing"),
        ('prompt,answer\n"p,a\n', "not valid CSV"),
        ("prompt,answer\n", "holds no facts"),
    ],
)
def test_bad_csv(tmp_path, content, message):
    path = tmp_path / "facts.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        Facts.read(path)


def test_counterfact_without_a_place_for_the_subject(tmp_path):
    rows = json.loads((DATA / "counterfact.json").read_text(encoding="utf-8"))
    rows[1]["requested_rewrite"]["prompt"] = "no place"
    with pytest.raises(UserError, match=r"item 2, requested_rewrite: the field 'prompt' must be"):
        Facts.read(write(tmp_path, rows, name="counterfact.json"))


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.parquet", "a.jsonl.gz"])
def test_a_name_that_would_be_read_as_something_else_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"kept as JSON lines.*facts\.jsonl"):
        Facts([Fact("p", "a")]).save(tmp_path / name)
    with pytest.raises(UserError, match="no facts to keep"):
        Facts([]).save(tmp_path / "a.jsonl")
    assert not list(tmp_path.iterdir())
