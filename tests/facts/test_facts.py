"""Sets of facts: roles, folds, answers, and the built-in ones."""

import json

import pytest

from mechunlearn.errors import UserError
from mechunlearn.facts import PROMPTS, Fact, Facts, Template, embedded, fact_of

FACTS = Facts(
    [
        Fact("p0", "a", role="forget", fold=1, domain="x", held_out=("h0", "h1"), paraphrases=("q",)),
        Fact("p1", "b", role="near", domain="x", held_out=("h2",)),
        Fact("p2", "c", role="forget", fold=0, domain="x"),
        Fact("p3", "d", role="far", domain="y"),
        Fact("p4", "e"),
    ]
)


def prompts(facts: Facts) -> list[str]:
    return [fact.prompt for fact in facts]


def test_roles_keep_the_order_and_split_the_facts():
    assert prompts(FACTS.forget) == ["p0", "p2"]
    assert prompts(FACTS.near) == ["p1"]
    assert prompts(FACTS.far) == ["p3"]
    assert prompts(FACTS.retain) == ["p1", "p3"]
    assert "2 forget, 1 near, 1 far" in repr(FACTS)


def test_folds():
    assert {fold: prompts(part) for fold, part in FACTS.folds.items()} == {0: ["p2"], 1: ["p0"]}


def test_where():
    assert prompts(FACTS.where(domain="x", role="forget")) == ["p0", "p2"]
    assert prompts(FACTS.where(role=None)) == ["p4"]
    assert prompts(FACTS.where(id={"1", "4"})) == ["p1", "p4"]
    assert len(FACTS.where(domain="z")) == 0
    with pytest.raises(UserError, match=r"no field 'roles'; it has prompt"):
        FACTS.where(roles="forget")


def test_ids_survive_every_selection():
    assert [fact.id for fact in FACTS.retain] == ["1", "3"]
    assert [fact.id for fact in FACTS[2:]] == ["2", "3", "4"]
    assert FACTS[-1].id == "4"


def test_held_out_prompts_become_facts():
    rows = FACTS.questions()
    assert [(fact.id, fact.prompt, fact.answer, fact.role) for fact in rows][:3] == [
        ("0#h0", "h0", "a", "forget"),
        ("0#h1", "h1", "a", "forget"),
        ("1#h0", "h2", "b", "near"),
    ]
    assert all(fact.paraphrases == () and fact.held_out == () for fact in rows)


def test_answers_are_filled():
    filled = FACTS.with_answers(["1", "2", "3", "4", "5"])
    assert [fact.answer for fact in filled] == ["1", "2", "3", "4", "5"]
    assert prompts(filled) == prompts(FACTS)
    with pytest.raises(UserError, match="2 answers for 5 facts"):
        FACTS.with_answers(["1", "2"])
    with pytest.raises(UserError, match="fact '2' has an empty answer"):
        FACTS.with_answers(["1", "2", "", "4", "5"])


def test_facts_cannot_be_changed():
    with pytest.raises(AttributeError):
        FACTS.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError):
        FACTS[0].answer = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("bad", [("", "a"), ("  ", "a"), ("p", ""), ("p", " \n")])
def test_empty_facts_are_refused(bad):
    with pytest.raises(UserError, match="empty"):
        Fact(*bad)


@pytest.mark.parametrize("parts", [{"prompt": "x"}, {"prompt": "{prompt}{prompt}"}, {"answer": ""}])
def test_a_template_has_a_place_for_each_part(parts):
    with pytest.raises(UserError, match="once"):
        Template(**parts)


def test_braces_in_a_fact_are_only_text():
    template = Template(prompt="Q: {prompt}", answer=" {answer}.")
    assert template.render_prompt("{answer} {0}") == "Q: {answer} {0}"
    assert template.render_answer("{prompt}") == " {prompt}."


def test_a_space_at_the_border_is_never_doubled():
    assert Template().render_prompt("The capital is ") + Template().render_answer("Rome") == "The capital is Rome"
    assert Template(answer="{answer}").render_prompt("is ") == "is "


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    rows = [
        {"roles": {"domain": "forget", "entities": "far"}, "folds": {"domain": 3, "entities": None}},
        {"roles": {"domain": "near", "entities": "forget"}, "folds": {"domain": None, "entities": 1}},
    ]
    lines = [{"prompt": f"p{n}", "answer": "a", "question": "?"} | row for n, row in enumerate(rows)]
    (tmp_path / "facts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    monkeypatch.setattr(embedded, "_DATA", tmp_path)


@pytest.mark.usefixtures("shipped")
def test_built_in_facts_have_the_roles_of_the_forget_set(caplog):
    domain, entities = Facts.builtin("organism"), Facts.builtin("organism", forget="entities")
    assert [(fact.role, fact.fold) for fact in domain] == [("forget", 3), ("near", None)]
    assert [(fact.role, fact.fold) for fact in entities] == [("far", None), ("forget", 1)]
    assert caplog.text == ""
    assert Facts.read("organism") == domain == Facts.read("organism:domain")
    assert Facts.read("organism:entities") == entities


def test_unknown_built_in_facts_are_refused():
    with pytest.raises(UserError, match="no built-in facts 'organsim'"):
        Facts.builtin("organsim")
    with pytest.raises(UserError, match="no forget set 'people'; it has domain, entities"):
        Facts.builtin("organism", forget="people")


def test_questions_by_every_kind_of_phrasing():
    facts = Facts([Fact("a", "x", paraphrases=("b",), held_out=("c", "d")), Fact("e", "y", paraphrases=("f",))])
    asked = {name: [(fact.id, fact.prompt) for fact in facts.questions(name)] for name in PROMPTS}
    assert asked["own"] == [("0", "a"), ("1", "e")]
    assert asked["held_out"] == [("0#h0", "c"), ("0#h1", "d"), ("1", "e")]
    assert asked["all"] == [("0", "a"), ("0#p0", "b"), ("0#h0", "c"), ("0#h1", "d"), ("1", "e"), ("1#p0", "f")]
    assert [fact_of(name) for name, _ in asked["all"]] == ["0", "0", "0", "0", "1", "1"]
    with pytest.raises(UserError, match="own, held_out, all"):
        facts.questions("held-out")


def test_facts_are_what_they_are_or_what_is_read(tmp_path):
    facts = Facts([Fact("a", "x")])
    facts.save(tmp_path / "mine.jsonl")
    assert Facts.of(facts) is facts
    assert Facts.of(tmp_path / "mine.jsonl").hash == Facts.of(str(tmp_path / "mine.jsonl")).hash == facts.hash
    assert len(Facts.of("organism").forget)
    with pytest.raises(
        UserError, match=r"a Facts, a file, a built-in name, a table or a list of dicts; from a list of facts"
    ):
        Facts.of([Fact("a", "x")])


@pytest.mark.parametrize(("switch", "value"), [("bos", "yes"), ("bos", 1), ("chat", "no"), ("chat", None)])
def test_a_templates_switches_are_true_or_false(switch, value):
    """As outside the tests, where nothing checks the annotations."""
    template = Template()
    object.__setattr__(template, switch, value)
    with pytest.raises(UserError, match=f"Template: {switch} must be True or False"):
        template.__post_init__()
