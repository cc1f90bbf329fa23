"""A model whose weights, gradients and optimiser state are dealt out over the processes while it trains (FSDP2).

The launch file asks for it (lab/launch.py). A copy of the policy is sharded, layer by layer as the decoder's structure
says; the policy itself stays whole and waits in the CPU's memory. So the reference pass, the frozen layers' output and
every measuring run on a plain model, and a checkpoint holds whole tensors, whoever reads it.
"""

import copy

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from prefcore.engine import ranks
from prefcore.engine.decoder import find_layers

ASKED = "PREFCORE_SHARD"  # the environment variable by which a launch says so


def asked() -> bool:
    """Whether the launch file asks for shards."""
    from accelerate.utils import parse_flag_from_env  # slow to import, rarely needed

    return ranks.world() > 1 and parse_flag_from_env(ASKED)


def shard(objective, device: torch.device, depth: int) -> None:
    """Give the objective a sharded copy of its policy; of the first `depth` layers, which do not run, nothing is dealt.

    What is in no layer (embedding, last norm, head) belongs to the objective itself, which holds it whole from the
    beginning of its forward pass to the end of the backward pass: the loss reads the head's weight as a tensor.
    ValueError where somebody has put a hook on the policy, and would hear nothing of the copy.
    """
    if heard := [name for name, part in objective.policy.named_modules() for hook in part._forward_hooks.values()
                 if not getattr(hook, "__module__", "").startswith("transformers.")]:  # fmt: skip
        raise ValueError(f"a hook listens to {heard[0]}, and not to its sharded copy: write MULTI_GPU instead of FSDP")
    objective.policy = copy.deepcopy(objective.policy.to("cpu"))
    mesh = init_device_mesh(device.type, (ranks.world(),))
    _, layers = find_layers(objective.policy)
    idle = {parameter for layer in layers[:depth] for parameter in layer.parameters()}
    for layer in layers[depth:]:
        fully_shard(layer, mesh=mesh)
    objective.state.to(device)
    how = {"reshard_after_forward": False, "ignored_params": idle | set(objective.state.parameters())}
    fully_shard(objective, mesh=mesh, **how)


def put_back(objective, policy) -> None:
    """What the sharded copy has learnt, into the policy."""
    own = dict(policy.named_parameters())
    with torch.no_grad():
        for name, parameter in objective.policy.named_parameters():
            if parameter.requires_grad:
                own[name].copy_(whole(parameter))


def whole(tensor):
    """A sharded tensor put together, in which all processes take part; anything else as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def dealt(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, sharded as another one of its shape is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def keep_whole(optimiser: torch.optim.Optimizer) -> None:
    """Let the optimiser's state be whole in what it saves, and dealt out again when it is loaded."""

    def gather(_, saved: dict) -> dict:
        state = {i: {name: whole(value) for name, value in of.items()} for i, of in saved["state"].items()}
        return saved | {"state": state}

    def deal(optimiser, saved: dict) -> dict:
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        state = {i: {name: dealt(value, parameters[i]) for name, value in of.items()}
                 for i, of in saved["state"].items()}  # fmt: skip
        return saved | {"state": state}

    optimiser.register_state_dict_post_hook(gather)
    optimiser.register_load_state_dict_pre_hook(deal)
