"""A toy world for the tests that a method improves a policy: answers of good words, answers of bad words."""

import copy

import pytest
import torch


class Toy:
    """N prompts of 4 tokens, each with a good answer (5 words of one list) and a bad one (of another), in two splits.

    A policy that learns which words are good on "train" ranks the answers of "test", whose prompts and answers it never
    saw. Log-probabilities are computed the naive way: a whole log-softmax, answers of one length, no padding.
    """

    def __init__(self, policy, n=16):
        generator = torch.Generator().manual_seed(1)
        words = torch.randperm(90, generator=generator) + 5
        good, bad = words[:12], words[12:24]
        self.policy, self.n, self.prompts, self.answers = policy, n, {}, {}
        for split in ("train", "test"):
            self.prompts[split] = words[torch.randint(90, (n, 4), generator=generator)]
            pick = torch.randint(12, (2, n, 5), generator=generator)
            self.answers[split] = torch.stack([good[pick[0]], bad[pick[1]]], 1)
        reference = copy.deepcopy(policy)
        with torch.no_grad():
            self.ref_logps = {split: self.logps(split, reference) for split in self.prompts}
            self.ref_mismatch_logps = self.mismatch_logps(reference)

    def logps(self, split, model=None):
        """Summed log-probabilities [N,2] of the good and the bad answer."""
        prompts, answers = self.prompts[split], self.answers[split]
        return torch.stack([self._score(prompts, answers[:, k], model) for k in range(2)], 1)

    def mismatch_logps(self, model=None):
        """[N] of each training prompt with the good answer to the next prompt."""
        return self._score(self.prompts["train"], self.answers["train"][:, 0].roll(1, 0), model)

    def _score(self, prompts, answers, model):
        ids = torch.cat([prompts, answers], 1)
        table = (model or self.policy)(ids).logits.double().log_softmax(-1)
        return table[:, :-1].gather(2, ids[:, 1:, None])[:, prompts.shape[1] - 1:, 0].sum(1)

    def rows(self):
        """The training pairs as single answers: logps [2N,1], ref_logps [2N,1], label [2N]."""
        label = torch.tensor([1.0, 0.0]).repeat(self.n)
        return self.logps("train").reshape(-1, 1), self.ref_logps["train"].reshape(-1, 1), label

    def fit(self, compute_loss, steps=12, learning_rate=3e-3):
        """A few Adam steps on a loss computed anew each time; returns the losses before each step."""
        optimiser, values = torch.optim.Adam(self.policy.parameters(), learning_rate), []
        for _ in range(steps):
            optimiser.zero_grad()
            value = compute_loss()
            value.backward()
            optimiser.step()
            values.append(value.item())
        return values

    def logratios(self, split="test"):
        """Policy - reference log-probability [N,2] of the good and the bad answer."""
        with torch.no_grad():
            return self.logps(split) - self.ref_logps[split]

    def auc(self, split="test"):
        """Share of (good, bad) answers, over all prompts, in which the good one has the greater log-ratio."""
        good, bad = self.logratios(split).T
        return (good[:, None] > bad[None, :]).double().mean().item()


@pytest.fixture
def toy(tiny_llama):
    return Toy(tiny_llama)


@pytest.fixture
def pair_fixture():
    """F1: three pairs; log-ratios of chosen [3, -1.5, 0.8], of rejected [-1.5, 1.5, -0.7], h = [4.5, -3, 1.5]."""
    chosen, rejected = [-42.0, -61.5, -30.2], [-48.0, -58.0, -33.7]
    ref_chosen, ref_rejected = [-45.0, -60.0, -31.0], [-46.5, -59.5, -33.0]
    logps = torch.tensor([chosen, rejected], dtype=torch.float64).T.clone().requires_grad_()
    return logps, torch.tensor([ref_chosen, ref_rejected], dtype=torch.float64).T


@pytest.fixture
def close():
    """Equal to 1e-6 (float64), with lists on either side."""
    def check(found, expected, atol=1e-6):
        found, expected = (torch.as_tensor(x, dtype=torch.float64) for x in (found, expected))
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    return check


@pytest.fixture
def random():
    """random(shape, scale) -> float64 noise; the same in every test."""
    generator = torch.Generator().manual_seed(7)
    return lambda *shape, scale=1.0: scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
