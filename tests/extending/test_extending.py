"""Each extension is one short file; it works from Python, in run folders, on the command line and in the report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import MixtralConfig, MixtralForCausalLM

import mechunlearn as mu
from mechunlearn.attacks import ATTACKS, SUITES, Given, matrices
from mechunlearn.cli.extending import use
from mechunlearn.dissection import METRICS
from mechunlearn.dissection.patches import patches
from mechunlearn.dissection.sweep import PLAIN, Sweep
from mechunlearn.errors import UserError
from mechunlearn.evaluation import MEASURES
from mechunlearn.models import clone, hf, slots
from mechunlearn.models.anatomy import NAMED_ROLES
from mechunlearn.sites import ACTIVATIONS, PARAMETERS, available, resolve
from mechunlearn.unlearning import METHODS, configure

from ..architectures import GROUPED
from ..pairs import changed, rows
from ..test_cli import assert_one_line, call, workplace  # noqa: F401 - a fixture
from ..unlearning.formulas import forget_gradient
from ..unlearning.worlds import random_world

HERE = Path(__file__).parent
FILES = [HERE / name for name in ("ceu.py", "prune.py", "more_sites.py", "more_measures.py", "experts.py")]
NOTEBOOK = HERE.parent.parent / "notebooks" / "06_extend.ipynb"
TABLES: list[dict] = [METHODS, ATTACKS, SUITES, ACTIVATIONS, PARAMETERS, METRICS, MEASURES, NAMED_ROLES]


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """Everything that an extension adds is gone afterwards."""
    before, modules = [dict(table) for table in TABLES], set(sys.modules)
    yield
    for table, old in zip(TABLES, before, strict=True):
        table.clear()
        table.update(old)
    for name in {file.stem for file in FILES} | {"own"}:
        if name not in modules:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def pair(workplace: Path) -> tuple:  # noqa: F811
    return tuple(mu.load(workplace / name, device="cpu") for name in ("before", "after"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_is_one_short_file_and_the_notebook_shows_it(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 60
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert f"%%writefile {file.name}\n{source}".strip() in [cell.strip() for cell in cells]


def test_a_method_does_what_it_says() -> None:
    """The gradient at an answer's logits is p − q: where q is 0, at the true token, it is p."""
    use(HERE / "ceu.py")
    world = random_world(0, plain=True)
    value, found = forget_gradient(METHODS["ceu"], world)
    tokens, logits = world.rows("forget").tokens, world.now["forget"].logits.detach()
    p = logits[tokens.predicts].softmax(1)
    q = p.scatter(1, tokens.targets[:, None], 0)
    q = q / q.sum(1, keepdim=True)
    expected = torch.zeros_like(logits)
    expected[tokens.predicts] = (p - q) / len(p)
    torch.testing.assert_close(found["forget"], expected)
    assert value == pytest.approx(float(-(q * p.log()).sum(1).mean()), rel=1e-12)


def test_a_method_from_settings_to_a_run_folder_that_resumes(workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    use(HERE / "ceu.py")
    assert configure("ceu", {"retain": "kl", "forget_weight": 2}) == type(METHODS["ceu"])(
        retain="kl", forget_weight=2.0
    )
    with pytest.raises(mu.UserError, match="ceu has no setting 'beta'"):
        configure("ceu", {"beta": 1})
    facts, model = mu.Facts.read(workplace / "facts.jsonl"), mu.load(workplace / "before", device="cpu")
    method = configure("ceu", {"retain": "kl"})
    options = {"steps": 4, "evaluate_every": 2, "learning_rate": 1e-2, "run": tmp_path / "run", "progress": False}
    run = mu.unlearn(model, method, facts.forget, facts.retain, **options)
    assert run.frame["forget_probability"].iloc[-1] < run.frame["forget_probability"].iloc[0]
    again = mu.unlearn(model, method, facts.forget, facts.retain, **options)
    assert again.frame.equals(run.frame)
    layered = mu.unlearn(
        model,
        mu.Layered(method=method, folds=2),
        facts.forget,
        facts.retain,
        steps=1,
        learning_rate=1e-3,
        progress=False,
    )
    assert len(layered.stages) == 2


def test_an_attack_prunes_a_copy(pair: tuple, workplace: Path) -> None:  # noqa: F811
    use(HERE / "prune.py")
    model, facts = pair[1], mu.Facts.read(workplace / "facts.jsonl")
    whole = clone(model)
    prune = type(ATTACKS["prune"])(shares=(0.25, 0.5))
    shares = []
    for attempt in prune.attempts(model, Given(facts.forget, facts.retain)):
        shares.append([float((slot.tensor == 0).double().mean()) for slot in matrices(attempt.model)])
        kept = [slot.tensor[slot.tensor != 0] for slot in matrices(attempt.model)]
        gone = [old.tensor[new.tensor == 0] for old, new in zip(matrices(model), matrices(attempt.model), strict=True)]
        assert all(a.abs().min() > b.abs().max() for a, b in zip(kept, gone, strict=True))
    for share, found in zip((0.25, 0.5), shares, strict=True):
        assert found == pytest.approx([share] * len(found), abs=0.01)
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(slots(model), slots(whole), strict=True))
    with pytest.raises(mu.UserError, match="between 0 and 1"):
        type(prune)(shares=(1.0,))


def test_an_attack_beside_the_twin(pair: tuple, workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    use(HERE / "prune.py")
    facts = mu.Facts.read(workplace / "facts.jsonl")
    options = {"suite": ["prune"], "never_knew": pair[0], "run": tmp_path / "run", "progress": False}
    found = mu.attack(pair[1], facts, **options)
    rows = found.frame[found.frame["attack"] == "prune"]
    assert set(rows["model"]) == {"after", "never-knew"} and rows["setting"].nunique() == 3
    assert mu.attack(pair[1], facts, **options).frame.equals(found.frame)
    assert "prune" in set(found.summary(by="attack")["attack"])


def test_sites_have_names(pair: tuple) -> None:
    assert not available(pair[0]).get("attention_keys")
    use(HERE / "more_sites.py")
    model = pair[0]
    assert all(available(model)[name] for name in ("attention_keys", "first_mlps", "output_projections"))
    assert resolve("attention_keys", model).hooks[1] == ("blocks.1.attn.hook_k",)
    both = resolve("attention_keys_and_values+mlp_output", model)
    assert both.hooks[2] == ("blocks.2.attn.hook_k", "blocks.2.attn.hook_v", "blocks.2.hook_mlp_out")
    first = resolve("first_mlps", model)
    assert first.layers() == (0, 1, 2) and first.layered and all(".mlp." in slot.path for slot in first.slots)
    roles = {role for slot in resolve("output_projections", model).slots for role in slot.roles}
    assert roles == {"value_vectors", "attention_ov"}


def test_a_name_means_what_it_stands_for(pair: tuple, workplace: Path) -> None:  # noqa: F811
    use(HERE / "more_sites.py")
    facts = mu.Facts.read(workplace / "facts.jsonl").forget
    pairs = {"attention_keys": "blocks.{l}.attn.hook_k", "first_mlps": r"blocks\.[012]\.mlp\."}
    found = mu.dissect(*pair, facts, sites=[*pairs, *pairs.values()], windows="single", progress=False)
    values = found.frame.set_index("site")["recovery"]
    for name, meaning in pairs.items():
        assert values[name].notna().any()
        assert values[name].tolist() == pytest.approx(values[meaning].tolist(), nan_ok=True)
    assert found.plot().data and found.summary()["site"].nunique() == 4


def test_all_three_on_the_command_line(workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    uses = [part for file in FILES for part in ("--use", file)]
    facts, out = ("--facts", workplace / "facts.jsonl", "--device", "cpu"), tmp_path / "run"
    assert "ceu  (arXiv 2503.01224)" in call(*uses, "methods").stdout
    commands = [
        (
            "unlearn",
            workplace / "before",
            "--method",
            "ceu",
            "--set",
            "retain=kl",
            "--steps",
            "2",
            *facts,
            "--out",
            out,
        ),
        (
            *("dissect", workplace / "before", out / "model", "--sites", "attention_keys,first_mlps", *facts),
            *("--windows", "single", "--out", out / "dissection"),
        ),
        ("attack", out / "model", "--suite", "prune", *facts, "--out", out / "attacks"),
        ("report", out),
    ]
    for command in commands:
        result = call(*uses, *command)
        assert result.exit_code == 0, result.output
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("ceu", "prune", "attention_keys"))
    assert call("report", out, "--out", "again.html").exit_code == 0  # a report needs no extension


def test_mistakes(tmp_path: Path) -> None:
    assert_one_line(call("--use", tmp_path / "missing.py", "methods"), "missing.py", "no such Python file")
    assert_one_line(call("--use", tmp_path, "methods"), "no such Python file")
    (tmp_path / "torch.py").write_text("")
    assert_one_line(call("--use", tmp_path / "torch.py", "methods"), "torch exists already")
    (tmp_path / "own.py").write_text("1 / 0")
    for _ in range(2):  # a file that failed is not taken for one that ran
        assert_one_line(
            call("--use", tmp_path / "own.py", "methods"), "own.py, line 1: ZeroDivisionError: division by zero"
        )
    assert isinstance(call("--traceback", "--use", tmp_path / "own.py", "methods").exception, UserError)


def test_a_distance_and_a_measure_are_entries(pair: tuple, workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    use(HERE / "more_measures.py")
    facts = mu.Facts.read(workplace / "facts.jsonl")[:3]
    found = mu.dissect(*pair, facts, sites="residual", windows="all", run=tmp_path / "run", progress=False)
    rows = found.frame.query("metric == 'total_variation'")
    tokens = mu.tokenize(facts, pair[0].tokenizer)
    with torch.no_grad():
        p, q = (hf(model)(input_ids=tokens.ids, attention_mask=tokens.attention).logits.softmax(-1) for model in pair)
    each = ((p - q).abs().sum(-1) / 2 * tokens.predicts).sum(1) / tokens.predicts.sum(1)
    assert rows["baseline"].tolist() == pytest.approx(each.tolist(), rel=1e-4)
    assert rows["defined"].all() and found.controls.query("metric == 'total_variation'")["passed"].dropna().all()
    assert "total variation of the predictions" in found.plot("total_variation").layout.title.text
    assert "total variation of the predictions" in mu.report(tmp_path / "run").read_text()
    asked = mu.evaluate(pair[0], facts, measures=["perplexity", "answer_probability"], progress=False)
    values = asked.frame["perplexity"] * asked.frame["answer_probability"]
    assert values.tolist() == pytest.approx([1.0] * len(facts))
    assert "perplexity" in list(asked.summary()["measure"])


def test_experts_get_roles_and_are_restored() -> None:
    """Roles of one's own go before the built-in ones: here experts' stacked matrices, as if they were dense."""
    plain = load_experts()
    experts = {slot.roles for slot in slots(plain) if "experts" in slot.name}
    assert experts == {("expert_keys",), ("expert_value_vectors",)}
    with pytest.raises(mu.UserError, match="has no such parameters"):
        resolve("value_vectors", plain)
    use(HERE / "experts.py")
    donor = load_experts()
    model = changed(donor, lambda slot: slot.name.endswith("layers.2.mlp.experts.down_proj"))
    sites = [resolve(site, model) for site in ("value_vectors", "mlp_keys", "block", "attention")]
    chosen = patches(sites, [mu.sliding(3), mu.single()], model.cfg.n_layers)
    found = Sweep(donor, model, chosen, mu.compare(donor, model).different).measure(rows())
    whole = found.groupby("patch")["mse"].sum()
    for number, patch in enumerate(chosen):
        holds = patch.site.name in ("value_vectors", "block") and patch.first <= 2 <= patch.last
        assert 1 - whole[number] / whole[PLAIN] == pytest.approx(float(holds), abs=1e-6), patch


def load_experts() -> TransformerBridge:
    config = MixtralConfig(**GROUPED, num_local_experts=3, num_experts_per_tok=2)
    torch.manual_seed(0)
    return mu.load(MixtralForCausalLM(config).eval(), device="cpu")
