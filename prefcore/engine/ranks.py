"""Several processes that train one model: who this one is, its share of a step, and statistics of the whole step.

`accelerate launch` starts them (lab/launch.py). KTO's KL, class means, NAPO's margins, the loss and the numbers of the
history are those of all rows of a step. Alone, every function here is the plain one, to the last bit.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import torch
from torch import Tensor, distributed
from torch.nn.utils import parameters_to_vector, vector_to_parameters

PATIENCE = timedelta(hours=2)  # one process may wait so long for another, which may be measuring


def join(device: torch.device) -> torch.device:
    """This process's own device of that kind. Where `accelerate launch` has started it, it meets the others first."""
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        return device
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"several processes train on CPUs or CUDA devices; device is {device.type}: set another one")
    from accelerate import PartialState  # slow to import, rarely needed

    return PartialState(cpu=device.type == "cpu", timeout=PATIENCE).device


def world() -> int:
    """How many processes there are."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if world() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes results."""
    return rank() == 0


def wait() -> None:
    """Until all processes are here."""
    if world() > 1:
        distributed.barrier()


def check_agreement(value: str, what: str) -> None:
    """RuntimeError unless all processes have the same value; else they would wait for each other, or learn apart."""
    found = [value] * world()
    if world() > 1:
        distributed.all_gather_object(found, value)
    if len(set(found)) > 1:
        apart = [number for number, other in enumerate(found) if other != found[0]]
        raise RuntimeError(
            f"processes {apart} have another {what} than process 0: all need the same files, code, and kind of device"
        )


# --- a step's examples ----------------------------------------------------------------------------------------------


def deal(items: Sequence) -> Sequence:
    """This process's share of a step's items: every n-th of them, for n processes; of fewer than n some have none."""
    return items[rank() :: world()]


def step_mean(losses: Tensor) -> Tensor:
    """The mean of losses [n] to be minimised: its gradient's average over processes is that of the mean of all rows."""
    if world() == 1:
        return losses.mean()
    return losses.sum() * world() / sum_over_ranks(losses.new_tensor(float(len(losses))))


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Put the average over all processes into each gradient, where no DistributedDataParallel does so."""
    if world() > 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        vector_to_parameters(sum_over_ranks(parameters_to_vector(gradients)) / world(), gradients)


# --- statistics of the whole step -----------------------------------------------------------------------------------


def sum_over_ranks(values: Tensor) -> Tensor:
    """The detached tensor, added up elementwise over all processes; itself where there is one."""
    total = values.detach().clone()
    if world() > 1:
        distributed.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of the values of all ranks, detached, 0-d; ranks may differ in size. 0 where no rank has a value."""
    total = sum_over_ranks(torch.stack([values.detach().sum(), values.new_tensor(float(values.numel()))]))
    return total[0] / total[1].clamp(min=1)


def means(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Means over all ranks by name, in one exchange; a name without any value is left out.

    values: name -> [n]; ranks may differ in n, not in the names.
    """
    if world() == 1:
        return {name: part.mean().item() for name, part in values.items() if len(part)}
    totals = [torch.stack([part.sum(), part.new_tensor(float(len(part)))]) for part in values.values()]
    found = zip(values, sum_over_ranks(torch.stack(totals)).tolist(), strict=True) if values else ()
    return {name: total / count for name, (total, count) in found if count}
