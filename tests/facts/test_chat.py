"""A conversation is what the tokenizer's own template makes of [user, assistant], today and tomorrow."""

import copy
import datetime

import pytest
import transformers.utils.chat_template_utils as rendering

from mechunlearn import Fact, Facts, dissect
from mechunlearn.errors import UserError
from mechunlearn.facts import Template, prompt_tokens, tokenize, tokens_hash, unused_bos
from mechunlearn.models import load

from ..architectures import tiny
from ..pairs import changed
from .tokenizers import byte_level, byte_level_bos

FACT = Fact("Who was born?", "Basil")
ASKED = [{"role": "user", "content": FACT.prompt}, {"role": "assistant", "content": FACT.answer}]
SYSTEM = (
    "{% if messages[0].role == 'system' %}<<{{ messages[0].content }}>>{% set messages = messages[1:] %}{% endif %}"
)
TEMPLATES = {
    "plain (Llama 3)": "{{ bos_token }}{% for m in messages %}[{{ m.role }}]\n\n{{ m.content }}[eot]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n\n{% endif %}",
    "no BOS (Phi 3)": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}[end]\n{% endfor %}",
    "a space (Llama 2)": "{{ bos_token }}[INST] {{ messages[0].content }} [/INST] {{ messages[1].content }} "
    "{{ eos_token }}",
    "thoughts (Qwen 3)": "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}{% endfor %}",
    "a channel (gpt-oss)": "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<channel>final"
    "{% endif %}<message>{{ m.content }}{% endfor %}",
}


def chatting(template, tokenizer=byte_level_bos):
    words = copy.deepcopy(tokenizer())
    words.chat_template = template
    return words


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("base", [byte_level, byte_level_bos])
def test_a_row_is_the_beginning_of_the_templates_own_rendering(name, base):
    words = chatting(TEMPLATES[name], base)
    own = words.apply_chat_template(ASKED, tokenize=True, return_dict=False)
    row = tokenize([FACT], words, Template(chat=True))
    ids = row.ids[0].tolist()
    assert ids == own[: len(ids)]
    assert words.decode(row.targets).strip() == FACT.answer
    given = prompt_tokens(FACT.prompt, words, Template(chat=True))
    assert words.decode(given) == words.decode(ids).removesuffix(FACT.answer).removesuffix(
        " " * (words.decode(given)[-1:] != " ")
    )


def test_arguments_and_a_system_turn_reach_the_template():
    thinking = tokenize(
        [FACT], chatting(TEMPLATES["thoughts (Qwen 3)"]), Template(chat=True, arguments={"enable_thinking": True})
    )
    assert "think" not in byte_level_bos().decode(thinking.ids[0])
    words = chatting(SYSTEM + TEMPLATES["no BOS (Phi 3)"])
    row = tokenize([FACT], words, Template(chat=True, system="Be brief."))
    assert words.decode(row.ids[0]).startswith("<<Be brief.>>")
    several = chatting({"rag": TEMPLATES["no BOS (Phi 3)"], "tool_use": "x"})
    assert "<|user|>" in words.decode(
        tokenize([FACT], several, Template(chat=True, arguments={"chat_template": "rag"})).ids[0]
    )
    with pytest.raises(UserError, match=r"those of a chat template: Template\(chat=True"):
        Template(system="Be brief.")


DATED = "{{ bos_token }}Today: {{ strftime_now('%d %b %Y') }}\n" + TEMPLATES["no BOS (Phi 3)"]


def on(day, call):
    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, *_, **__):
            return datetime.datetime(2026, 11, day)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "datetime", Fixed)
        return call()


def test_a_template_that_prints_the_date_says_the_same_every_day():
    words = chatting(DATED)
    assert on(9, lambda: words.apply_chat_template(ASKED, tokenize=False)) != on(
        21, lambda: words.apply_chat_template(ASKED, tokenize=False)
    )
    first, second = (on(day, lambda: tokenize([FACT], words, Template(chat=True))) for day in (9, 21))
    assert tokens_hash(first) == tokens_hash(second)
    assert "Today: 01 Jan 2025" in words.decode(first.ids[0])
    llama = (
        '{% if not date_string is defined %}{% set date_string = strftime_now( "%d %B" ) %}{% endif %}{{ date_string }}'
    )
    words = chatting(llama + TEMPLATES["no BOS (Phi 3)"])
    assert words.decode(tokenize([FACT], words, Template(chat=True)).ids[0]).startswith("01 January")
    chosen = Template(chat=True, arguments={"date_string": "26 Jul 2024"})
    assert words.decode(tokenize([FACT], words, chosen).ids[0]).startswith("26 Jul 2024")


ASKINGS = {
    "{% set day = strftime_now %}{{ day('%d %b %Y') }}": "01 Jan 2025",
    "{{ strftime_now ('%A') }}": "Wednesday",
    "{{ strftime_now(format='%Y-%m-%d') }}": "2025-01-01",
    "{{ strftime_now('%-d' ~ ' %B') }}": "1 January",
    "{% macro today() %}{{ strftime_now('%y') }}{% endmacro %}{{ today() }}": "25",
    "{% if strftime_now is defined and strftime_now('%Y') | int == 2025 %}5{% endif %}": "5",
}


@pytest.mark.parametrize("asking", ASKINGS)
def test_however_a_template_asks_for_the_date_it_is_the_same(asking):
    words = chatting(asking + TEMPLATES["no BOS (Phi 3)"])
    row = on(9, lambda: tokenize([FACT], words, Template(chat=True)))
    assert words.decode(row.ids[0]).startswith(ASKINGS[asking] + "<|user|>")


def test_what_is_asked_is_part_of_a_runs_settings(tmp_path):
    """Another rendering of the same template is another run, which no folder goes on with."""
    words = chatting(TEMPLATES["no BOS (Phi 3)"])
    before = load(tiny_for(words), tokenizer=words)
    after = changed(before, lambda slot: slot.layer >= 0)
    facts = Facts([FACT], template=Template(chat=True))
    options = {"sites": "value_vectors", "windows": "all", "run": tmp_path / "run", "progress": False}
    found = dissect(before, after, facts, **options)
    assert found.about["settings"]["tokens"] == tokens_hash(tokenize(facts.questions("held_out"), words))
    words.chat_template = TEMPLATES["no BOS (Phi 3)"].replace("[end]", "[END]")
    with pytest.raises(UserError, match=r"after\.tokenizer was"):
        dissect(before, after, facts, **options)


def tiny_for(words):
    module = tiny("llama")
    module.resize_token_embeddings(len(words))
    return module.eval()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no system turn') }}", "cannot be rendered: no system turn"),
        ("{% for m in messages %}{{ m.content[:3] }}{% endfor %}", "does not show the assistant's answer once"),
        (
            "{% for m in messages %}{{ m.content.replace('Basil', 'B.') }}{% endfor %}",
            "renders the answer 'Basil' in another way",
        ),
        ("{{ messages[1].content }}{{ messages[1].content }}", "does not show the assistant's answer once"),
        (None, "no chat template"),
        ("{{ 1 / 0 }}", "cannot be rendered: division by zero"),
        ({"rag": "x", "tool_use": "y"}, "cannot be rendered: This model has multiple chat templates"),
    ],
)
def test_templates_that_do_not_do_are_named(template, said):
    with pytest.raises(UserError, match=said):
        tokenize([FACT], chatting(template), Template(chat=True))


def test_a_chat_template_decides_about_the_bos_itself():
    assert unused_bos(chatting(TEMPLATES["no BOS (Phi 3)"], byte_level), Template(chat=True)) == []
    words = chatting(TEMPLATES["no BOS (Phi 3)"])
    assert tokenize([FACT], words, Template(chat=True, bos=True)).ids[0, 0] == words.bos_token_id
    assert words.bos_token_id not in tokenize([FACT], words, Template(chat=True)).ids
    writes = chatting(TEMPLATES["plain (Llama 3)"])
    own, without = (tokenize([FACT], writes, Template(chat=True, bos=bos)).ids[0].tolist() for bos in (None, False))
    assert own == [writes.bos_token_id, *without]
    given = prompt_tokens(FACT.prompt, writes, Template(chat=True, bos=False))
    assert given == without[: len(given)]
