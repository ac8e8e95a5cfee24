"""Facts of others in a form of theirs, from the command line: what is asked is what the form says."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

import mechunlearn as mu
from mechunlearn.cli import app
from mechunlearn.cli.app import METAVARS
from mechunlearn.facts import Template, tokenize
from mechunlearn.facts.chat import opening

from ..architectures import VOCABULARY, tiny

# As Llama 3's own: a date that is given goes before today's.
LLAMA3 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0].role == 'system' %}sys today {{ date_string }} {{ messages[0].content }} eot {% endif %}"
    "{% for m in messages if m.role != 'system' %}{{ m.role }} {{ m.content }} eot {% endfor %}"
)
QUESTIONS = [("w1 w2 ?", "w7"), ("w3 w4 ?", "w9"), ("w5 w6 ?", "w8"), ("w2 w6 ?", "w7")]


def call(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="mechunlearn")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model, one without tokenizer, and TOFU's kind of files: questions, answers, no roles."""
    base = tmp_path_factory.mktemp("asking")
    said = ("user", "assistant", "sys", "today", "eot", "?", "10", "Apr", "2025", "You", "are", "a", "helpful")
    names = [*said, *(f"w{i}" for i in range(VOCABULARY - 4 - len(said)))]
    vocabulary = {"[pad]": 0, "<s>": 1, "</s>": 2, "[unk]": 3} | {word: i for i, word in enumerate(names, start=4)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[pad]", bos_token="<s>", eos_token="</s>", unk_token="[unk]"
    )
    tokenizer.chat_template = LLAMA3
    tiny("llama", 0).save_pretrained(base / "chat")
    tiny("llama", 0).save_pretrained(base / "bare")
    for folder in ("chat", "words"):
        tokenizer.save_pretrained(base / folder)
    for name, rows in (("forget", QUESTIONS[:2]), ("retain", QUESTIONS[2:])):
        lines = [json.dumps({"question": question, "answer": answer}) for question, answer in rows]
        (base / f"{name}01.json").write_text("\n".join(lines))
    return base


def test_tofu_from_its_files_to_the_page_in_four_commands(place: Path, tmp_path: Path) -> None:
    files = ("--forget-facts", place / "forget01.json", "--retain-facts", place / "retain01.json")
    form = ("--template", "tofu-llama3")
    run = tmp_path / "npo"
    made = call("unlearn", place / "chat", "--method", "npo", "--steps", 2, *files, *form, "--out", run)
    assert made.exit_code == 0, made.output
    assert f"--facts {place / 'forget01.json'} --template tofu-llama3" in made.output
    for line in (
        ("dissect", place / "chat", run / "model", "--facts", place / "forget01.json", *form, "--out", run / "d"),
        ("attack", run / "model", *files, *form, "--suite", "quantise", "--out", run / "a"),
        ("report", run),
    ):
        result = call(*line)
        assert result.exit_code == 0, result.output
    page = (run / "report.html").read_text()
    assert "This cannot tell what was still there from what the attack taught" in page or "too little" in page


def test_a_named_template_is_the_published_form_with_its_date(place: Path) -> None:
    model = mu.load(place / "chat")
    text = opening("w1 w2 ?", model.tokenizer, Template.named("tofu-llama3"))
    assert text == "<s>sys today 10 Apr 2025 You are a helpful assistant. eot user w1 w2 ? eot assistant "
    llama2 = Template.named("tofu-llama2-chat")
    assert llama2.render_prompt("q") + llama2.render_answer("a") == "[INST] q [/INST]a"
    base = Template.named("tofu-llama2")
    assert base.render_prompt("q") + base.render_answer("a") == "Question: q\nAnswer: a"
    with pytest.raises(mu.UserError, match=r"no template 'tofu-lama3'.*Did you mean tofu-llama3\?"):
        Template.named("tofu-lama3")


@pytest.mark.parametrize(
    ("words", "template"),
    [
        (("--chat",), Template(chat=True)),
        (("--system", "You are"), Template(chat=True, system="You are")),
        (("--chat", "--template-set", "date_string=w1"), Template(chat=True, arguments={"date_string": "w1"})),
        (("--template", "w1 {prompt} w2"), Template(prompt="w1 {prompt} w2")),
        (("--template", "w1 {prompt} w2", "--chat"), Template(prompt="w1 {prompt} w2", chat=True)),
        (("--template", "{prompt} w2", "--system", "w9"), Template(prompt="{prompt} w2", chat=True, system="w9")),
        (("--template", "tofu-phi3", "--system", "w9"), Template(chat=True, system="w9")),
        ((), Template(prompt="Question: {prompt}\nAnswer:")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_form_on_the_line_is_the_form_that_is_asked(place: Path, tmp_path: Path, words, template) -> None:
    out, file = tmp_path / "e", place / "forget01.json"
    result = call("evaluate", place / "chat", "--facts", file, "--measures", "recall", "--out", out, *words)
    assert result.exit_code == 0, result.output
    facts = mu.Facts.read(file)
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert settings["template"] == repr(template if words else facts.template)
    asked = mu.facts.tokens_hash(tokenize(facts, mu.load(place / "chat").tokenizer, template if words else None))
    assert settings["tokens"] == asked


def test_a_tokenizer_for_a_checkpoint_without_one(place: Path) -> None:
    line = ("evaluate", place / "bare", "--facts", place / "forget01.json", "--measures", "recall")
    bare = call(*line)
    assert bare.exit_code == 2 and "has no tokenizer" in bare.stderr
    assert call(*line, "--tokenizer", place / "words").exit_code == 0
    wrong = call(*line, "--tokenizer", place / "bare")
    assert wrong.exit_code == 2 and "holds no tokenizer" in wrong.stderr
    pair = ("dissect", place / "bare", place / "bare", "--facts", place / "forget01.json", "--out", place / "d")
    assert "no such folder" in call(*pair, "--tokenizer", "./words-").stderr


def test_what_is_said_to_do_next_can_be_done(place: Path, tmp_path: Path) -> None:
    """Of facts with columns and roles of their own, for a checkpoint without a tokenizer."""
    for name, rows in (("forget", QUESTIONS[:2]), ("retain", QUESTIONS[2:])):
        lines = [json.dumps({"q": question, "gt": answer, "kind": "near"}) for question, answer in rows]
        (tmp_path / f"{name}.json").write_text("\n".join(lines))
    files = ("--forget-facts", tmp_path / "forget.json", "--retain-facts", tmp_path / "retain.json")
    line = (
        "unlearn",
        place / "bare",
        "--method",
        "npo",
        "--steps",
        1,
        *files,
        "--columns",
        "prompt=q,answer=gt,role=kind",
    )
    made = call(*line, "--tokenizer", place / "words", "--template", "question", "--out", tmp_path / "run")
    assert made.exit_code == 0, made.output
    then = shlex.split(made.stdout.partition("Now: mechunlearn ")[2])
    dissected = call(*then)
    assert dissected.exit_code == 0, dissected.output
    assert "2 of 2 facts" in dissected.stdout
    settings = json.loads((tmp_path / "run" / "dissection" / "run.json").read_text())["settings"]
    assert settings["template"] == repr(Template.named("question"))


def test_one_form_on_the_line_makes_two_files_alike(place: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join(json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in QUESTIONS[2:]))
    files = ("--forget-facts", place / "forget01.json", "--retain-facts", own)
    line = ("unlearn", place / "chat", "--method", "npo", "--steps", 1, *files, "--out", tmp_path / "run")
    apart = call(*line)
    assert apart.exit_code == 2 and "give both one format, or one template" in apart.stderr
    alike = call(*line, "--template", "tofu-llama3")
    assert alike.exit_code == 0, alike.output


def test_facts_to_forget_suffice_for_attacks_that_need_no_others(place: Path, tmp_path: Path) -> None:
    files = ("--forget-facts", place / "forget01.json", "--template", "tofu-llama3")
    result = call("attack", place / "chat", *files, "--suite", "prompts,quantise", "--out", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert set(mu.attacks.Attacks.load(tmp_path / "a").frame["attack"]) >= {"prompts", "quantise"}
    halves = call("attack", place / "chat", *files, "--suite", "relearn,quantise", "--out", tmp_path / "b")
    assert (
        halves.exit_code == 0 and "Mind: Relearn: the forget facts are not parted in folds, so halves" in halves.output
    )
    assert "relearn" in set(mu.attacks.Attacks.load(tmp_path / "b").frame["attack"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give either --facts FILE with roles, or --forget-facts FILE"),
        (("--facts", "organism", "--forget-facts", "forget01.json"), "give either --facts FILE"),
        (("--facts", "organism", "--retain-facts", "forget01.json"), "--retain-facts stands beside --forget-facts"),
        (("--forget-facts", "forget01.json"), "no facts to retain"),
        (("--forget-facts", "nowhere.json", "--retain-facts", "forget01.json"), "there is no file nowhere.json"),
        (("--facts", "organism", "--template", "tofu"), "there is no template 'tofu'"),
        (("--facts", "organism", "--template", "tofu-llama2-chat", "--chat"), "--template tofu-llama2-chat is no chat"),
        (("--facts", "organism", "--template", "question", "--system", "w1"), "--template question is no chat"),
        (("--facts", "organism", "--template-set", "a"), "write a setting as name=value"),
    ],
)
def test_what_is_lacking_or_too_much_is_one_line(place: Path, tmp_path: Path, monkeypatch, words, told: str) -> None:
    monkeypatch.chdir(place)
    result = call("unlearn", "chat", "--method", "npo", "--out", tmp_path / "x", *words)
    assert result.exit_code == 2 and told in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["unlearn", "dissect", "attack", "evaluate", "report", "sites", "demo", "methods"])
def test_values_are_called_by_words(command: str) -> None:
    shown = call(command, "--help").stdout.partition("Options:")[2]
    assert "<" not in shown and " TEXT " not in shown.replace("NAME|TEXT", "").replace("--system TEXT", "")


def test_no_word_for_a_value_that_no_command_takes() -> None:
    import inspect

    from mechunlearn.cli import attacking, dissecting, evaluating, forgetting, listing, start

    verbs = (attacking.attack, dissecting.dissect, dissecting.report, evaluating.evaluate, forgetting.unlearn)
    taken = {name for verb in (*verbs, listing.sites, start) for name in inspect.signature(verb).parameters}
    assert set(METAVARS) - taken == set()
