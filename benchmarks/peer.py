"""The same case as TRL does it, in the setting in which it is fastest: no activation checkpointing, reference live.

The frozen copy of the model exists before the clock and the memory meter start, so neither is charged for it.
"""

from pathlib import Path

from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.work import BETA, CLIP, RATE, SPECIAL, VOCABULARY, Case, Pair


def make_trainer(case: Case, policy, frozen, pairs: list[Pair], folder: Path):
    """TRL's trainer; its `train()` is the work."""
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
        save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, bf16=False, dataloader_pin_memory=False,
        seed=0,
    )
    return trainer(
        model=policy, ref_model=frozen, args=settings, train_dataset=make_texts(case, pairs), processing_class=words()
    )


def losses(trainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def make_texts(case: Case, pairs: list[Pair]) -> Dataset:
    """The token ids as words, without the EOS that TRL adds."""

    def text(ids):
        return " ".join(f"w{i}" for i in ids)

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


def words() -> PreTrainedTokenizerFast:
    """Word w<i> is token i, whatever the model was trained with; no BOS, which TRL's BCO alone would add."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate(special + [f"w{i}" for i in range(SPECIAL, VOCABULARY)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=4096
    )
