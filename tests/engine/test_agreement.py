"""Different methods agree where they must: in their limits, in their values at the start, and on what is better."""

from math import log

import pytest
import torch

from prefcore.methods import bco, dpo, kto, odpo, ulma
from prefcore.methods.osp import loss as osp

BETA = 0.4
ONES = {"desirable_weight": 1.0, "undesirable_weight": 1.0}


def equal(found, expected, atol=1e-6):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype).expand_as(found), rtol=0, atol=atol)


@pytest.fixture(params=[0.01, 1.0, 20.0])
def pairs(request):
    """logps, ref_logps [6,2] at three scales."""
    generator = torch.Generator().manual_seed(3)
    logps, ref_logps = request.param * torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    return logps.requires_grad_(), ref_logps


def as_rows(pairs):
    """The same pairs as single answers: logps, ref_logps [12,1], label [12]."""
    logps, ref_logps = pairs
    return logps.reshape(-1, 1), ref_logps.reshape(-1, 1), torch.tensor([1.0, 0.0]).repeat(len(logps))


def gradient(losses, logps):
    return torch.autograd.grad(losses.sum(), logps)[0]


def zero():
    return torch.tensor(0.0, dtype=torch.float64)


def pooled_bco(pairs, shift):
    logps, ref_logps, label = as_rows(pairs)
    return bco.pooled_loss(logps, ref_logps, label, shift, torch.ones(len(label)), beta=BETA).losses


def pair_variants_of_dpo(pairs):
    n = len(pairs[0])
    return {
        "odpo with offset 0": odpo.loss(*pairs, torch.zeros(n), beta=BETA),
        "odpo with alpha 0": odpo.loss(*pairs, odpo.offset_log(torch.full((n,), 0.3), alpha=0.0), beta=BETA),
        "osp with strength 1": osp.loss(*pairs, torch.ones(n), beta=BETA),
        "osp's kl with strength 1": osp.kl_loss(*pairs, torch.ones(n), beta=BETA),
        "weight 1": dpo.weighted_loss(*pairs, torch.ones(n), beta=BETA),
        "no smoothing": dpo.conservative_loss(*pairs, beta=BETA, label_smoothing=0.0),
    }


def test_pair_methods_have_dpo_as_a_limit_with_its_gradient_and_rewards(pairs):
    expected = dpo.loss(*pairs, beta=BETA)
    for output in pair_variants_of_dpo(pairs).values():
        equal(output.losses, expected.losses)
        equal(output.rewards, expected.rewards)
        equal(gradient(output.losses, pairs[0]), gradient(dpo.loss(*pairs, beta=BETA).losses, pairs[0]))


def test_smoothing_is_one_soft_strength_for_all(pairs):
    smooth = dpo.conservative_loss(*pairs, beta=BETA, label_smoothing=0.2).losses
    equal(osp.loss(*pairs, torch.full((6,), 0.8, dtype=torch.float64), beta=BETA).losses, smooth)


def test_swapping_answers_with_strengths_is_no_change_but_dpo_and_odpo_notice(pairs):
    swapped = [tensor.flip(1) for tensor in pairs]
    strength = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    equal(osp.loss(*swapped, 1 - strength, beta=BETA).losses, osp.loss(*pairs, strength, beta=BETA).losses)
    for loss in (dpo.loss, lambda *x, beta: odpo.loss(*x, torch.full((6,), 0.3), beta=beta)):
        assert (loss(*swapped, beta=BETA).losses != loss(*pairs, beta=BETA).losses).all()


def test_all_methods_at_the_start(pairs):
    """Policy = reference: log 2 per pair or row, half the weight for KTO, 2 log 2 for a sum of class means."""
    logps = pairs[1]
    start = (logps, logps.clone())
    rows, ref_rows, label = as_rows(start)
    ones = torch.ones(12)
    for output in (dpo.loss(*start, beta=BETA), *pair_variants_of_dpo(start).values(),
                   osp.loss(*start, torch.linspace(0, 1, 6), beta=BETA)):
        equal(output.losses, log(2))
        equal(output.rewards, 0.0)
    kl = kto.kl_estimate(rows[:, 0], ref_rows[:, 0])
    losses = kto.loss(rows, ref_rows, label, kl, beta=BETA, desirable_weight=1.2, undesirable_weight=0.6).losses
    equal(losses.mean(), 0.5 * 0.9)
    equal(bco.pooled_loss(rows, ref_rows, label, zero(), ones, beta=BETA).losses, log(2))
    equal(bco.loss(rows, ref_rows, label, zero(), ones, beta=BETA).losses.mean(), 2 * log(2))
    equal(ulma.pointwise_loss(rows, ref_rows, label, beta=BETA).losses.mean(), 2 * log(2))


def test_rewards_are_one_thing_in_all_methods(pairs):
    logps, ref_logps, label = as_rows(pairs)
    expected = dpo.loss(*pairs, beta=BETA).rewards.reshape(-1, 1)
    for output in (
        kto.loss(logps, ref_logps, label, zero(), beta=BETA, **ONES),
        bco.loss(logps, ref_logps, label, zero(), torch.ones(12), beta=BETA),
        ulma.loss(logps, ref_logps, label, beta=BETA),
        ulma.continuous_loss(logps, ref_logps, label, label, beta=BETA),
        ulma.pointwise_loss(logps, ref_logps, label, beta=BETA),
    ):
        equal(output.rewards, expected)


def test_bco_without_shift_is_pointwise_dpo(pairs):
    logps, ref_logps, label = as_rows(pairs)
    for rows in (slice(0, 12), slice(0, 5), slice(0, 1), slice(1, 2)):  # classes 6:6, 3:2, 1:0, 0:1
        args = logps[rows], ref_logps[rows], label[rows]
        found = bco.loss(*args, zero(), torch.ones(len(args[0])), beta=BETA).losses
        equal(found, ulma.pointwise_loss(*args, beta=BETA).losses)


def test_ulma_treats_bad_answers_as_bco_without_shift(pairs):
    logps, ref_logps, label = as_rows(pairs)
    found = ulma.loss(logps, ref_logps, label, beta=BETA).losses
    without_shift = bco.loss(logps, ref_logps, label, zero(), torch.ones(12), beta=BETA).losses
    equal(found[label == 0], without_shift[label == 0])
    equal(found[label == 1], 2 * -logps[label == 1, 0])  # 12 / 6 rows of this class


def test_bco_bounds_dpo_from_above_and_is_tightest_at_the_middle(pairs):
    """Per pair: log sigmoid(a + b) > log sigmoid(a) + log sigmoid(b); the gap is least at shift = (r_w + r_l) / 2."""
    rewards = dpo.loss(*pairs, beta=BETA).rewards
    below = dpo.loss(*pairs, beta=BETA).losses
    for i in range(6):
        one = tuple(tensor[i:i + 1] for tensor in pairs)
        middle = rewards[i].mean()
        tight = pooled_bco(one, middle).sum()
        assert tight >= below[i]
        for step in (-0.5, -0.01, 0.01, 0.5):
            assert pooled_bco(one, middle + step).sum() > tight


def test_bco_class_mean_shift_of_one_pair_is_its_middle(pairs):
    rewards = dpo.loss(*pairs, beta=BETA).rewards
    equal(bco.class_mean_shift(rewards[:1].T, torch.tensor([1.0, 0.0])), rewards[0].mean())


def test_kto_is_bco_as_a_probability(pairs):
    """KTO's loss is 1 - exp(-BCO's) per row, where BCO's shift is beta x KTO's KL."""
    logps, ref_logps, label = as_rows(pairs)
    kl = torch.tensor(0.8, dtype=torch.float64)
    found = kto.loss(logps, ref_logps, label, kl, beta=BETA, **ONES).losses
    equal(found, 1 - torch.exp(-pooled_bco(pairs, BETA * kl)))


def test_all_first_steps_have_one_direction(pairs):
    """From the reference: -beta/2 on good and +beta/2 on bad answers for DPO and BCO, half of it for KTO."""
    logps = pairs[1].clone().requires_grad_()
    start = (logps, pairs[1])
    rows, ref_rows, label = as_rows(start)
    direction = torch.tensor([-0.5, 0.5], dtype=torch.float64) * BETA
    equal(gradient(dpo.loss(*start, beta=BETA).losses, logps), direction)
    equal(gradient(odpo.loss(*start, torch.zeros(6), beta=BETA).losses, logps), direction)
    equal(gradient(osp.loss(*start, torch.ones(6), beta=BETA).losses, logps), direction)
    equal(gradient(pooled_bco(start, zero()), logps), direction)
    equal(gradient(ulma.pointwise_loss(rows, ref_rows, label, beta=BETA).losses, logps), 2 * direction)
    equal(gradient(kto.loss(rows, ref_rows, label, zero(), beta=BETA, **ONES).losses, logps), direction / 2)


class World:
    """A policy that is a table: 3 prompts x 4 answers, uniform reference, and a utility of each answer.

    Preferences are exact: P(a beats b) = sigmoid(u_a - u_b). Labels: the two best of four are thumbs-up.
    """

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.utility = torch.stack([torch.randperm(4, generator=generator) for _ in range(3)]).double()
        self.logits = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
        prompt, i, j = (side.flatten() for side in torch.meshgrid(*map(torch.arange, (3, 4, 4)), indexing="ij"))
        better = self.utility[prompt, i] > self.utility[prompt, j]
        self.prompt, self.i, self.j = prompt[better], i[better], j[better]
        self.gap = self.utility[self.prompt, self.i] - self.utility[self.prompt, self.j]
        self.label = (self.utility >= 2).double().flatten()
        self.reference = self.table().detach()

    def table(self):
        return self.logits.log_softmax(1)

    def pairs(self):
        return tuple(torch.stack([table[self.prompt, self.i], table[self.prompt, self.j]], 1)
                     for table in (self.table(), self.reference))

    def rows(self):
        return self.table().reshape(-1, 1), self.reference.reshape(-1, 1), self.label

    def mismatch_kl(self):
        """Each prompt with the next prompt's best answers."""
        answers = (self.utility >= 2).roll(1, 0)
        return kto.kl_estimate(self.table()[answers], self.reference[answers])


OBJECTIVES = {
    "dpo": lambda w: dpo.loss(*w.pairs(), beta=BETA),
    "odpo": lambda w: odpo.loss(*w.pairs(), odpo.offset_log(w.gap, alpha=1.0), beta=BETA),
    "osp": lambda w: osp.loss(*w.pairs(), torch.sigmoid(w.gap), beta=BETA),
    "kto": lambda w: kto.loss(*w.rows(), w.mismatch_kl(), beta=BETA, **ONES),
    "bco": lambda w: bco.loss(*w.rows(), _shift(w), torch.ones(12), beta=BETA),
    "bco pooled": lambda w: bco.pooled_loss(*w.rows(), _shift(w), torch.ones(12), beta=BETA),
    "ulma": lambda w: ulma.loss(*w.rows(), beta=BETA),
    "ulma mean": lambda w: ulma.mean_loss(*w.rows(), torch.full((12,), 3.0), beta=BETA),
    "ulma continuous": lambda w: ulma.continuous_loss(*w.rows()[:2], w.utility.flatten() - 2, w.label, beta=BETA),
    "ulma pointwise": lambda w: ulma.pointwise_loss(*w.rows(), beta=BETA),
}


def _shift(world):
    logps, ref_logps, label = world.rows()
    return bco.class_mean_shift(BETA * (logps - ref_logps), label)


def train(objective, steps):
    world = World()
    optimiser = torch.optim.Adam([world.logits], 0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        objective(world).losses.mean().backward()
        optimiser.step()
    return world


@pytest.mark.parametrize("name", OBJECTIVES)
def test_all_methods_agree_on_which_answers_are_better(name):
    """Every answer with thumbs-up ends likelier than every one with thumbs-down, in each prompt."""
    world = train(OBJECTIVES[name], steps=30)
    policy, good = world.table().detach(), world.label.reshape(3, 4).bool()
    for row, up in zip(policy, good, strict=True):
        assert row[up].min() > row[~up].max() + 0.1


@pytest.mark.parametrize("name", ["dpo", "odpo", "osp"])
def test_pair_methods_agree_on_the_whole_order(name):
    world = train(OBJECTIVES[name], steps=60)
    assert (world.table().argsort(1) == world.utility.argsort(1)).all()


def test_soft_strengths_end_at_the_utilities_where_dpo_runs_away():
    """OSP's optimum is beta x log-ratio = utility + a constant per prompt; DPO's margins only grow."""
    world = train(OBJECTIVES["osp"], steps=1500)
    learnt = BETA * (world.table() - world.reference).detach()
    equal(learnt - learnt.mean(1, keepdim=True), world.utility - world.utility.mean(1, keepdim=True), atol=1e-3)
    runaway = train(OBJECTIVES["dpo"], steps=1500)
    margins = dpo.loss(*runaway.pairs(), beta=BETA).rewards.diff(dim=1).neg()
    assert (margins[:, 0] > runaway.gap + 1).all()
