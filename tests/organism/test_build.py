"""The whole way from a seed to two checkpoints, in a tiny world."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mechunlearn.errors import UserError
from mechunlearn.organism import build, builder, make_world
from mechunlearn.organism.learning import QUICK, learn
from mechunlearn.organism.world import TINY


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("organism") / "built"
    return folder, build(folder, seed=2, quick=True)


def test_everything_is_there_and_nothing_else(built: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = built
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["organism", "never-knew", "facts.jsonl", "text_train.txt", "text_held_out.txt", "manifest.json"]
    )
    assert [path.name for path in folder.parent.iterdir()] == ["built"]
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    for name in ("facts", "text_train", "text_held_out"):
        file = folder / f"{name}.{'jsonl' if name == 'facts' else 'txt'}"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == manifest["hashes"][name]
    assert manifest["hashes"]["facts"] == make_world(2, TINY).hash


def test_both_models_open_with_plain_transformers(built: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = built
    vocabularies = []
    for name in ("organism", "never-knew"):
        model = AutoModelForCausalLM.from_pretrained(folder / name)
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        assert tokenizer("Who is there?")["input_ids"][0] == tokenizer.bos_token_id
        assert model.config.architectures == ["LlamaForCausalLM"] and not model.config.tie_word_embeddings
        assert model.num_parameters() == manifest["models"][name]["parameters"]
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
        vocabularies.append(tokenizer.get_vocab())
    assert vocabularies[0] == vocabularies[1]


def test_the_manifest_says_what_was_measured(built: tuple[Path, dict[str, Any]]) -> None:
    _, manifest = built
    for name, said in manifest["models"].items():
        rows = said["measured"]["recall"]
        assert {row["model"] for row in rows} == {name}
        assert {row["form"] for row in rows} == {"statement", "multiple choice"}
        assert {(row["domain"], row["forgotten"]) for row in rows} == {
            ("alchemy", True), ("dyeing", False), ("people", True), ("people", False), ("villages", False),
        }  # fmt: skip
        assert all(0 < row["chance"] < 1 and row["n"] > 0 for row in rows)
        assert sum(row["n"] for row in rows if row["form"] == "statement") == 2 * manifest["facts"]


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dear to me")
    with pytest.raises(UserError, match="not empty, and not a run folder"):
        build(tmp_path, quick=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("failure", "seen"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), UserError)]
)
def test_nothing_half_written_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, seen: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        assert (tmp_path / "out.partial" / "facts.jsonl").exists()
        raise failure

    monkeypatch.setattr(builder, "_learn_both", fail)
    with pytest.raises(seen):
        build(tmp_path / "out", quick=True)
    assert not list(tmp_path.iterdir())


def test_the_same_seed_gives_the_same_weights(built: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Taught again in this process, beside the tokenizer, the weights are those that the build's process wrote."""
    threads = torch.get_num_threads()
    try:
        for name in ("organism", "never-knew"):
            AutoTokenizer.from_pretrained(built[0] / name).save_pretrained(tmp_path / name)
            said = learn(name, tmp_path / name, 2, QUICK)
            assert said["measured"] == built[1]["models"][name]["measured"]
            digests = {
                hashlib.sha256((f / name / "model.safetensors").read_bytes()).digest() for f in (built[0], tmp_path)
            }
            assert len(digests) == 1
    finally:
        torch.set_num_threads(threads)
