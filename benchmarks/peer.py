"""The same case as TRL does it, in the setting in which it is fastest: no activation checkpointing.

Its reference log-probabilities are computed once before training (precompute_ref_log_probs), as ours are; its live
reference, which is TRL's default, reads the same tokens in the same batches. So one run tells both what a first run
takes and what the next one does, for which they are there.
"""

from functools import partial
from pathlib import Path

from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.cases import Case
from benchmarks.meter import Took, timed
from benchmarks.work import ALPHA, BETA, CLIP, RANK, RATE, SPECIAL, make_pairs


def run(case: Case, model, precision: str, folder: Path) -> tuple[Took, Took, list[float]]:
    """(how long the reference pass took, how long training, the loss of each step); writes no checkpoint."""
    trainer = make_trainer(case, model, precision, folder)
    if case.method == "bco":  # of this release; it forgets its own precision there
        with trainer.accelerator.autocast():
            before, _ = timed(trainer.get_train_dataloader)
    else:
        before = trainer.reference_took
    took, _ = timed(trainer.train)
    return before, took, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def make_trainer(case: Case, model, precision: str, folder: Path):
    """TRL's trainer; DPO's and KTO's has computed its reference when it is there."""
    import trl  # here, as which release is found depends on the case

    if trl.__version__ != case.peer:
        raise RuntimeError(f"{case.method} is compared with TRL {case.peer}, found {trl.__version__} (see --bco-trl)")
    disable_progress_bars()
    if case.method == "bco":
        from trl.experimental.bco import BCOConfig, BCOTrainer

        trainer, config = BCOTrainer, BCOConfig
    else:
        trainer, config = {"dpo": (trl.DPOTrainer, trl.DPOConfig), "kto": (trl.KTOTrainer, trl.KTOConfig)}[case.method]
    settings = config(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=case.batch, beta=BETA,
        train_sampling_strategy="sequential", learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0,
        max_grad_norm=CLIP, gradient_checkpointing=False, max_length=2 * (case.prompt + case.answer), logging_steps=1,
        save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, bf16=precision == "bfloat16",
        dataloader_pin_memory=False, precompute_ref_log_probs=True, seed=0,
    )
    data = {"args": settings, "train_dataset": make_texts(case), "processing_class": words(case.vocabulary)}
    if not case.adapted:
        return with_clock(trainer)(model=model, **data)
    start, config = make_adapter(case, model)
    made = with_clock(trainer)(model=model, peft_config=config, **data)
    if made.model.load_state_dict(start, strict=False).unexpected_keys:
        raise RuntimeError("the two adapters are not on the same linear maps")
    return made


def make_adapter(case: Case, model) -> tuple[dict, object]:
    """(our adapter's weights at the start, peft's config of it): the peer begins with the same ones."""
    from prefcore.engine.models import add_lora

    adapted = add_lora(model, rank=RANK, alpha=ALPHA, top_layers=case.adapted, seed=0)
    start = {name: value.clone() for name, value in adapted.state_dict().items() if "lora_" in name}
    config = adapted.peft_config["default"]
    adapted.unload()
    return start, config


def with_clock(trainer: type) -> type:
    """The trainer's class, which keeps how long its pass with the reference took."""

    class Clocked(trainer):
        def _precompute_ref_logps(self, *data):
            self.reference_took, dataset = timed(partial(super()._precompute_ref_logps, *data))
            return dataset

    return Clocked


def make_texts(case: Case) -> Dataset:
    """The token ids as words, without the EOS that TRL adds."""

    def text(ids):
        return " ".join(f"w{i}" for i in ids)

    pairs = make_pairs(case)
    prompts = [text(pair.prompt) for pair in pairs]
    answers = [(" " + text(pair.chosen[:-1]), " " + text(pair.rejected[:-1])) for pair in pairs]
    if case.method == "dpo":
        chosen, rejected = zip(*answers, strict=True)
        return Dataset.from_dict({"prompt": prompts, "chosen": list(chosen), "rejected": list(rejected)})
    return Dataset.from_dict({
        "prompt": [prompt for prompt in prompts for _ in range(2)],
        "completion": [answer for both in answers for answer in both],
        "label": [True, False] * len(pairs),
    })


def words(vocabulary: int) -> PreTrainedTokenizerFast:
    """Word w<i> is token i, whatever the model was trained with; no BOS, which TRL's BCO alone would add."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    known = {word: i for i, word in enumerate(special + [f"w{i}" for i in range(SPECIAL, vocabulary)])}
    core = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=4096
    )
