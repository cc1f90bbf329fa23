"""Writing several continuations of a prompt, on a CPU: its keys and values are kept and read once for all of them.

With a row's prompt to itself each step reads, and copies, the keys and values of every row; with seven continuations of
a thousand tokens each that takes most of the time. Here the rows of a prompt ask its keys together, and only what the
rows have written themselves lies apart, in memory that is there from the start. The two parts of a row's attention are
added by their normalisers (arXiv 2205.14135, section 3.1).
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import sdpa_mask

from prefcore.engine import decoding
from prefcore.engine.decoder import attending, find_additions, unwrap

NAME = "prefcore_shared_prompts"
_current: list["Rows"] = []


class Rows:
    """B rows, each of which continues one of P prompts, and what they attend to.

    cache: keys and values of the prompts, [P, heads, T, D] in each layer. seen [P, T]: 1 where they are of a token.
    owner [B]: the prompt of each row. steps: tokens that a row may write.
    """

    def __init__(self, cache: DynamicCache, seen: Tensor, owner: Tensor, steps: int):
        self.layers = [Layer(part.keys, part.values, self, steps) for part in cache.layers]
        self.cache = Cache(layers=self.layers)
        self.seen, self.owner = seen.bool(), owner
        self._lay_out()

    def _lay_out(self) -> None:
        """The place of each row among those of its prompt and in the memory of what was written, and the padding."""
        same = self.owner[:, None] == self.owner
        self.rank, self.width = same.tril(-1).sum(1), int(same.sum(1).max())
        self.row, self.size = torch.arange(len(self.owner), device=self.owner.device), len(self.owner)
        self.hidden = None if self.seen.all() else ~self.seen[:, None, None]

    def keep(self, going: Tensor) -> None:
        """Go on with these rows alone. Memory is freed when half of them have ended."""
        self.owner, self.rank, self.row = self.owner[going], self.rank[going], self.row[going]
        if 2 * len(self.row) > self.size:
            return
        asked, owner = self.owner.unique(return_inverse=True)
        start = int(self.seen[asked].any(0).int().argmax())
        for layer in self.layers:
            layer.keep(asked, start, self.row)
        self.seen, self.owner = self.seen[asked, start:], owner
        self._lay_out()

    def read(self, policy, chosen: Tensor) -> Tensor:
        """Logits [B, V] after one more token of each row."""
        positions = self.seen.sum(1)[self.owner] + self.layers[0].count
        last = torch.zeros(1, dtype=torch.long, device=chosen.device)  # a copy of the states, as in sample.py
        how = {"position_ids": positions[:, None], "cache": self.cache, "use_cache": True, "logits_to_keep": last}
        _current.append(self)
        try:
            with attending(unwrap(policy), NAME):
                return policy(input_ids=chosen[:, None], **how).logits[:, -1]
        finally:
            _current.pop()

    def by_prompt(self, x: Tensor) -> Tensor:
        """[B, heads, G, D] as [P, heads, R · G, D]: the R rows of a prompt side by side, zeros where it has fewer."""
        count, (_, heads, groups, size) = len(self.seen), x.shape
        out = x.new_zeros(count, self.width, heads, groups, size)
        out[self.owner, self.rank] = x
        return out.transpose(1, 2).reshape(count, heads, -1, size)

    def from_prompts(self, x: Tensor) -> Tensor:
        """The inverse of `by_prompt`."""
        count, heads, _, size = x.shape
        return x.view(count, heads, self.width, -1, size)[self.owner, :, self.rank]

    def in_memory(self, x: Tensor) -> Tensor:
        """[B, ...] as [size, ...]: zeros for rows that have ended."""
        out = x.new_zeros(self.size, *x.shape[1:])
        out[self.row] = x
        return out


class Layer(DynamicLayer):
    """One layer's keys and values: of the prompts, and of what the rows have written."""

    def __init__(self, keys: Tensor, values: Tensor, rows: Rows, steps: int):
        super().__init__()
        self.keys, self.values, self.rows, self.steps = keys, values, rows, steps
        self.is_initialized, self.count = True, 0
        self.written: tuple[Tensor, ...] = ()

    def update(self, key: Tensor, value: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Keep one more token of each row. What it gives back is not all that a row sees: `attend` finds the rest."""
        if not self.written:
            size, heads = self.rows.size, key.shape[1]
            self.written = tuple(x.new_zeros(size, heads, self.steps, x.shape[-1]) for x in (key, value))
        for memory, new in zip(self.written, (key, value), strict=True):
            memory[self.rows.row, :, self.count] = new[:, :, 0]
        self.count += 1
        return key, value

    def get_seq_length(self) -> int:
        return self.keys.shape[2] + self.count

    def keep(self, asked: Tensor, start: int, row: Tensor) -> None:
        self.keys, self.values = self.keys[asked, :, start:], self.values[asked, :, start:]
        self.written = tuple(memory[row] for memory in self.written)

    def so_far(self) -> Iterator[Tensor]:
        """Keys and values of what was written, [size, heads, count, D] each."""
        return (memory[:, :, : self.count] for memory in self.written)


def can_share(policy) -> bool:
    """Whether a policy's attention can be chosen (decoding.py) and all that it keeps of a token is keys and values."""
    kinds = {type(layer) for layer in DynamicCache(config=unwrap(policy).config).layers}
    return decoding.fits(policy) and kinds <= {DynamicLayer}


def attend(module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling=None, **more) -> tuple:
    """What transformers calls in each layer: query [B, heads, 1, D], key and value of as many or fewer heads.

    Returns ([B, 1, heads, D], None). ValueError for attention that is more than the softmax of scaled products.
    """
    if extra := find_additions(more):
        raise ValueError(f"this attention cannot be split between prompt and continuation ({', '.join(extra)})")
    rows, layer = _current[-1], _current[-1].layers[module.layer_idx]
    count, heads, _, size = query.shape
    asks = query.view(count, key.shape[1], -1, size) * (size**-0.5 if scaling is None else scaling)
    keys, values = layer.so_far()
    far = _attend(rows.by_prompt(asks), layer.keys, layer.values, rows.hidden)
    of_prompt, log = (rows.from_prompts(x) for x in far)
    own, own_log = (x[rows.row] for x in _attend(rows.in_memory(asks), keys, values, None))
    share = (log - own_log).sigmoid()
    return (of_prompt * share + own * (1 - share)).to(query.dtype).view(count, 1, heads, -1), None


def _attend(asks: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """(output [n, heads, q, D], logarithm of the normaliser [n, heads, q, 1], in float32) of scaled asks."""
    scores = asks @ keys.transpose(2, 3)
    if hidden is not None:
        scores.masked_fill_(hidden, -torch.inf)
    highest = scores.amax(-1, keepdim=True).float()
    weights = scores.softmax(-1)
    return weights @ values, highest - weights.amax(-1, keepdim=True).float().log()


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
