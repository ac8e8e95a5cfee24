"""From facts to tokens: the mask is right for every kind of tokenizer and every kind of text."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

from mechunlearn.errors import UserError
from mechunlearn.evaluation import evaluate, greedy_answers, text_loss
from mechunlearn.facts import Fact, Facts, Template, paper_positions, prompt_tokens, tokenize, tokenize_texts
from mechunlearn.facts.starts import start_tokens, unused_bos
from mechunlearn.facts.tokens import PASSAGE
from mechunlearn.models import load

from ..architectures import VOCABULARY, tiny
from ..pairs import word_level
from .tokenizers import BYTES, byte_level, byte_level_bos, metaspace, words

# Everything a text may hold, but "▁" (which Metaspace cannot tell from a space) and "<" (which begins special tokens).
LETTERS = st.one_of(
    st.sampled_from(" \n'\"?.,abcdePthisQ é東京שלוםمرحبا🙂👩‍👧é"),
    st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co"), exclude_characters="▁<\ufffd"),
)
TEXTS = st.text(LETTERS, min_size=1, max_size=14).filter(lambda text: text.strip() != "")
FACTS = st.builds(Fact, prompt=TEXTS, answer=TEXTS)
TEMPLATES = st.sampled_from(
    [Template(), Template("Question: {prompt}\nAnswer:"), Template(answer="{answer}"), Template(answer=": {answer}\n")]
)  # fmt: skip


def decode(tokenizer, ids) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", BYTES)
@settings(max_examples=120, deadline=None)
@given(fact=FACTS, template=TEMPLATES)
def test_the_answer_tokens_are_the_fewest_that_spell_the_answer(name, fact, template):
    tokenizer = BYTES[name]()
    tokens = tokenize([fact], tokenizer, template)
    answer = template.render_answer(fact.answer).lstrip()
    scored = tokens.ids[tokens.answers]
    text = decode(tokenizer, scored)
    assert text.endswith(answer)
    # Whatever stands before it came with a token that straddles the border ...
    assert decode(tokenizer, scored[1:]).endswith(answer) is False
    # ... and the whole row spells prompt and answer.
    whole = template.render_prompt(fact.prompt) + template.render_answer(fact.answer)
    assert tokenizer.decode(tokens.ids[0], skip_special_tokens=True) == whole


@given(st.lists(st.sampled_from(["capital", "France", "Paris", "born"]), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_words_are_given_back(answer):
    tokens = tokenize([Fact("The capital of", " ".join(answer))], words())
    assert words().decode(tokens.ids[tokens.answers]) == " ".join(answer)


@pytest.mark.parametrize("name", BYTES)
@settings(max_examples=60, deadline=None)
@given(facts=st.lists(FACTS, min_size=1, max_size=5), data=st.data())
def test_masks_hold_together_and_do_not_depend_on_the_batch(name, facts, data):
    tokenizer = BYTES[name]()
    tokens = tokenize(facts, tokenizer)
    attended = tokens.attention.bool()
    assert not (tokens.answers & ~attended).any()
    assert not (tokens.predicts & ~attended).any()
    assert not tokens.predicts[:, -1].any()
    assert not tokens.answers[:, 0].any()
    assert torch.equal(tokens.predicts[:, :-1], tokens.answers[:, 1:])
    assert torch.equal(tokens.targets, tokens.ids[tokens.answers])
    assert torch.equal(tokens.prompt | tokens.answers, attended)
    assert not (tokens.prompt & tokens.answers).any()
    assert (attended.int().diff(dim=1) <= 0).all()  # padding only on the right
    order = data.draw(st.permutations(range(len(facts))))
    again = tokenize([facts[place] for place in order], tokenizer)
    for row, place in enumerate(order):
        alone, here, there = tokenize([facts[place]], tokenizer), again[[row]].trim(), tokens[[place]].trim()
        for part in ("ids", "attention", "predicts", "answers"):
            assert torch.equal(getattr(here, part), getattr(alone, part))
            assert torch.equal(getattr(there, part), getattr(alone, part))


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("The capital of France is", "Paris"),
        ("What is peace?", "שלום וברכה"),
        ("قال", "مرحبا بالعالم"),
        ("Smile 🙂", "🙂🙂👩‍👧"),
        ("東京は", "日本の首都"),
        ("ends with a space ", "x"),
        ("ends with a line\n", "naïve"),
    ],
)
@pytest.mark.parametrize("name", BYTES)
def test_scripts(name, prompt, answer):
    tokenizer = BYTES[name]()
    tokens = tokenize([Fact(prompt, answer)], tokenizer)
    assert decode(tokenizer, tokens.ids[tokens.answers]).strip() == answer


def test_a_token_that_straddles_the_border_belongs_to_the_answer():
    tokenizer = byte_level()
    ids = tokenizer(" capital")["input_ids"]
    assert len(ids) == 1, "the test needs a word of one token"
    tokens = tokenize([Fact("The cap", "ital")], tokenizer, Template(answer="{answer}"))
    assert tokens.ids[tokens.answers].tolist() == ids
    assert tokens.predicts[0].nonzero().flatten().tolist() == [tokens.ids.shape[1] - 2]


def test_a_space_that_stands_alone_is_no_answer():
    tokenizer = byte_level()
    tokens = tokenize([Fact("q?", "🙂")], tokenizer)  # "🙂" was merged without its space: " " is a token of its own
    spaced = [decode(tokenizer, [token]) for token in tokens.ids[tokens.answers]]
    assert decode(tokenizer, tokens.ids[tokens.answers]).strip() == "🙂"
    assert spaced[0] != " "


def test_bos_is_as_the_tokenizer_wants_it_and_never_doubled():
    fact, bos = Fact("The capital of France is", "Paris"), byte_level_bos().bos_token_id
    for tokenizer in (byte_level_bos(), metaspace()):
        row = tokenize([fact], tokenizer).ids[0].tolist()
        assert row == tokenizer("The capital of France is Paris")["input_ids"]
        assert row.count(tokenizer.bos_token_id) == 1
        written = tokenize([Fact("<s>The capital of France is", "Paris")], tokenizer).ids[0].tolist()
        assert written.count(tokenizer.bos_token_id) == 1 and written[0] == tokenizer.bos_token_id
    assert bos not in tokenize([fact], byte_level_bos(), Template(bos=False)).ids
    # GPT-2 has a BOS and does not add it.
    assert byte_level().bos_token_id not in tokenize([fact], byte_level()).ids
    assert tokenize([fact], byte_level(), Template(bos=True)).ids[0, 0] == byte_level().bos_token_id
    with pytest.raises(UserError, match="asks for a BOS token, but the tokenizer has none"):
        tokenize([fact], words(), Template(bos=True))


@pytest.mark.parametrize("spelling", [" Paris", "Paris\n", "Paris  ", "\tParis\n\n"])
def test_white_space_around_an_answer_changes_nothing(spelling):
    plain = tokenize([Fact("The capital of France is", "Paris", distractors=("New York",))], byte_level())
    spelt = Fact("The capital of France is", spelling, distractors=(" New York\n",), paraphrased_answer=spelling)
    assert spelt.answer == spelt.paraphrased_answer == "Paris" and spelt.distractors == ("New York",)
    found = tokenize([spelt], byte_level())
    assert torch.equal(found.ids, plain.ids) and torch.equal(found.predicts, plain.predicts)


@pytest.mark.parametrize("kind", ["BPE", "WordLevel"])
def test_start_tokens_are_found_where_the_vocabulary_has_no_letter(kind, tmp_path):
    """Digits alone, and no token for what is unknown."""
    entries = {word: number for number, word in enumerate(["<s>", "</s>", "1", "2", "3", "+", "="])}
    core = Tokenizer(models.BPE(vocab=entries, merges=[]) if kind == "BPE" else models.WordLevel(entries))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert start_tokens(tokenizer, None) == [0]
    assert tokenize([Fact("1 + 2 =", "3")], tokenizer, Template(answer=" {answer}")).ids.tolist() == [
        [0, 2, 5, 3, 6, 4]
    ]
    bridge = load(tiny("llama"), tokenizer=tokenizer)
    assert bridge.cfg.tokenizer_prepends_bos is True


def test_a_bos_that_the_tokenizer_has_and_does_not_add_is_said_and_holds_for_text_too(tmp_path):
    words_bos = word_level([f"w{i}" for i in range(3, 96)], tmp_path)
    assert unused_bos(words_bos, Template()) == [
        "the tokenizer has a BOS token (<s>) that it does not put before a text; Template(bos=True) does"
    ]
    assert unused_bos(words_bos, Template(bos=True)) == unused_bos(words_bos, Template(bos=False)) == []
    assert unused_bos(byte_level_bos(), Template()) == []
    plain, given = (tokenize_texts(["w5 w6 w7"], words_bos, bos=bos).ids.tolist()[0] for bos in (None, True))
    assert given == [words_bos.bos_token_id, *plain]
    assert tokenize_texts(["<s> w5 w6 w7"], words_bos, bos=True).ids.tolist() == [given]
    model = load(tiny("llama"), tokenizer=words_bos)
    facts = Facts([Fact("w5 w6", "w7")], template=Template(bos=True))
    text = ["w8 w9 w10 w11"]
    found = evaluate(model, facts, text=text, measures=["text_loss"], progress=False)
    with_bos = text_loss(model, tokenize_texts(text, words_bos, bos=True))
    assert found.texts["text_loss"].item() == pytest.approx(with_bos)
    assert abs(with_bos - text_loss(model, text)) > 1e-3
    assert any(
        "BOS token" in note for note in evaluate(model, Facts([Fact("w5 w6", "w7")]), progress=False).about["notes"]
    )


def test_a_pad_token_beyond_the_embedding_is_never_shown_to_the_model(tmp_path):
    words_pad = word_level([f"w{i}" for i in range(3, 96)], tmp_path)
    words_pad.add_special_tokens({"pad_token": "[PAD]"})
    assert words_pad.pad_token_id == VOCABULARY
    model = load(tiny("llama"), tokenizer=words_pad)
    facts = Facts([Fact("w5 w6 w7", "w8"), Fact("w9", "w10")])
    both = evaluate(model, facts, measures=["answer_logprob"], progress=False).frame["answer_logprob"]
    alone = [
        evaluate(model, facts[n : n + 1], measures=["answer_logprob"]).frame["answer_logprob"].item() for n in (0, 1)
    ]
    assert both.tolist() == pytest.approx(alone, rel=1e-5)
    words_pad.add_tokens(["new"])
    with pytest.raises(UserError, match=r"fact 'x': token 97 \('new'\) lies beyond the embedding of 96"):
        evaluate(model, Facts([Fact("w5 new", "w8", id="x")]), measures=["answer_logprob"], progress=False)
    with pytest.raises(UserError, match=r"fact 'y': token 97 \('new'\) lies beyond the embedding of 96"):
        greedy_answers(model, [Fact("w5", None), Fact("w6 new", None, id="y")], max_new_tokens=1)


def test_half_a_character_is_named_with_its_fact_and_field(tmp_path):
    with pytest.raises(UserError, match=r"fact 'smile': prompt holds half a character \('\\ud83d' at place 6"):
        Fact("smile \ud83d?", "yes", id="smile")
    with pytest.raises(UserError, match="distractors holds half a character"):
        Fact("smile", "yes", distractors=("no\udc00",))
    for field in ("subject", "relation", "domain", "paraphrased_answer"):  # a run folder could not be written
        with pytest.raises(UserError, match=f"{field} holds half a character"):
            Fact("smile", "yes", **{field: "x\ud83d"})
    for options in ({"prompt": "\ud83d {prompt}"}, {"chat": True, "system": "\ud83d"}):
        with pytest.raises(UserError, match=r"the template: (prompt|system) holds half a character"):
            Template(**options)
    (tmp_path / "s.json").write_text(
        '[{"question": "a", "answer": "b"}, {"question": "smile \\ud83d?", "answer": "yes"}]'
    )
    with pytest.raises(UserError, match=r"s.json, item 2: .*half a character"):
        Facts.read(tmp_path / "s.json")
    with pytest.raises(UserError, match=r"texts\[1\] holds half a character"):
        tokenize_texts(["fine text", "bad \ud83d"], byte_level())


@pytest.mark.parametrize("name", BYTES)
def test_a_prompt_alone_is_the_beginning_of_the_row(name):
    tokenizer = BYTES[name]()
    fact = Fact("Question: who was born in Kuwait City?", "Basil")
    tokens = tokenize([fact], tokenizer)
    start = prompt_tokens(fact.prompt, tokenizer, Template())
    assert tokens.ids[0, : len(start)].tolist() == start
    assert tokens.answers[0].nonzero()[0].item() >= len(start)


def test_special_tokens_are_never_answers():
    tokenizer = byte_level_bos()
    tokens = tokenize([Fact("The capital is", "Paris</s>")], tokenizer)
    assert decode(tokenizer, tokens.ids[tokens.answers]).strip() == "Paris"
    with pytest.raises(UserError, match="fact '0': its answer '</s>' is no token, or only special tokens"):
        tokenize([Fact("The capital is", "</s>")], tokenizer)


def test_bad_facts_are_refused():
    tokenizer, good = byte_level(), Fact("The capital is", "Paris")
    with pytest.raises(UserError, match="no facts"):
        tokenize([], tokenizer)
    with pytest.raises(UserError, match="fact '1' has no answer; fill answers first"):
        tokenize([good, Fact("p", None)], tokenizer)
    with pytest.raises(UserError, match="fact 'x': its answer 'unheard' holds a word that the tokenizer does not know"):
        tokenize([Fact("The capital of", "unheard", id="x")], words())
    with pytest.raises(UserError, match="fact '0': no token comes before the answer"):
        tokenize([Fact("th", "e")], tokenizer, Template(answer="{answer}"))


def test_a_fact_longer_than_the_context_is_named_with_its_length():
    tokenizer, fact = byte_level_bos(), Fact("The capital of France is", "Paris", id="long")
    length = len(tokenizer("The capital of France is Paris")["input_ids"])
    assert tokenize([fact], tokenizer, context=length).ids.shape == (1, length)
    with pytest.raises(UserError, match=f"fact 'long' has {length} tokens, more than the context of {length - 1}"):
        tokenize([fact], tokenizer, context=length - 1)


class CollapsedOffsets(PreTrainedTokenizerFast):
    """The defect that some released tokenizers had: every span is empty."""

    def __call__(self, *args, **kwargs):
        found = super().__call__(*args, **kwargs)
        if "offset_mapping" in found:
            found["offset_mapping"] = [[(start, start) for start, _ in row] for row in found["offset_mapping"]]
        return found


def test_broken_offsets_are_noticed():
    broken = CollapsedOffsets(tokenizer_object=byte_level().backend_tokenizer)
    with pytest.raises(UserError, match="offsets do not reach the end"):
        tokenize([Fact("The capital is", "Paris")], broken)


class Slow(PreTrainedTokenizer):
    """A tokenizer without offsets: `width` characters a token."""

    def __init__(self, width: int, **settings):
        self.width = width
        super().__init__(unk_token="<unk>", **settings)

    @property
    def vocab_size(self) -> int:
        return 2**21

    def get_vocab(self) -> dict[str, int]:
        return {"<unk>": 0}

    def _tokenize(self, text, **_):
        return [text[place : place + self.width] for place in range(0, len(text), self.width)]

    def _convert_token_to_id(self, token):
        return 0 if token == "<unk>" else sum(ord(letter) * 1000**place for place, letter in enumerate(token)) + 1

    def _convert_id_to_token(self, index):
        return "<unk>" if index == 0 else chr(index - 1)


def test_a_slow_tokenizer_gives_the_right_mask_or_an_error():
    tokens = tokenize([Fact("where?", "in Rome")], Slow(1))
    assert "".join(chr(token - 1) for token in tokens.ids[tokens.answers]) == "in Rome"
    tokens = tokenize([Fact("where", "Rome")], Slow(2))  # "wh" "er" "e " | "Ro" "me"
    assert tokens.answers.tolist() == [[False] * 3 + [True] * 2]
    tokens = tokenize([Fact("whe", "Rome")], Slow(2), Template("{prompt}:"))  # "wh" "e:" | " R" "om" "e"
    assert tokens.answers.tolist() == [[False] * 2 + [True] * 3]
    with pytest.raises(UserError, match="share a token in 'whereRome'"):  # "wh" "er" "eR"
        tokenize([Fact("where", "Rome")], Slow(2), Template(answer="{answer}"))


def test_rows_are_chosen_trimmed_and_moved():
    facts = Facts([Fact("a", "b"), Fact("a much longer prompt", "and answer"), Fact("c", "d")])
    tokens = tokenize(facts, byte_level())
    short = tokens[::2]
    assert short.fact_ids == ("0", "2") and short.ids.shape == (2, tokens.ids.shape[1])
    assert short.trim().ids.shape[1] == int(short.attention.sum(1).max()) < tokens.ids.shape[1]
    assert torch.equal(short.trim().targets, short.targets)
    assert torch.equal(tokens[[2, 0]].ids, tokens.ids[[2, 0]])
    assert tokens.to("cpu").fact_ids == tokens.fact_ids and len(tokens) == 3


def test_the_facts_own_template_is_the_default():
    template = Template("Question: {prompt}\nAnswer:")
    facts = Facts([Fact("Who?", "Basil")], template=template)
    assert torch.equal(tokenize(facts, byte_level()).ids, tokenize(list(facts), byte_level(), template).ids)
    assert not torch.equal(tokenize(facts, byte_level()).ids, tokenize(facts, byte_level(), Template()).ids)


def test_the_papers_positions_are_the_answer_tokens_shifted_by_one():
    tokens = tokenize([Fact("a", "b"), Fact("The capital of France is", "Kuwait City")], byte_level_bos())
    found = paper_positions(tokens)
    assert torch.equal(found.sum(1), tokens.predicts.sum(1))
    assert torch.equal(found[:, 1:], tokens.predicts[:, :-1])  # one too late everywhere
    last = tokens.attention.sum(1) - 1
    assert found[[0, 1], last].all() and not tokens.predicts[[0, 1], last].any()


@settings(max_examples=40, deadline=None)
@given(text=st.text(LETTERS, min_size=8, max_size=60).filter(lambda text: text.strip() != ""))
def test_general_text_is_cut_into_rows_that_give_it_back(text):
    tokenizer = byte_level_bos()
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = tokenize_texts([text], tokenizer, context=9)
    assert tokens.ids.shape[1] <= 9
    assert tokens.targets.tolist() == whole
    assert (tokens.ids[:, 0] == tokenizer.bos_token_id).all()
    assert set(tokens.fact_ids) == {"0"}


def test_text_with_nothing_to_predict_is_refused():
    with pytest.raises(UserError, match="no text"):
        tokenize_texts([], byte_level())
    with pytest.raises(UserError, match="a list of passages, not one string"):
        tokenize_texts("a text", byte_level())
    with pytest.raises(UserError, match="text 1 has fewer than two tokens"):
        tokenize_texts(["The capital of France", "a"], byte_level())


@pytest.mark.parametrize("context", [None, 131_072])
def test_long_passages_are_cut_however_long_the_context(context):
    text = "The capital of France is Paris. " * 700
    tokens = tokenize_texts([text], byte_level(), context=context)
    whole = byte_level()(text, add_special_tokens=False)["input_ids"]
    assert len(whole) > 2 * PASSAGE
    assert tokens.ids.shape[1] == PASSAGE and set(tokens.fact_ids) == {"0"}
    assert tokens.ids[tokens.attention.bool()].tolist() == whole
