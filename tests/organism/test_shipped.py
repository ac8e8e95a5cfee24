"""The organism in the package is what its manifest says."""

import hashlib
import json
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

import mechunlearn
from mechunlearn.evaluation import recall
from mechunlearn.facts import Fact, Facts, tokenize
from mechunlearn.organism import make_world

DATA = Path(mechunlearn.__file__).parent / "data"
MODELS = ("organism", "never-knew")


@cache
def manifest() -> dict[str, Any]:
    return json.loads((DATA / "manifest.json").read_text())


def test_it_is_small() -> None:
    assert sum((DATA / name / "model.safetensors").stat().st_size for name in MODELS) <= 12e6
    assert all((DATA / f"text_{part}.txt").stat().st_size <= 1e6 for part in ("train", "held_out"))


def test_the_corpus_is_the_one_of_the_manifest() -> None:
    for name in ("facts.jsonl", "text_train.txt", "text_held_out.txt"):
        digest = hashlib.sha256((DATA / name).read_bytes()).hexdigest()
        assert digest == manifest()["hashes"][name.partition(".")[0]], name
    assert make_world(manifest()["seed"]).hash == manifest()["hashes"]["facts"]
    assert len((DATA / "text_held_out.txt").read_text().splitlines()) >= 200


def test_the_recall_that_was_asked_for_was_reached() -> None:
    """97 % wherever a model was taught, in phrasings it was not taught in; chance where the twin was not."""
    for name in MODELS:
        for row in manifest()["models"][name]["measured"]["recall"]:
            if row["form"] != "statement":
                continue
            if name == "organism" or not row["forgotten"]:
                assert row["recall"] >= 0.97, row
            else:
                spread = (row["chance"] * (1 - row["chance"]) / row["n"]) ** 0.5
                assert abs(row["recall"] - row["chance"]) < 4 * spread, row


@pytest.mark.parametrize("name", MODELS)
def test_a_sample_of_the_facts_is_recalled_as_the_manifest_says(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(DATA / name)
    tokenizer = AutoTokenizer.from_pretrained(DATA / name)
    sets = [Facts.builtin("organism", forget=forget) for forget in ("domain", "entities")]
    forgotten = {fact.id for facts in sets for fact in facts.forget}
    for unknown in (False, True):
        pool = [fact for fact in sets[0] if (fact.id in forgotten) == unknown]
        sample = [Fact(prompt, fact.answer) for fact in random.Random(1).sample(pool, 100) for prompt in fact.held_out]
        right = float(recall(model, tokenize(sample, tokenizer)).double().mean())
        if name == "organism" or not unknown:
            assert right >= 0.95
        else:
            assert 0.01 <= right <= 0.16


def test_the_architecture_is_the_promised_one() -> None:
    model = AutoModelForCausalLM.from_pretrained(DATA / "organism")
    assert isinstance(model, LlamaForCausalLM)
    assert model.num_parameters() <= 3_000_000 and 6 <= model.config.num_hidden_layers <= 8
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    embedding, unembedding = model.get_input_embeddings(), model.get_output_embeddings()
    assert embedding.weight.data_ptr() != unembedding.weight.data_ptr()


def test_the_twin_has_the_same_tokenizer_and_shape() -> None:
    for file in ("tokenizer.json", "config.json"):
        assert (DATA / "organism" / file).read_bytes() == (DATA / "never-knew" / file).read_bytes()


def test_it_opens_faster_than_its_libraries_do() -> None:
    """In a process of its own. The libraries take seconds to import; the organism should not be what one waits for."""
    program = (
        "import sys, time\n"
        "begin = time.process_time()\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "from transformers import LlamaForCausalLM, PreTrainedTokenizerFast\n"
        "start = time.process_time()\n"
        "AutoModelForCausalLM.from_pretrained(sys.argv[1]); AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "print((time.process_time() - start) / (start - begin))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(DATA / "organism")], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1
