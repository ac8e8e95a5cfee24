from .choices import Choice, multiple_choice, wrong_answers
from .embedded import organism_text
from .fact import Fact, Template
from .facts import Facts, FactSource
from .phrasings import PROMPTS, check_prompts, fact_of
from .roles import with_roles
from .starts import start_tokens, unused_bos
from .subjects import mark_subjects
from .tokens import (
    Tokens,
    check_length,
    check_passages,
    paper_positions,
    prompt_tokens,
    tokenize,
    tokenize_texts,
    tokens_hash,
)

__all__ = [
    "PROMPTS",
    "Choice",
    "Fact",
    "FactSource",
    "Facts",
    "Template",
    "Tokens",
    "check_length",
    "check_passages",
    "check_prompts",
    "fact_of",
    "mark_subjects",
    "multiple_choice",
    "organism_text",
    "paper_positions",
    "prompt_tokens",
    "start_tokens",
    "tokenize",
    "tokenize_texts",
    "tokens_hash",
    "unused_bos",
    "with_roles",
    "wrong_answers",
]
