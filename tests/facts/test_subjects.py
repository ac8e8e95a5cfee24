"""The tokens of a subject are those that hold its characters, in the text that is really asked."""

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts, Template, mark_subjects, tokenize
from mechunlearn.facts.subjects import mention

from .test_chat import SYSTEM, TEMPLATES, chatting
from .test_tokens import Slow
from .tokenizers import BYTES, byte_level, byte_level_bos, metaspace, words

WORDS = st.sampled_from(["Basil", "Mahfouz", "Kuwait City", "naïve café", "東京", "the", "Ω", "🙂", "Paris.", "("])
PIECES = st.lists(WORDS, max_size=4).map(" ".join)


def marked(fact, tokenizer, template=None):
    tokens = mark_subjects(tokenize([fact], tokenizer, template), [fact], tokenizer, template)
    return tokens, tokenizer.decode(tokens.ids[tokens.subjects], clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", ["byte_level", "byte_level_bos"])
@settings(max_examples=150, deadline=None)
@given(before=PIECES, subject=WORDS, behind=PIECES, gap=st.sampled_from(["", " ", "  ", "\n"]))
def test_a_token_is_the_subjects_if_it_holds_a_byte_of_it(name, before, subject, behind, gap):
    """The oracle: tokens of bytes spell the text byte by byte, so that places can be counted without offsets."""
    tokenizer = BYTES[name]()
    prompt = f"{before}{gap}{subject}{gap}{behind}"
    fact = Fact(prompt, "Paris", subject=subject)
    place = mention(subject, prompt, prompt.rstrip(" "), Template())
    assert place is not None and prompt[slice(*place)] == subject
    first, last = (len(prompt[:end].encode()) for end in place)
    tokens, _ = marked(fact, tokenizer)
    at, held = 0, []
    for token in tokens.ids[0].tolist():
        spelt = tokenizer.convert_ids_to_tokens(token)
        size = 0 if token in tokenizer.all_special_ids else len(spelt)  # a letter of its spelling is a byte
        held.append(at < last and at + size > first)
        at += size
    assert tokens.subjects is not None
    assert tokens.subjects[0].tolist() == held


@pytest.mark.parametrize("name", BYTES)
@settings(max_examples=60, deadline=None)
@given(before=PIECES, subject=WORDS, behind=PIECES)
def test_the_marked_tokens_spell_the_subject_and_none_of_them_is_spare(name, before, subject, behind):
    tokenizer = BYTES[name]()
    assume("Ω" not in subject + before + behind)  # "the" bytes of which a BPE may join with others
    tokens, text = marked(Fact(f"{before} {subject} {behind}", "Paris", subject=subject), tokenizer)
    assert subject in text
    ids = tokens.ids[tokens.subjects]
    assert all(subject not in tokenizer.decode(part) for part in (ids[1:], ids[:-1]))
    assert not (tokens.subjects & (tokens.answers | ~tokens.attention.bool())).any()


@pytest.mark.parametrize("template", [Template(), Template(bos=True), Template("Question: {prompt}\nAnswer:")])
@pytest.mark.parametrize("name", BYTES)
def test_a_subject_at_the_start_of_the_prompt(name, template):
    tokenizer = BYTES[name]()
    tokens, text = marked(Fact("Basil Mahfouz lives in", "Paris", subject="Basil Mahfouz"), tokenizer, template)
    assert text.strip().removeprefix(": ") == "Basil Mahfouz"  # this Metaspace has tokens across words
    assert tokens.subjects is not None and tokens.subjects.sum() > 1
    starts = int(tokens.subjects[0].int().argmax())
    plain = template.prompt == "{prompt}"
    assert starts == (name != "byte_level" or template.bos is True) if plain else starts > 2


@pytest.mark.parametrize(
    ("subject", "prompt", "place"),
    [
        ("Ann", "Ann met Ann in", (8, 11)),  # the last mention
        ("Ann", "Ann lives in Annville, in", (0, 3)),  # as a word of its own, where there is one
        ("Ann", "Annville is in", (0, 3)),
        ("東京", "大東京と東京の首都は", (4, 6)),
        ("New York", "In New\n York lives", (3, 12)),
        (" Ann ", "So Ann's name is", (3, 6)),
        ("(A)", "of (A)b", (3, 6)),
        ("Ann", "ann lives in", None),
        ("aba", "ababa is", (2, 5)),
    ],
)
def test_which_mention_counts(subject, prompt, place):
    assert mention(subject.strip(), prompt, prompt, Template()) == place


def test_what_a_template_says_is_no_mention():
    template = Template("Answer: who is A? {prompt}\nAnswer A:")
    text = template.render_prompt("Is A what Answer is?")
    assert mention("A", "Is A what Answer is?", text, template) == (21, 22)
    assert mention("Answer", "Is A what Answer is?", text, template) == (28, 34)
    assert mention("who", "Is A what Answer is?", text, template) is None
    assert mention("A", "A", template.render_prompt("A"), template) == (18, 19)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("base", [byte_level, byte_level_bos])
def test_in_a_conversation_it_is_the_users_turn_that_counts(name, base):
    fact = Fact("Where does Basil  Mahfouz live?", "Basil", subject="Basil Mahfouz")
    system = "Basil Mahfouz and user are names."
    source = (SYSTEM + TEMPLATES[name]) if "Llama" not in name else TEMPLATES[name]
    template = Template(chat=True, system=None if "Llama" in name else system)
    tokens, text = marked(fact, chatting(source, base), template)
    assert text.strip() == "Basil  Mahfouz"
    assert tokens.subjects is not None
    first = int(tokens.subjects[0].int().argmax())
    before = chatting(source, base).decode(tokens.ids[0, :first])
    assert before.endswith("Where does") and before.count("Mahfouz") == bool(template.system)
    with pytest.raises(UserError, match="no prompt mentions its subject"):  # the name of a role, before the turn
        marked(Fact("Who lives?", "Basil", subject="user"), chatting(source, base), template)


def test_rows_without_a_mention_have_none_and_a_table_of_others_is_refused():
    facts = Facts([Fact("Paris is in", "France", subject="Paris"), Fact("who was born", "Basil"),
                   Fact("the author lives in", "New York", subject="Basil")])  # fmt: skip
    tokens = tokenize(facts, words())
    assert tokens.subjects is None
    found = mark_subjects(tokens, facts, words())
    assert found.subjects is not None and found.subjects.sum(1).tolist() == [1, 0, 0]
    for part in (found[[1, 0]], found.to("cpu")[1::-1].trim(), found.columns(2)[[1, 0]]):  # it goes where the rows go
        assert part.subjects is not None
        assert torch.equal(part.subjects, found.subjects[[1, 0], : part.ids.shape[1]])
    with pytest.raises(UserError, match=r"row 1 of the tokens is not made of the fact '2'"):
        mark_subjects(tokens, facts.with_items([facts[0], facts[2], facts[1]]), words())


def test_a_token_of_the_answer_is_none_of_the_subject():
    """A token that straddles the border is the answer's; a subject inside it has no place."""
    template = Template(answer="{answer}")
    fact = Fact("who was born in Par", "is", subject="Par")
    tokenizer = byte_level()
    tokens = tokenize([fact], tokenizer, template)
    assert tokenizer.decode(tokens.targets) == " Paris"
    found = mark_subjects(tokens, [fact], tokenizer, template)
    assert found.subjects is not None and not found.subjects.any()


def test_metaspace_takes_the_space_with_the_word():
    _, text = marked(Fact("the author Basil Mahfouz lives in", "Paris", subject="Basil Mahfouz"), metaspace())
    assert text.strip() == "Basil Mahfouz"


@pytest.mark.parametrize(
    ("facts", "tokenizer", "said"),
    [
        ([Fact("who", "Basil")], words, "none of these 1 questions has a subject"),
        ([Fact("who", "Basil", subject=" ")], words, "has a subject"),
        ([Fact("who", "Basil", subject="Ann")], words, "'Ann' does not stand in 'who'"),
        ([Fact("a b", "c", subject="a")], lambda: Slow(1), "gives no offsets"),
    ],
)
def test_what_cannot_be_found_is_said(facts, tokenizer, said):
    tokenizer = tokenizer()
    with pytest.raises(UserError, match=said):
        mark_subjects(tokenize(facts, tokenizer), facts, tokenizer)
