"""Any causal language model can be brought: it trains, samples, is saved and reloaded, or it is refused by name."""

import json
from math import log

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from prefcore.data.types import Example
from prefcore.engine import decoder, models, reference, train
from prefcore.engine import sample as sampling
from prefcore.engine.collate import collate, make_plan
from prefcore.engine.logps import branch_logps, choose_path, frozen_depth, plain_logps, run_trunk
from prefcore.engine.sample import sample
from prefcore.methods import dpo

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
MARKS = {"vocab_size": 97, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ROTARY = MARKS | {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
GROUPED = ROTARY | {"num_key_value_heads": 2}
WIDE = GROUPED | {"head_dim": 8}
GPT = MARKS | {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}
FALCON = MARKS | {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
OPT = MARKS | {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
OPT |= {"max_position_embeddings": 256, "dropout": 0.1}
FAMILIES = {
    "Llama": ("LlamaConfig", GROUPED),
    "Mistral with a window": ("MistralConfig", GROUPED | {"sliding_window": 8}),
    "Qwen 2": ("Qwen2Config", GROUPED),
    "Qwen 3": ("Qwen3Config", WIDE),
    "Gemma": ("GemmaConfig", WIDE),
    "Gemma 2": ("Gemma2Config", WIDE | {"sliding_window": 8}),
    "Gemma 3": ("Gemma3TextConfig", WIDE | {"sliding_window": 8}),
    "Gemma 3 with eyes": ("Gemma3Config", MARKS | {
        "text_config": WIDE | {"sliding_window": 8}, "mm_tokens_per_image": 4, "image_token_index": 96,
        "boi_token_index": 95, "eoi_token_index": 94,
        "vision_config": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
                          "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
    }),
    "Pythia": ("GPTNeoXConfig", ROTARY),
    "GPT-2": ("GPT2Config", GPT),
    "GPT-J": ("GPTJConfig", GPT | {"rotary_dim": 4}),
    "GPT-Neo": ("GPTNeoConfig", MARKS | {
        "hidden_size": 32, "num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]],
        "window_size": 8, "max_position_embeddings": 256,
    }),
    "Phi": ("PhiConfig", ROTARY),
    "Phi 3": ("Phi3Config", GROUPED),
    "Falcon": ("FalconConfig", FALCON),
    "Falcon with ALiBi": ("FalconConfig", FALCON | {"alibi": True}),
    "Falcon 40B": ("FalconConfig", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "OLMo": ("OlmoConfig", GROUPED),
    "OLMo 2": ("Olmo2Config", GROUPED),
    "OPT": ("OPTConfig", OPT | {"word_embed_proj_dim": 32}),
    "OPT 350M": ("OPTConfig", OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "BLOOM": ("BloomConfig", MARKS | {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "MPT": ("MptConfig", MARKS | {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 256}),
    "StableLM": ("StableLmConfig", GROUPED),
    "StarCoder 2": ("Starcoder2Config", GROUPED),
    "StarCoder": ("GPTBigCodeConfig", GPT),
    "Granite": ("GraniteConfig", GROUPED | {"logits_scaling": 2.0, "embedding_multiplier": 3.0}),
}  # fmt: skip
NO_ADAPTER = {
    "Mixtral": ("MixtralConfig", GROUPED | {"num_local_experts": 4}),
    "OLMoE": ("OlmoeConfig", GROUPED | {"num_experts": 4, "num_experts_per_tok": 2}),
    "LFM 2": ("Lfm2Config", GROUPED | {"layer_types": ["conv", "full_attention", "conv"]}),
}
REFUSED = {
    "mamba": ("MambaConfig", MARKS | {"hidden_size": 16, "num_hidden_layers": 3, "state_size": 4}),
    "rwkv": ("RwkvConfig", MARKS | {"hidden_size": 32, "num_hidden_layers": 3, "context_length": 64}),
    "bert": ("BertConfig", ROTARY),
    "roberta": ("RobertaConfig", ROTARY),
    "openai-gpt": ("OpenAIGPTConfig", GPT),
    "recurrent_gemma": ("RecurrentGemmaConfig", ROTARY | {"num_key_value_heads": 1, "lru_width": 32}),
}


def build(name, settings):
    """A model of this family with random weights: larger than usual, and no bias 0, so that a wrong path shows."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            parameter.normal_(0, 0.3) if path.endswith("bias") else parameter.mul_(3)
    return model


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def model(request):
    return build(*request.param)


def adapt(model):
    return models.add_lora(model, rank=2, alpha=4.0, top_layers=1, seed=0)


def train_on(policy, rows, folder):
    """A few steps of DPO: the reference's log-probabilities, and the loss of the first step."""
    plan = make_plan(rows, batch_size=4, epochs=4, seed=0, pad_id=0)
    plan = reference.attach(plan, policy, cache=None)
    history = train.fit(policy, plan, objective, {"beta": 0.5}, learning_rate=1e-2, seed=0, checkpoints=folder)
    return torch.from_numpy(plan.ref_logps), history["loss"][0]


def objective(logps, ref_logps, batch, state, *, beta):
    return dpo.loss(logps, ref_logps, beta=beta)


def score(policy, rows):
    return torch.from_numpy(reference.score_all(policy, rows, pad_id=0))


def score_one_by_one(policy, rows):
    """The slow twin: each prompt with each completion alone, without mask, padding or positions, in float64."""
    out = torch.zeros(len(rows), len(rows[0].completions))
    for b, row in enumerate(rows):
        for k, completion in enumerate(row.completions):
            with torch.no_grad():
                logits = policy(input_ids=torch.tensor([[*row.prompt, *completion]])).logits[0]
            table = logits.double().log_softmax(-1)
            out[b, k] = sum(table[len(row.prompt) - 1 + t, token] for t, token in enumerate(completion))
    return out


def learnt(gains):
    """By how much the first answers have gained on the second ones, in nats."""
    return (gains[:, 0] - gains[:, 1]).mean()


def equal(one, other, gap=1e-4):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=gap)


# --- numbers ----------------------------------------------------------------------------------------------------


def test_log_probabilities_are_those_of_the_models_own_logits(draw, model):
    """Prompts and answers are longer than the windows above, together and alone."""
    rows = draw(5, 3, prompt=(1, 14), completion=(1, 12))
    equal(score(model, rows), score_one_by_one(model, rows))
    equal(score(model, rows[:1]), score_one_by_one(model, rows[:1]))


@pytest.mark.parametrize("begun", [False, True])
def test_samples_have_the_models_own_log_probabilities(draw, model, tokenizer, monkeypatch, begun):
    """Also where four of the prompts begin alike, and that is read once."""
    prompts = [row.prompt for row in draw(6, 1)]
    if begun:
        prompts[2:] = [prompts[0][:3] + prompt for prompt in prompts[2:]]
        monkeypatch.setattr(sampling, "SHARED", 3)
    drawn = sample(model, tokenizer, prompts, max_new_tokens=12, seed=0)
    ends = [(tokenizer.eos_token_id,) if one.finished else () for one in drawn]
    rows = [Example("", prompt, (one.ids + end,)) for prompt, one, end in zip(prompts, drawn, ends, strict=True)]
    equal(torch.tensor([[one.logp] for one in drawn]), score_one_by_one(model, rows))
    assert len({one.ids for one in drawn}) == 6 and max(len(one.ids) for one in drawn) > 8


def test_samples_of_repeated_prompts_have_the_models_own_log_probabilities(draw, model, tokenizer, monkeypatch):
    """Of unlike lengths, each asked for several times and kept once for all of its rows where that is possible."""
    monkeypatch.setattr(sampling, "REPEATED", 0)
    prompts = [row.prompt for row in draw(3, 1)]
    asked = [prompts[i] for i in (0, 1, 0, 2, 0, 1, 2, 0)]
    drawn = sample(model, tokenizer, asked, max_new_tokens=12, seed=0)
    ends = [(tokenizer.eos_token_id,) if one.finished else () for one in drawn]
    rows = [Example("", prompt, (one.ids + end,)) for prompt, one, end in zip(asked, drawn, ends, strict=True)]
    equal(torch.tensor([[one.logp] for one in drawn]), score_one_by_one(model, rows))


def test_the_frozen_layers_output_is_used_only_where_it_gives_the_whole_models_numbers(draw, model):
    rows = draw(5, 2, prompt=(4, 14), completion=(2, 9))
    policy = models.train_top(model, layers=1)
    depth = reference.usable_depth(policy, rows)
    answers = reference.frozen(policy, rows, depth, pad_id=0, cache=None)
    equal(torch.from_numpy(answers.logps), score_one_by_one(model, rows))
    assert frozen_depth(policy) == len(decoder.find_layers(model)[1]) - 1 and depth in (0, frozen_depth(policy))
    if depth:
        batch = collate(rows, pad_id=0)
        with torch.no_grad():
            batch |= {"trunk": run_trunk(policy, batch, depth), "depth": depth}
        batch["input_ids"] = torch.zeros_like(batch["input_ids"])  # which nothing reads any more
        with torch.no_grad():
            equal(branch_logps(policy, batch), score_one_by_one(model, rows))


# --- adapters ---------------------------------------------------------------------------------------------------


def test_an_adapter_sits_on_every_linear_map_of_the_last_layers_and_nowhere_else(model):
    _, layers = decoder.find_layers(model)
    last = {id(part) for layer in layers[-2:] for part in layer.modules() if isinstance(part, torch.nn.Linear | Conv1D)}
    policy = models.add_lora(model, rank=2, alpha=4.0, top_layers=2, seed=0)
    adapted = {id(part.base_layer) for part in policy.modules() if hasattr(part, "lora_A")}
    assert adapted == last and len(last) >= 6


def test_an_adapter_trains_from_the_reference_is_saved_merged_and_reloaded(draw, model, tokenizer, tmp_path):
    rows = draw(12, 2, prompt=(4, 14), completion=(2, 9))
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    _, base = models.load_policy(str(tmp_path / "base"))
    before = score_one_by_one(base, rows)
    equal(score_one_by_one(model, rows), before)

    policy = adapt(base)
    found, first = train_on(policy, rows, tmp_path / "run")
    equal(found, before)
    after = score_one_by_one(policy, rows)
    assert first == pytest.approx(log(2), abs=1e-5) and learnt(after - before) > 0.1
    equal(score(policy, rows), after)
    equal(torch.from_numpy(reference.logps(policy, rows, pad_id=0)), before)
    assert sample(policy, tokenizer, [rows[0].prompt], max_new_tokens=4, seed=0)[0].ids

    models.save_adapter(policy, tokenizer, tmp_path / "adapter")
    _, loaded = models.load_policy(str(tmp_path / "adapter"))
    equal(score(loaded, rows), after)
    models.save_policy(policy, tokenizer, tmp_path / "merged")
    _, merged = models.load_policy(str(tmp_path / "merged"))
    assert not hasattr(merged, "peft_config") and type(merged) is type(model)
    equal(score(merged, rows), after, gap=1e-3)


def test_the_top_is_trained_and_what_lies_below_is_not(draw, model, tokenizer, tmp_path):
    rows = draw(12, 2, prompt=(4, 14), completion=(2, 9))
    policy = models.train_top(model, layers=1)
    parts = [decoder.find_layers(model)[1][-1], *map(model.get_decoder().get_submodule, decoder.find_tail(model))]
    inside = {id(parameter) for part in parts for parameter in part.parameters()}
    before = {name: parameter.clone() for name, parameter in policy.named_parameters()}
    reference_logps, first = train_on(policy, rows, tmp_path / "run")
    after = score_one_by_one(policy, rows)
    assert first == pytest.approx(log(2), abs=1e-5) and learnt(after - reference_logps) > 0.1
    for name, parameter in policy.named_parameters():
        assert (parameter != before[name]).any() == (id(parameter) in inside), name
    equal(score(policy, rows), after)
    models.save_policy(policy, tokenizer, tmp_path / "whole")
    equal(score(models.load_policy(str(tmp_path / "whole"))[1], rows), score(policy, rows))


# --- Llama is as it was -----------------------------------------------------------------------------------------

NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_llamas_adapter_has_the_modules_the_order_and_the_bytes_of_the_explicit_list(tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    def plain():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**GROUPED)).eval()

    ours = models.add_lora(plain(), rank=4, alpha=8.0, top_layers=2, seed=5)
    after = torch.rand(1)
    base = plain()
    torch.manual_seed(5)
    config = {"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.0, "target_modules": NAMES, "layers_to_transform": [1, 2]}
    theirs = get_peft_model(base, LoraConfig(**config, task_type="CAUSAL_LM"))
    assert torch.equal(after, torch.rand(1))
    found, expected = (dict(policy.named_parameters()) for policy in (ours, theirs))
    assert list(found) == list(expected) and len([name for name in found if "lora_" in name]) == 2 * 2 * 7
    assert all(torch.equal(found[name], expected[name]) for name in found)
    models.save_adapter(ours, tokenizer, tmp_path / "ours")
    models.save_adapter(theirs, tokenizer, tmp_path / "theirs")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    assert json.loads((tmp_path / "ours/adapter_config.json").read_text())["target_modules"] == sorted(NAMES)


FAST = [
    "Llama", "Qwen 2", "Qwen 3", "Gemma", "Pythia", "GPT-2", "Phi 3", "OLMo", "OLMo 2", "OPT", "StableLM",
    "StarCoder 2", "StarCoder", "Mixtral", "OLMoE",
]  # fmt: skip
PLAIN = [
    "GPT-Neo", "Falcon", "Falcon with ALiBi", "Falcon 40B", "BLOOM", "MPT",  # attention in their own code
    "Mistral with a window", "Gemma 3", "Gemma 3 with eyes", "Gemma 2",  # windows, and a cap
    "GPT-J", "Phi", "Granite", "LFM 2",  # a head with a bias, scaled logits, convolutions
]  # fmt: skip


@pytest.mark.parametrize("name", FAST)
def test_families_whose_attention_follows_a_layout_read_each_prompt_once(draw, name):
    model = models.train_top(build(*(FAMILIES | NO_ADAPTER)[name]), layers=1)
    assert choose_path(model, 40) is branch_logps and reference.usable_depth(model, draw(2, 2)) == 2


def test_layers_that_a_family_projects_between_are_not_kept_though_it_reads_each_prompt_once(draw):
    model = models.train_top(build(*FAMILIES["OPT 350M"]), layers=1)
    assert choose_path(model, 40) is branch_logps and reference.usable_depth(model, draw(2, 2)) == 0


@pytest.mark.parametrize("name", PLAIN)
def test_families_whose_code_does_more_than_a_layout_says_take_plain_rows(name):
    assert {*FAST, *PLAIN, "OPT 350M"} == set(FAMILIES | NO_ADAPTER)
    assert choose_path(build(*(FAMILIES | NO_ADAPTER)[name]), 40) is plain_logps


# --- what a short comparison does not show ----------------------------------------------------------------------


def test_a_head_with_a_bias_of_0_a_cap_and_an_adapted_head_take_the_plain_path():
    """All give the fast path's numbers now, and others once they are trained."""
    torch.manual_seed(0)
    biased = AutoModelForCausalLM.from_config(transformers.PhiConfig(**ROTARY)).eval()
    capped = AutoModelForCausalLM.from_config(transformers.GemmaConfig(**WIDE)).eval()
    capped.config.final_logit_softcapping = 1e6
    plain = AutoModelForCausalLM.from_config(transformers.LlamaConfig(**GROUPED)).eval()
    adapted = models.add_adapter(plain, ["lm_head"], rank=2, alpha=4.0, seed=0)
    assert not biased.get_output_embeddings().bias.any()
    for model in (biased, capped, adapted):
        assert choose_path(model) is plain_logps


@pytest.mark.parametrize("name", ["Mistral with a window", "Gemma 3"])
def test_a_window_is_kept_when_answers_are_sampled_past_it(draw, name, tokenizer):
    model, prompt = build(*FAMILIES[name]), tuple(range(10, 22))
    first = sample(model, tokenizer, [prompt] * 40, max_new_tokens=1, seed=0)
    row = Example("", prompt, (first[0].ids or (tokenizer.eos_token_id,),))
    np.testing.assert_allclose(first[0].logp, score_one_by_one(model, [row])[0, 0], atol=1e-4)
    wide = build(FAMILIES[name][0], FAMILIES[name][1] | {"sliding_window": 200})
    assert (score_one_by_one(model, [row]) - score_one_by_one(wide, [row])).abs().max() > 1e-3  # the window matters


# --- what is refused --------------------------------------------------------------------------------------------


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_cannot_be_sampled_and_scored_alike_is_refused_by_name(kind, tokenizer, tmp_path):
    name, settings = REFUSED[kind]
    folder = save(build(name, settings), tokenizer, tmp_path / "brought")
    with pytest.raises(ValueError, match=f"brought is a {kind} model, which cannot be used here: .*Bring a causal"):
        models.load_policy(folder)


@pytest.mark.parametrize("name", ["T5Config", "BartConfig"])
def test_a_model_with_an_encoder_is_refused_by_name_before_its_weights_are_read(name, tokenizer, tmp_path):
    getattr(transformers, name)().save_pretrained(tmp_path / "brought")  # no weights at all
    tokenizer.save_pretrained(tmp_path / "brought")
    kind = name.removesuffix("Config").lower()
    with pytest.raises(ValueError, match=f"brought is a {kind} model, which continues no text: bring a causal one"):
        models.load_policy(str(tmp_path / "brought"))


@pytest.mark.parametrize("family", NO_ADAPTER)
def test_an_adapter_that_would_leave_weights_out_is_refused_and_the_top_can_be_trained(draw, family, tmp_path):
    model, rows = build(*NO_ADAPTER[family]), draw(8, 2)
    with pytest.raises(ValueError, match=r"an adapter on its linear maps would leave out .*weight.*train_top"):
        adapt(model)
    before, first = train_on(models.train_top(model, layers=1), rows, tmp_path)
    after = score_one_by_one(model, rows)
    assert first == pytest.approx(log(2), abs=1e-5) and learnt(after - before) > 0.1
    equal(score(model, rows), after)


def test_a_tokenizer_pads_with_its_end_where_it_has_no_padding_and_needs_an_end(tiny_llama, tokenizer, tmp_path):
    tokenizer.pad_token = None
    folder = save(tiny_llama, tokenizer, tmp_path / "brought")
    assert models.load_policy(folder)[0].pad_token_id == tokenizer.eos_token_id
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="the tokenizer of .*brought has no token that ends a text"):
        models.load_policy(folder)
