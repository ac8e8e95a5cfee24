"""A fact as a conversation: what the tokenizer's own chat template makes of [user, assistant], up to the answer.

The template is rendered with the whole conversation, and the text is cut behind the answer. So what it puts between the
turns is there: an empty block of thoughts (Qwen 3), a channel (gpt-oss), a space (Llama 2). A template that prints the
date prints `DAY`, whenever it is rendered: a run that goes on tomorrow asks what it asked today.
"""

from __future__ import annotations

import datetime

from transformers import PreTrainedTokenizerBase

from ..errors import UserError, first_line
from .fact import Template, check_text
from .trial import try_out

DAY = datetime.date(2025, 1, 1)
CODES = "aAbBcdDeFGHIjmMpSTuUVwWxXyYZ"  # of strftime
MARK = "\N{INVISIBLE SEPARATOR}answer\N{INVISIBLE SEPARATOR}"  # in place of an answer


def _dated() -> str:
    """A macro that says `DAY` wherever a template asks for the date, however it does: put before the template, it hides
    the function of that name that transformers lends to templates and that no argument replaces."""
    said = "format"
    for code in CODES:
        value = DAY.strftime(f"%{code}")
        said += f"|replace('%{code}', {value!r})|replace('%-{code}', {value.lstrip(' 0') or '0'!r})"
    return f"{{% macro strftime_now(format) %}}{{{{ {said} }}}}{{% endmacro %}}\n"


DATED = _dated()
_tried: set[str] = set()  # chat templates that are known to come to an end


def opening(prompt: str, tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    """All of the conversation before the assistant's answer.

    Raises:
        UserError: the tokenizer has no chat template, or it cannot be rendered; it does not show the answer.
    """
    _try_out(prompt, tokenizer, template)
    rendered = _rendered(prompt, MARK, tokenizer, template)
    if rendered.count(MARK) != 1:
        raise UserError(
            "the chat template does not show the assistant's answer once, as it is; use Template(chat=False)"
        )
    if " ".join(prompt.split()) not in " ".join(rendered.split()):
        raise UserError(
            f"the chat template does not show what the user says ({prompt!r:.60}), so nobody could answer it; "
            "use Template(chat=False)"
        )
    return rendered.partition(MARK)[0]


def check_rendering(
    head: str, prompt: str, answer: str, tokenizer: PreTrainedTokenizerBase, template: Template
) -> None:
    """Raises UserError: with this answer the template's own rendering does not begin with `head` and the answer."""
    whole = _rendered(prompt, answer, tokenizer, template)
    if not whole.startswith(head + answer):
        raise UserError(
            f"the chat template renders the answer {answer!r:.60} in another way than other answers; "
            "use Template(chat=False), or write the conversation into Template(prompt=…)"
        )


def _try_out(prompt: str, tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
    """Once for every template: does it come to an end?

    Raises:
        UserError: it takes more time or memory than any text needs.
    """
    key = repr((tokenizer.chat_template, template.system, template.arguments))
    if key in _tried:
        return

    def render() -> str:
        return _rendered(prompt, MARK, tokenizer, template)

    try_out("the tokenizer's chat template", render)
    _tried.add(key)


def _rendered(prompt: str, answer: str, tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    if not tokenizer.chat_template and "chat_template" not in template.arguments:
        raise UserError("the template says chat, but the tokenizer has no chat template; use Template(chat=False)")
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    if template.system is not None:
        turns = [{"role": "system", "content": template.system}, *turns]
    given = dict(template.arguments)
    try:
        source = DATED + tokenizer.get_chat_template(given.pop("chat_template", None))
        rendered = str(tokenizer.apply_chat_template(turns, chat_template=source, tokenize=False, **given))
    except Exception as error:  # a template is a program of its author's: it may raise anything
        raise UserError(
            f"the tokenizer's chat template cannot be rendered: {first_line(error)}; give what it needs by "
            "Template(system=…, arguments={…}), where 'chat_template' names one of several, or use Template(chat=False)"
        ) from error
    check_text("the chat template", "what it renders", rendered)
    return rendered.removeprefix(str(tokenizer.bos_token or "")) if template.bos is False else rendered
