"""One trainer for every method: transformers.Trainer over a plan of batches that is known before the first step.

What is ours: the loss comes from a method's objective, the data are the plan (so that resuming is skipping), and a
checkpoint holds only what is trained plus the objective's running state, and counts once it is whole.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from prefcore.data.types import Example
from prefcore.engine import progress, ranks, shards, trackers
from prefcore.engine.checkpoints import DONE, identity, last_whole
from prefcore.engine.collate import Plan, States, collate, longest
from prefcore.engine.layout import join
from prefcore.engine.logps import choose_path, to_device
from prefcore.engine.machine import check_precision


class Batches(Dataset):
    """Item s is the collated batch of step s of the plan, or this process's share of it."""

    def __init__(self, plan: Plan):
        self.plan = plan

    def __len__(self):
        return len(self.plan.batches)

    def __getitem__(self, step: int) -> dict:
        plan, chosen = self.plan, self.plan.batches[step]
        batch = self._collate([plan.examples[i] for i in chosen], [plan.trunk[i] for i in chosen if plan.depth])
        if plan.images:
            if not (mine := ranks.deal(chosen)):
                raise ValueError(f"step {step} has {len(chosen)} examples with pictures, and more processes share it: "
                                 "raise batch_size, or launch fewer")  # fmt: skip
            batch |= {"examples": [plan.examples[i] for i in mine], "images": [plan.images[i] for i in mine]}
        if plan.ref_logps is not None:
            batch["ref_logps"] = torch.from_numpy(plan.ref_logps[ranks.deal(chosen)])
        if plan.mismatches:
            batch["mismatch"] = self._collate(plan.mismatches[step], plan.mismatch_trunk[step] if plan.depth else [])
            if plan.ref_mismatch_logps:
                batch["ref_mismatch_logps"] = torch.from_numpy(ranks.deal(plan.ref_mismatch_logps[step]))
        return batch

    def _collate(self, examples: list[Example], trunk: list[States]) -> dict:
        """This process's share of the examples; one that has none reads the first of them, of which no row counts."""
        mine = ranks.deal(examples) or examples[:1]
        batch = collate(mine, pad_id=self.plan.pad_id)
        if self.plan.depth:
            batch |= {"trunk": join(mine, ranks.deal(trunk) or trunk[:1]), "depth": self.plan.depth}
        if not ranks.deal(examples):
            batch |= {name: batch[name][:0] for name in ("ids", "answer", "lengths", *mine[0].columns)}
        return batch


class Objective(torch.nn.Module):
    """Policy and loss as one module, as the Trainer wants it; `state` is the loss's running state, saved with it."""

    def __init__(self, policy, loss: Callable, state: dict[str, float], score: Callable):
        super().__init__()
        self.policy, self.loss, self.score = policy, loss, score
        self.state = torch.nn.ParameterDict(
            {name: torch.nn.Parameter(torch.tensor(float(value)), requires_grad=False) for name, value in state.items()}
        )
        self.numbers: dict[str, float] = {}

    def train(self, mode: bool = True):
        """Stay in eval mode whatever the Trainer says: with dropout, policy and reference would differ at step 0."""
        return super().train(False)

    def forward(self, **batch):
        logps = self.score(self.policy, batch)
        if "mismatch" in batch:
            with torch.no_grad():
                batch["mismatch_logps"] = self.score(self.policy, batch["mismatch"])[:, 0]
        state = {name: value.data for name, value in self.state.items()}
        out = self.loss(logps, batch.get("ref_logps"), batch, state)
        if not torch.isfinite(out.losses).all():
            bad = [
                i
                for i, finite in zip(batch["ids"], torch.isfinite(out.losses.detach()).tolist(), strict=True)
                if not finite
            ]
            raise FloatingPointError(
                f"the loss is not finite for {bad} (batch: {batch['ids']}): look at these rows, or lower the rate"
            )
        self.numbers = _describe(out, batch)
        return {"loss": ranks.step_mean(out.losses * batch.get("row_weight", 1))}


def _describe(out, batch) -> dict[str, float]:
    """What a person wants to see of a step: mean reward of each branch, margin of a pair, KTO's mismatch."""
    rewards = out.rewards.detach().float()
    numbers = {f"reward_{k}": rewards[:, k] for k in range(min(rewards.shape[1], 4))}
    for name, of in (("up", 1), ("down", 0)) if "label" in batch and rewards.shape[1] == 1 else ():
        numbers[f"reward_{name}"] = rewards[batch["label"] == of, 0]
    if rewards.shape[1] == 2:
        numbers["margin"] = rewards[:, 0] - rewards[:, 1]
        numbers["accuracy"] = (rewards[:, 0] > rewards[:, 1]).float()
    if "mismatch_logps" in batch and "ref_mismatch_logps" in batch:
        numbers["mismatch_logratio"] = batch["mismatch_logps"] - batch["ref_mismatch_logps"]
    return ranks.means(numbers)


class PlanTrainer(Trainer):
    """The Trainer, reading a plan in its order and saving only what is trained."""

    def get_train_dataloader(self):
        """The plan's steps in their order; they know of processes, so that nothing else deals them out again."""
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=self.data_collator)

    def _prepare_input(self, data):
        return to_device(data, self.args.device)

    def log(self, logs, *args, **kwargs):
        if "loss" in logs:
            logs = logs | self.model.numbers | {f"state_{k}": v.item() for k, v in self.model.state.items()}
        super().log(logs, *args, **kwargs)

    def _defer_fsdp_gradient_reduction(self):
        """What is accumulated is sharded too."""
        return nullcontext()

    def create_optimizer(self, *args):
        shards.keep_whole(optimiser := super().create_optimizer(*args))
        return optimiser

    def _save(self, output_dir=None, state_dict=None):
        trained = _trained(self.model)
        if ranks.is_first():
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_file(trained, Path(output_dir) / "trained.safetensors")

    def _save_optimizer_and_scheduler(self, output_dir):
        if not ranks.is_first():
            self.optimizer.state_dict()  # all take part in putting it together
        super()._save_optimizer_and_scheduler(output_dir)

    def _load_from_checkpoint(self, checkpoint, model=None):
        own, saved = self.model.state_dict(keep_vars=True), load_file(Path(checkpoint) / "trained.safetensors")
        with torch.no_grad():
            for name, tensor in saved.items():
                own[name].copy_(shards.dealt(tensor, own[name]))


def _trained(module: Objective) -> dict[str, torch.Tensor]:
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad or name.startswith("state.")}
    return {name: shards.whole(p.detach()).cpu().contiguous().clone() for name, p in trained.items()}


class Marks(TrainerCallback):
    """A checkpoint counts once this file is in it; also shows how far training is."""

    def __init__(self, label: str):
        self.label, self.steps = label, None

    def on_train_begin(self, args, state, control, **_):
        self.steps = iter(progress.track(range(state.max_steps - state.global_step), self.label))
        next(self.steps, None)

    def on_save(self, args, state, control, **_):
        ranks.wait()
        if ranks.is_first():
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / DONE).touch()

    def on_step_end(self, args, state, control, **_):
        next(self.steps, None)


def fit(
    policy,
    plan: Plan,
    loss: Callable,
    settings: Mapping,
    *,
    learning_rate: float,
    checkpoints: Path,
    seed: int,
    state: dict[str, float] | None = None,
    accumulation: int = 1,
    warmup: float = 0.1,
    schedule: str = "linear",
    max_grad_norm: float = 1.0,
    weight_decay: float = 0.0,
    save_every: int | None = 50,
    precision: str = "float32",
    label: str = "training",
    score: Callable | None = None,
    arguments: dict | None = None,
) -> pd.DataFrame:
    """Train the policy in place on the plan; returns one row per optimiser step.

    loss(logps [B, K], ref_logps [B, K] or None, batch, state, **settings) -> LossOutput; the mean of its losses is
    minimised (each times `row_weight`, if the examples have that column). `settings` are all
    numbers that it needs: a loss that reads them from around it is a ValueError.
    `batch` holds the examples' columns [B], `lengths` [B, K] in tokens and, for plans with mismatches, `mismatch_logps`
    and `ref_mismatch_logps` [B] (no gradient). `state` names the loss's running numbers and their start; the loss may
    change them in place, and they are in every checkpoint.
    Several processes share the examples of each step, and take the step of one (engine/ranks.py).
    A run that was killed goes on from its last whole checkpoint in `checkpoints`, if data, weights, loss and settings
    are still the same, and ends with the same bytes. With accumulation, losses with batch statistics (KTO, BCO)
    use those of the small batch. save_every: steps from one checkpoint to the next; None writes none. precision: of the
    layers' products (machine.py); weights, head and sums stay as they are, and the reference's numbers in the plan must
    be of the same precision. score(policy, batch, precision=) -> [B, K]: how a batch is read, where it is more than
    tokens (a batch of a plan with images holds its `examples` and `images`).
    """
    if not any(p.requires_grad for p in policy.parameters()):
        raise ValueError(
            "nothing to train: no parameter of the policy requires a gradient (add an adapter, or thaw it)"
        )
    run = {
        "learning_rate": learning_rate, "accumulation": accumulation, "warmup": warmup, "schedule": schedule,
        "seed": seed, "norm": max_grad_norm, "decay": weight_decay, "state": state or {}, "more": repr(arguments),
        "precision": precision,
    }  # fmt: skip
    device = ranks.join(next(policy.parameters()).device)
    last = None if save_every is None else last_whole(checkpoints, identity(policy, plan, loss, settings, run))
    check_precision(precision, device)
    objective = partial(loss, **settings)
    read = partial(score or choose_path(policy, longest(plan.examples)), precision=precision)
    module = Objective(policy.eval(), objective, state or {}, read).to(device)
    if sharded := shards.asked():
        shards.shard(module, device, plan.depth)
    trainer = PlanTrainer(
        model=module,
        args=TrainingArguments(
            output_dir=str(checkpoints),
            per_device_train_batch_size=1,
            num_train_epochs=1,
            learning_rate=learning_rate,
            gradient_accumulation_steps=accumulation,
            warmup_steps=warmup,
            lr_scheduler_type=schedule,
            seed=seed,
            max_grad_norm=max_grad_norm,
            weight_decay=weight_decay,
            logging_steps=1,
            save_steps=save_every or 1,
            save_total_limit=2,
            save_strategy="no" if save_every is None else "steps",
            report_to=trackers.wanted(),
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=device.type == "cpu",
            optim="adamw_torch_fused",
            **(arguments or {}),
        ),
        train_dataset=Batches(plan),
        data_collator=lambda items: items[0],
        callbacks=[Marks(label)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.model_accepts_loss_kwargs = False  # else the loss would not be divided by the accumulation steps
    trainer.is_distributed_loading_by_transformers = sharded  # then it is not wrapped a second time
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    if sharded:
        shards.put_back(module, policy.to(device))
    rows = pd.DataFrame([row for row in trainer.state.log_history if "loss" in row])
    first = ["step", "loss", "learning_rate", "grad_norm"]  # a checkpoint has forgotten the columns' order
    return rows[first + sorted(set(rows) - {*first, "epoch"})]


def update_state(state: Mapping[str, torch.Tensor], **new: torch.Tensor) -> None:
    """Put new values into a loss's running state, in place, so that they are in its checkpoints and its history."""
    for name, value in new.items():
        state[name].copy_(value)
