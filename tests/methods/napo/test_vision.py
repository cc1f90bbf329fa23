"""Pictures under the shared engine: the same numbers as transformers' own forward, for two architectures."""

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from prefcore import smoke
from prefcore.data.types import LossOutput
from prefcore.engine import collate, models
from prefcore.engine.train import fit
from prefcore.methods.napo import parts, tower, vision

QUESTIONS = ("The long story", "My old phone is", "", "a <image> <|im_end|> token")
ANSWERS = (" is a wonderful great joy", " was a poor thing")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    smoke.make_weights(folder)
    return folder / "policy"


@pytest.fixture
def llava(weights):
    """(processor, small LLaVA of random weights)."""
    tokenizer, policy = models.load_policy(str(weights))
    return tower.assemble(tower.make_tower(0), policy, tokenizer, layers=2, seed=0)


def album(n):
    return list(np.random.default_rng(0).integers(0, 256, size=(n, 64, 64, 3), dtype=np.uint8))


def examples_of(processor, n=4):
    prompts = vision.make_prompts(processor, list(zip(album(n), QUESTIONS, strict=False)))
    answers = [ANSWERS, ANSWERS[::-1], (ANSWERS[0], "a"), ANSWERS]
    made = [
        vision.make_example(str(i), prompt, answers[i], processor.tokenizer, max_completion=12)
        for i, prompt in enumerate(prompts)
    ]
    return made, [prompt.image for prompt in prompts]


def plain(model, example, image):
    """The K log-probabilities of one example, each a row of its own through the model's own forward."""
    out = []
    for completion in example.completions:
        ids = torch.tensor([example.prompt + completion])
        with torch.no_grad():
            table = model(input_ids=ids, **image).logits[0].log_softmax(-1)
        n = len(example.prompt)
        out.append(table[n - 1 : -1].gather(1, ids[0, n:, None]).sum())
    return torch.stack(out)


# --- prompts ----------------------------------------------------------------------------------------------------


def test_a_prompt_is_the_picture_then_the_question_and_either_can_be_removed(llava):
    processor, model = llava
    token, words = model.config.image_token_id, processor.tokenizer
    (picture,) = album(1)
    whole, blind, mute = vision.make_prompts(processor, [(picture, "My old"), (None, "My old"), (picture, None)])
    assert whole.ids[:16] == (token,) * 16 and words.decode(whole.ids[16:]) == "My old\n"
    assert words.decode(blind.ids) == "My old\n" and not blind.image and token not in blind.ids
    assert mute.ids[:16] == (token,) * 16 and words.decode(mute.ids[16:]) == "\n"
    assert whole.image["pixel_values"].shape == (1, 3, 64, 64) and mute.image["pixel_values"].shape == (1, 3, 64, 64)


def test_pixels_reach_the_model_as_they_reached_the_tower(llava):
    (picture,) = album(1)
    (prompt,) = vision.make_prompts(llava[0], [(picture, "x")])
    assert torch.allclose(prompt.image["pixel_values"], tower.as_pixels([picture]), atol=1e-6)


def test_a_picture_token_or_a_control_token_in_a_question_is_inert_text(llava):
    processor, model = llava
    (prompt,) = vision.make_prompts(processor, [(album(1)[0], "a <image> <|im_end|> b")])
    assert prompt.ids.count(model.config.image_token_id) == 16
    assert processor.tokenizer.eos_token_id not in prompt.ids
    assert processor.tokenizer.decode(prompt.ids[16:]) == "a <image> <|im_end|> b\n"


def test_a_prompt_with_neither_picture_nor_question_is_refused(llava):
    with pytest.raises(ValueError, match="prompt 1 has neither a picture nor a question"):
        vision.make_prompts(llava[0], [(None, "x"), (None, None)])


def test_a_template_that_leaves_the_picture_out_is_refused(llava):
    processor, _ = llava
    processor.chat_template = "{% for part in messages[0]['content'] %}{{ part['text'] }}{% endfor %}"
    with pytest.raises(ValueError, match="must hold the picture's token <image> once"):
        vision.make_prompts(processor, [(album(1)[0], "x")])


def test_prompts_whose_picture_tokens_do_not_fit_the_picture_are_refused_with_the_row(llava):
    processor, model = llava
    made, images = examples_of(processor)
    cut = made[1]._replace(prompt=made[1].prompt[3:])
    with pytest.raises(ValueError, match=r"row 1: 13 picture tokens .* but its picture has 16"):
        vision.logps(model, [made[0], cut], images[:2], pad_id=0)
    bare = made[1]._replace(prompt=made[1].prompt[16:])
    with pytest.raises(ValueError, match=r"row 1: 0 picture tokens .* but its picture has 16"):
        vision.logps(model, [made[0], bare], images[:2], pad_id=0)
    with pytest.raises(ValueError, match=r"row 0: 16 picture tokens .* but its picture has 0"):
        vision.logps(model, made[:1], [{}], pad_id=0)


# --- numbers ----------------------------------------------------------------------------------------------------


def test_a_prompt_read_once_with_branches_gives_the_numbers_of_plain_rows(llava):
    processor, model = llava
    made, images = examples_of(processor)
    with torch.no_grad():
        found = vision.logps(model, made, images, pad_id=processor.tokenizer.pad_token_id)
    expected = torch.stack([plain(model, e, image) for e, image in zip(made, images, strict=True)])
    assert torch.allclose(found, expected, atol=1e-3)


def test_another_picture_changes_every_branch_and_no_other_row(llava):
    processor, model = llava
    made, images = examples_of(processor)
    other = [*images[:1], {"pixel_values": -images[1]["pixel_values"]}, *images[2:]]
    with torch.no_grad():
        before, after = (vision.logps(model, made, shown, pad_id=0) for shown in (images, other))
    assert (before[1] != after[1]).all() and torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])


def test_rows_without_a_picture_stand_beside_rows_with_one(llava):
    processor, model = llava
    prompts = vision.make_prompts(processor, [(album(1)[0], "My old"), (None, "My old")])
    how = {"tokenizer": processor.tokenizer, "max_completion": 12}
    made = [vision.make_example(str(i), p, ANSWERS, **how) for i, p in enumerate(prompts)]
    with torch.no_grad():
        found = vision.logps(model, made, [p.image for p in prompts], pad_id=0)
    expected = torch.stack([plain(model, e, p.image) for e, p in zip(made, prompts, strict=True)])
    assert torch.allclose(found, expected, atol=1e-3)


def test_gradients_reach_the_projector_and_are_those_of_the_plain_forward(llava):
    processor, model = llava
    made, images = examples_of(processor)
    weight = model.model.multi_modal_projector.linear_1.weight
    vision.logps(model, made[:1], images[:1], pad_id=0)[0, 0].backward()
    ours = weight.grad.clone()
    model.zero_grad()
    ids = torch.tensor([made[0].prompt + made[0].completions[0]])
    table, n = model(input_ids=ids, **images[0]).logits[0].log_softmax(-1), len(made[0].prompt)
    table[n - 1 : -1].gather(1, ids[0, n:, None]).sum().backward()
    assert ours.abs().max() > 0 and torch.allclose(ours, weight.grad, atol=1e-4)


@pytest.mark.parametrize("family", ["smolvlm", "qwen"])
def test_other_architectures_go_the_same_way(family, make_model):
    """Tiny and random: same numbers as their own forward. Qwen-VL gives a picture's tokens places in a plane."""
    model, image, more = make_model(family, vocab=99, token=98)
    prompt = (5, 97, *(98,) * 4, 6, 7) if family == "qwen" else (98,) * 4 + (5, 6, 7)
    example = vision.Example("0", prompt, ((8, 9, 10), (11, 12)))
    with torch.no_grad():
        found = vision.logps(model, [example], [image], pad_id=0)
    expected = []
    for completion in example.completions:
        ids = torch.tensor([prompt + completion])
        with torch.no_grad():
            table = model(input_ids=ids, **image, **more(ids)).logits[0].log_softmax(-1)
        expected.append(table[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).sum())
    assert torch.allclose(found[0], torch.stack(expected), atol=1e-3)


# --- training ---------------------------------------------------------------------------------------------------


def attached(processor, model, batch_size=2, epochs=1, top_layers=1):
    made, images = examples_of(processor)
    policy = parts.add_lora(model, rank=2, alpha=4.0, top_layers=top_layers, seed=0)
    pad = processor.tokenizer.pad_token_id
    plan = collate.make_plan(made, batch_size=batch_size, epochs=epochs, seed=0, pad_id=pad)
    return policy, vision.attach(plan, policy, images), images


def test_the_attached_plan_holds_the_reference_and_the_frozen_layers_output(llava):
    processor, model = llava
    made, images = examples_of(processor)
    expected = torch.stack([plain(model, e, image) for e, image in zip(made, images, strict=True)])
    policy, plan, _ = attached(processor, model)
    assert plan.depth == 1 and [sum(map(len, t)) for t in plan.trunk] == [collate.size(e) for e in made]
    assert torch.allclose(torch.from_numpy(plan.ref_logps), expected, atol=1e-3)


def test_a_trunk_without_room_and_one_above_a_trained_projector_are_not_kept(llava, monkeypatch):
    """The old code kept it always: 40 GB for a LLaVA of 7 B and 5,700 rows."""
    processor, model = llava
    with monkeypatch.context() as small:
        small.setattr(vision, "TRUNK_BYTES", 100)
        policy, plan, images = attached(processor, model)
        assert plan.depth == 0 and plan.trunk == [] and len(plan.images) == 4
    policy.unload()
    policy, whole, images = attached(processor, model, top_layers=0)
    assert whole.depth == 0 and np.allclose(whole.ref_logps, plan.ref_logps, atol=1e-4)


def test_adapters_sit_on_the_last_language_layers(llava):
    policy = parts.add_lora(llava[1], rank=2, alpha=4.0, top_layers=1, seed=0)
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert len(trained) == 14 and all("language_model.layers.1." in name and "lora_" in name for name in trained)


@pytest.mark.parametrize("layers", [0, 2])
def test_adapters_on_all_language_layers_take_the_projector_along(llava, layers):
    policy = parts.add_lora(llava[1], rank=2, alpha=4.0, top_layers=layers, seed=0)
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    where = [sum(part in name for name in trained) for part in ("layers.0.", "layers.1.", "projector", "vision_tower")]
    assert where == [14, 14, 4, 0] and len(trained) == 32


def test_more_layers_than_there_are_and_a_projector_of_no_known_name_are_refused(llava, monkeypatch):
    with pytest.raises(ValueError, match=r"lora_layers is 5; the model has 2 language layers \(0: all\)"):
        parts.add_lora(llava[1], rank=2, alpha=4.0, top_layers=5, seed=0)
    monkeypatch.setattr(parts, "PROJECTORS", ("bridge",))
    with pytest.raises(ValueError, match="no projector of the name bridge found: train fewer than all layers"):
        parts.add_lora(llava[1], rank=2, alpha=4.0, top_layers=0, seed=0)


def test_what_is_run_again_in_the_backward_pass_gives_the_same_gradients(llava):
    processor, model = llava
    policy, plan, images = attached(processor, model, top_layers=0)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)

    def slopes():
        policy.zero_grad()
        vision.logps(policy, plan.examples, images, pad_id=plan.pad_id).sum().backward()
        return {name: weight.grad.clone() for name, weight in policy.named_parameters() if weight.requires_grad}

    expected = slopes()
    with parts.recomputing(policy):
        found = slopes()
    assert all(torch.allclose(found[name], slope, atol=1e-5) for name, slope in expected.items())
    assert any(slope.abs().max() > 0 for slope in expected.values())
    assert not any("forward" in vars(layer) for layer in model.get_decoder().layers)


@pytest.mark.parametrize("top_layers", [0, 1])
def test_the_shared_trainer_raises_the_margin_of_pictured_answers(llava, tmp_path, top_layers):
    processor, model = llava
    policy, plan, images = attached(processor, model, epochs=12, top_layers=top_layers)

    def loss(logps, ref_logps, batch, state):
        rewards = logps - ref_logps
        return LossOutput(-torch.nn.functional.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach())

    how = {"learning_rate": 2e-2, "checkpoints": tmp_path / "c", "seed": 0, "score": vision.score}
    history = fit(policy, plan, loss, {}, **how)
    assert history["loss"].iloc[0] == pytest.approx(np.log(2), abs=1e-3)
    with torch.no_grad():
        gains = vision.logps(policy, plan.examples, images, pad_id=plan.pad_id) - torch.from_numpy(plan.ref_logps)
    assert (gains[:, 0] > gains[:, 1]).all() and history["loss"].iloc[-1] < 0.5


def test_fine_tuning_lowers_the_loss_and_leaves_tower_embedding_and_head_alone(llava):
    processor, model = llava
    made, images = examples_of(processor)
    single = [e._replace(completions=e.completions[:1]) for e in made]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    how = {"epochs": 15, "learning_rate": 1e-2, "batch_size": 4, "seed": 0, "pad_id": 0, "label": "teaching"}
    history = vision.fine_tune(model, single, images, **how)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] - 0.5
    assert any("multi_modal_projector" in name for name in changed) and any(".layers.0." in name for name in changed)
    assert not [name for name in changed if "vision_tower" in name or "embed_tokens" in name or "lm_head" in name]


# --- answers and files ------------------------------------------------------------------------------------------


def test_answers_are_the_likeliest_tokens_and_batches_do_not_matter(llava):
    processor, model = llava
    pictures = album(3)
    asked = [(pictures[0], "My old"), (None, "The long story"), (pictures[1], None), (pictures[2], "This new plan is")]
    prompts = vision.make_prompts(processor, asked)
    together = vision.answer(model, processor, prompts, max_new_tokens=5)
    alone = [vision.answer(model, processor, [prompt], max_new_tokens=5)[0] for prompt in prompts]
    slow = []
    for prompt in prompts:
        ids = list(prompt.ids)
        for _ in range(5):
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids]), **prompt.image).logits[0, -1].argmax()))
            if ids[-1] == processor.tokenizer.eos_token_id:
                break
        slow.append(processor.tokenizer.decode(ids[len(prompt.ids) :], skip_special_tokens=True).strip())
    assert together == alone == slow


def test_drawn_answers_differ_for_equal_prompts_and_are_drawn_alike_again(llava):
    processor, model = llava
    prompts = vision.make_prompts(processor, [(album(1)[0], "My old")] * 6)
    drawn = [vision.answer(model, processor, prompts, max_new_tokens=5, temperature=1.0, seed=s) for s in (0, 0, 1)]
    assert len(set(drawn[0])) > 1 and drawn[0] == drawn[1] != drawn[2]


def test_the_saved_model_is_plain_transformers_with_the_adapter_merged_in(llava, tmp_path):
    processor, model = llava
    made, images = examples_of(processor)
    policy = parts.add_lora(model, rank=2, alpha=4.0, top_layers=1, seed=0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        expected = vision.logps(policy, made, images, pad_id=0)
    vision.save(policy, processor, tmp_path / "model")
    assert not list((tmp_path / "model").glob("*.bin")) and not (tmp_path / "model.partial").exists()
    loaded, reader = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model"), AutoProcessor.from_pretrained(
        tmp_path / "model")  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(vision.logps(loaded.eval(), made, images, pad_id=0), expected, atol=1e-4)
    again = vision.make_prompts(reader, list(zip(album(4), QUESTIONS, strict=True)))
    assert [prompt.ids for prompt in again] == [example.prompt for example in made]
    text = reader.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTIONS[0]}]}], tokenize=False
    )
    inputs = reader(text=text, images=album(1)[0], return_tensors="pt")  # as a user of plain transformers would
    assert tuple(inputs["input_ids"][0].tolist()) == made[0].prompt
    assert loaded.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] > len(made[0].prompt)
