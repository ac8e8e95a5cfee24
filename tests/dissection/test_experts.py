"""A site exists where its meaning holds by numbers; experts have sites of their own."""

import pytest
import torch

from mechunlearn import NPO, Fact, Facts, Noise, Quantise, Relearn, attack, dissect, unlearn
from mechunlearn.attacks.weights import matrices, planes, share
from mechunlearn.errors import UserError
from mechunlearn.facts import tokenize
from mechunlearn.models import clone, hf, load, meaning, slots
from mechunlearn.sites import available, default, resolve
from mechunlearn.unlearning import CIR

from ..architectures import LAYERS, NAMES, tiny
from ..pairs import before as bridge, word_level

MIXTURES = ("mixtral", "gpt-oss", "qwen-moe")
PROMPTS = [("w5 w6 w7", "w8"), ("w15 w16", "w17 w18"), ("w25 w26 w27 w28", "w29"), ("w40", "w41 w42")]
FACTS = Facts(
    [Fact(prompt, answer, id=f"f{n}", role="forget", fold=n % 2) for n, (prompt, answer) in enumerate(PROMPTS)]
)
KEPT = Facts([Fact("w35 w36", "w37", id="kept", role="near")])


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return word_level([f"w{i}" for i in range(3, 96)], tmp_path_factory.mktemp("words"))


def planted(name, words, role, layer=1):
    """A pair whose only difference lies in the parameters of this role in one block."""
    before = load(tiny(name), tokenizer=words)
    after = clone(before)
    draw = torch.Generator().manual_seed(7)
    touched = [slot for slot in slots(after) if slot.layer == layer and role in slot.roles]
    assert touched
    with torch.no_grad():
        for slot in touched:
            slot.tensor.add_(0.3 * torch.randn(slot.tensor.shape, generator=draw))
    return before, after


@pytest.mark.parametrize("name", NAMES)
def test_dense_models_have_every_site_in_every_layer(name):
    model = bridge(name)
    assert meaning.faults(model) == {}
    there = {site for site, has in available(model).items() if has}
    assert {"mlp_coefficients", "head_output", "mlp_output", "attention_output", "value_vectors", "mlp_keys"} <= there
    assert not there & {"expert_keys", "expert_value_vectors", "router"}
    assert resolve("mlp_coefficients+attention_output", model).layers() == tuple(range(LAYERS))


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_have_no_coefficients_but_experts(name, words):
    model = load(tiny(name), tokenizer=words)
    there = {site for site, has in available(model).items() if has}
    assert {"expert_keys", "expert_value_vectors", "router", "mlp_output"} <= there
    dense = (0, 2) if name == "qwen-moe" else ()
    for site in ("mlp_coefficients", "value_vectors", "mlp_keys"):
        if dense and site != "mlp_coefficients":
            assert resolve(site, model).layers() == dense
        else:
            with pytest.raises(UserError, match=rf"site {site!r}"):
                resolve(site, model)
    for site in ("expert_keys", "expert_value_vectors", "router"):
        assert resolve(site, model).layers() == tuple(layer for layer in range(LAYERS) if layer not in dense)
    assert {slot.name.rpartition(".")[2] for slot in slots(model) if slot.roles == ("other",)} <= {"sinks"}


def test_what_a_refused_site_is_stands_in_the_error(words):
    model = load(tiny("mixtral"), tokenizer=words)
    with pytest.raises(
        UserError, match=r"blocks.0.mlp.hook_post is not what the name says: no single matrix follows it"
    ):
        resolve("mlp_coefficients", model)


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("role", ["expert_value_vectors", "expert_keys", "router"])
def test_a_planted_change_is_found_in_its_group_alone(name, role, words):
    before, after = planted(name, words, role)
    sites = [site for site in default(before) if "embedding" not in site]
    found = dissect(before, after, FACTS, windows="single", sites=sites, progress=False)
    frame = found.frame[(found.frame["metric"] == "mse") & (found.frame["first_layer"] == 1)]
    back = (
        1
        - frame.groupby("site", observed=True)["distance"].sum()
        / frame.groupby("site", observed=True)["baseline"].sum()
    )
    groups = {"expert_value_vectors", "expert_keys", "router", "attention"}
    assert back[sorted(groups & set(back.index))].to_dict() == pytest.approx(
        {group: float(group == role) for group in groups}, abs=1e-4
    )
    assert back["mlp_output"] == pytest.approx(1, abs=1e-4)
    assert found.controls["passed"].dropna().all() and len(found.controls["passed"].dropna()) > 8


@pytest.mark.parametrize("name", MIXTURES)
@torch.no_grad()
def test_restored_experts_give_the_logits_of_the_plain_module(name, words):
    before, after = planted(name, words, "expert_value_vectors")
    found = dissect(before, after, FACTS, windows="single", sites="expert_keys", progress=False)
    frame = found.frame[(found.frame["metric"] == "mse") & (found.frame["first_layer"] == 1)].set_index("fact")
    for fact in FACTS:
        row = tokenize(Facts([fact]), words)
        one, two = (hf(model)(row.ids).logits[row.predicts].double() for model in (before, after))
        assert frame.loc[fact.id, "distance"] == pytest.approx(float((one - two).pow(2).mean()), rel=1e-4)


def test_a_hook_that_is_not_what_its_name_says_is_found(monkeypatch):
    """The same check on a dense model whose coefficients are, by numbers, no longer what the matrix is applied to."""
    model = load(tiny("llama"))
    assert meaning.faults(model) == {}
    other = load(tiny("llama"))
    projection = other.blocks[2].mlp.submodules["out"]
    plain = projection.original_component.forward
    monkeypatch.setattr(projection.original_component, "forward", lambda x: 1.5 * plain(x))
    assert set(meaning.faults(other)) == {("mlp_coefficients", 2)}
    assert resolve("mlp_coefficients", other).layers() == (0, 1, 3)
    assert resolve("mlp_coefficients+attention_output", other).layers() == (0, 1, 3)


@pytest.mark.parametrize("name", MIXTURES)
def test_attacks_on_weights_reach_stacked_experts(name, words):
    model = load(tiny(name), tokenizer=words)
    wide = [slot.name for slot in slots(model) if slot.layer >= 0 and slot.tensor.dim() > 1]
    inside = {name for name in wide if not name.endswith("bias")}
    assert {slot.name for slot in matrices(model)} == inside
    for slot in matrices(model):
        for plane in planes(slot):
            wanted = {"expert_keys": 32, "router": 32}.get(slot.roles[0])
            assert wanted is None or plane.shape[-1] == wanted
    rounded = Quantise(scheme="int4")._rounded(model)
    changed = {a.name for a, b in zip(slots(model), slots(rounded), strict=True) if not torch.equal(a.tensor, b.tensor)}
    assert changed == inside
    assert Quantise().reaches(model) == Noise().reaches(model) > 0.95


def test_what_an_attack_reaches_is_said_where_it_is_little(words):
    model = load(tiny("mixtral"), tokenizer=words)
    suite = [Relearn(trainable="lora", epochs=1), Relearn(trainable="mlp", epochs=1), Quantise()]
    found = attack(model, Facts([*FACTS, *KEPT]), suite=suite, progress=False)
    reached = list(found.about["reached"].values())
    linear = [slot for slot in slots(model) if slot.layer >= 0 and "self_attn" in slot.name]
    assert reached[0] == pytest.approx(share(model, linear))
    experts = share(model, [slot for slot in slots(model) if "expert" in slot.roles[0]])
    assert reached[0] < 0.5 < reached[1] == pytest.approx(experts)
    assert reached[2] > 0.95
    [note] = found.about["notes"]
    assert "lora" in note and f"reaches {reached[0]:.0%} of the parameters inside the blocks" in note


def test_adapters_reach_nearly_all_of_a_dense_model(words):
    assert Relearn(trainable="lora").reaches(load(tiny("llama"), tokenizer=words)) > 0.95


def test_methods_train_experts_or_say_that_they_cannot(words):
    model = load(tiny("mixtral"), tokenizer=words)
    with pytest.raises(UserError, match=r"MLPs of blocks \[0, 1, 2, 3\] are mixtures of experts"):
        unlearn(model, CIR(), FACTS, KEPT, retain_text=["w5 w6 w7"] * 4, steps=1, batch_size=2, progress=False)
    run = unlearn(model, NPO(), FACTS, KEPT, steps=1, batch_size=2, progress=False, trainable="expert_value_vectors")
    moved = {
        a.roles[0] for a, b in zip(slots(model), slots(run.model), strict=True) if not torch.equal(a.tensor, b.tensor)
    }
    assert moved == {"expert_value_vectors"}
