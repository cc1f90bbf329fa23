from math import exp, log

import pytest
import torch

from prefcore.methods.micro import losses, mixture, training

WEIGHTS = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
LOGITS = WEIGHTS.log()
MARGINS = torch.tensor([[2.0, -1.0]], dtype=torch.float64)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


# --- stage 1 ----------------------------------------------------------------------------------------------------


def test_worked_numbers_of_the_mixture_loss(close):
    """f = [1/4, 3/4], sigmoid([2, -1]) = [0.88079708, 0.26894142]: P = 0.22019927 + 0.20170607 = 0.42190534.

    nll = -ln P = 0.86297431; sum f ln f = -0.56233514; with alpha 0.5 the loss is 0.86297431 - 0.28116757.
    """
    found = losses.mixture_loss(LOGITS, MARGINS, alpha=0.5)
    close(found.nll, [0.86297431])
    close(found.negative_entropy, [-0.56233514])
    close(found.losses, [0.58180674])
    close(losses.predict(LOGITS, MARGINS), [0.42190534])


def test_worked_gradients_of_the_mixture_loss(close):
    """d nll / d margin_k = -f_k s_k (1 - s_k) / P: [-0.06221395, -0.34950719].

    d nll / d logit_k = f_k - f_k s_k / P = -+0.27191629; of sum f ln f: f_k (ln f_k + 0.56233514) = -+0.20598980.
    """
    logits, margins = LOGITS.clone().requires_grad_(), MARGINS.clone().requires_grad_()
    losses.mixture_loss(logits, margins, alpha=0.5).losses.sum().backward()
    close(margins.grad, [[-0.06221395, -0.34950719]])
    close(logits.grad, [[-0.27191629 - 0.10299490, 0.27191629 + 0.10299490]])


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_gradients_are_right_at_any_scale_and_raise_every_margin(random, scale):
    logits, margins = (random(5, 3, scale=scale).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda g, m: losses.mixture_loss(g, m, alpha=0.5).losses, (logits, margins))
    assert torch.autograd.gradcheck(lambda m: losses.shared_base_loss(m, torch.zeros_like(m)), margins)
    targets = random(5, 3).softmax(1)
    assert torch.autograd.gradcheck(lambda g: losses.router_loss(g, targets), logits)
    losses.mixture_loss(logits, margins, alpha=0.0).losses.sum().backward()
    assert (margins.grad <= 0).all() and (margins.grad < 0).any()


def test_plain_python_twin(random, close):
    logits, margins = random(40, 4, scale=2.0), random(40, 4, scale=3.0)
    costs, targets, scores = [], [], []
    for g, m in zip(logits.tolist(), margins.tolist(), strict=True):
        weights = [exp(x) / sum(map(exp, g)) for x in g]
        right = [1 / (1 + exp(-x)) for x in m]
        mixed = sum(f * p for f, p in zip(weights, right, strict=True))
        costs.append(-log(mixed) + 0.3 * sum(f * log(f) for f in weights))
        raw = [f * p ** (1 / 0.7) for f, p in zip(weights, right, strict=True)]  # exp(-L / tau) = sigmoid^(1 / tau)
        targets.append([x / sum(raw) for x in raw])
        scores.append(sum(f * x for f, x in zip(weights, m, strict=True)))
    close(losses.mixture_loss(logits, margins, alpha=0.3).losses, costs)
    close(losses.hedge_targets(logits, margins, tau=0.7), targets)
    close(losses.score(logits, margins), scores)


def test_one_head_is_bradley_terry(random, close):
    margins = random(20, 1, scale=5.0)
    found = losses.mixture_loss(random(20, 1), margins, alpha=0.5)
    close(found.losses, losses.bradley_terry_loss(margins))
    close(found.negative_entropy, torch.zeros(20))


def test_equal_heads_are_one_head_whatever_the_router_says(random, close):
    margins = random(20, 1, scale=3.0)
    found = losses.mixture_loss(random(20, 5), margins.expand(20, 5), alpha=0.0)
    close(found.losses, losses.bradley_terry_loss(margins))


def test_a_large_alpha_gives_a_uniform_router(random):
    logits = random(8, 4).requires_grad_()
    margins, optimiser = random(8, 4, scale=3.0), torch.optim.Adam([logits], 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        losses.mixture_loss(logits, margins, alpha=100.0).losses.sum().backward()
        optimiser.step()
    assert (logits.softmax(1) - 0.25).abs().max() < 0.01


def test_the_entropy_term_is_least_for_a_uniform_router_and_0_for_one_head(close):
    uniform, single = torch.zeros(1, 4, dtype=torch.float64), number([[0.0, -1e4, -1e4, -1e4]])
    margins = torch.zeros(1, 4, dtype=torch.float64)
    close(losses.mixture_loss(uniform, margins, alpha=1.0).negative_entropy, [-log(4)])
    close(losses.mixture_loss(single, margins, alpha=1.0).negative_entropy, [0.0])


def test_a_router_that_is_sure_of_one_head_stays_finite_where_a_log_of_softmax_would_not():
    logits = number([[0.0, -2000.0], [-2000.0, 0.0]]).requires_grad_()
    margins = number([[-500.0, 500.0], [-500.0, 500.0]]).requires_grad_()
    cost = losses.mixture_loss(logits, margins, alpha=0.5).losses
    cost.sum().backward()
    assert cost.isfinite().all() and logits.grad.isfinite().all() and margins.grad.isfinite().all()
    assert torch.exp(logits.detach()).log().isinf().any()


def test_each_pair_has_the_router_of_its_own_prompt(random, close):
    """The released code gives every pair the weights of the batch's first prompt."""
    logits, margins = random(6, 3), random(6, 3)
    whole = losses.mixture_loss(logits, margins, alpha=0.5).losses
    for i in range(6):
        close(losses.mixture_loss(logits[i:i + 1], margins[i:i + 1], alpha=0.5).losses, whole[i:i + 1])


def test_swapping_the_two_texts_gives_the_other_probability(random, close):
    logits, margins = random(20, 4), random(20, 4, scale=3.0)
    close(losses.predict(logits, -margins), 1 - losses.predict(logits, margins))


def test_a_pair_is_judged_by_the_mixture_and_not_by_sums_of_log_sigmoids(close):
    """Rewards a = [4, -2], b = [-4, 0], f = [1/4, 3/4]: P(a) = 0.25 x 0.99966 + 0.75 x 0.11920 < 0.5, so b wins.

    The released code compares sum f ln sigmoid(r): a -1.60, b -1.52; and f.r says a -0.5 > b -1.0: other rules, and
    the last one even another winner.
    """
    a, b = number([[4.0, -2.0]]), number([[-4.0, 0.0]])
    close(losses.predict(LOGITS, a - b), [0.25 / (1 + exp(-8)) + 0.75 / (1 + exp(2))])
    assert losses.predict(LOGITS, a - b) < 0.5
    close(losses.score(LOGITS, a) - losses.score(LOGITS, b), [0.5])


def test_static_mixture_has_the_same_weights_everywhere(random, close):
    weight, margins = random(3), random(10, 3)
    close(losses.static_loss(weight, margins), losses.mixture_loss(weight.expand(10, 3), margins, alpha=0.0).losses)


def test_responsibilities_are_posterior_weights_and_the_share_of_each_heads_gradient(close):
    """f_k s_k / P = [0.22019927, 0.20170607] / 0.42190534."""
    found = losses.responsibilities(LOGITS, MARGINS)
    close(found, [[0.52191629, 0.47808371]])
    margins = MARGINS.clone().requires_grad_()
    losses.mixture_loss(LOGITS, margins, alpha=0.0).losses.sum().backward()
    close(margins.grad, -found * torch.sigmoid(-MARGINS))


# --- the shared-base ensemble ------------------------------------------------------------------------------------


def test_the_ensemble_is_k_losses_and_its_prior_gets_no_gradient(random, close):
    margins, prior = random(6, 3).requires_grad_(), random(6, 3).requires_grad_()
    cost = losses.shared_base_loss(margins, prior)
    close(cost, sum(losses.bradley_terry_loss((margins + prior)[:, k:k + 1]) for k in range(3)).detach())
    cost.sum().backward()
    assert prior.grad is None and margins.grad.abs().min() > 0


def test_a_trained_part_beside_a_frozen_prior_takes_the_steps_of_a_head_that_starts_at_the_prior(random, close):
    x, prior = random(12, 4), random(3, 4)
    part, whole = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True), prior.clone().requires_grad_()
    ours, theirs = torch.optim.AdamW([part], 0.01, weight_decay=0.0), torch.optim.AdamW([whole], 0.01, weight_decay=0.0)
    for _ in range(20):
        for optimiser, loss in ((ours, losses.shared_base_loss(x @ part.T, x @ prior.T)),
                                (theirs, losses.shared_base_loss(x @ whole.T, torch.zeros(12, 3)))):
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
    close(part + prior, whole)
    assert part.abs().max() > 0.05


# --- opposite labels -----------------------------------------------------------------------------------------------


def test_on_pairs_with_both_labels_a_mixture_that_averages_to_one_half_cannot_be_improved(random, close):
    """Heads in mirrored couples with equal weights: P = 1/2 for either label, whatever the directions are.

    So stage 1 alone learns no direction from such pairs: the gradient is 0 and the loss is ln 2, its floor.
    """
    x, half = random(30, 5), random(2, 5).requires_grad_()
    logits = torch.zeros(60, 4, dtype=torch.float64, requires_grad=True)
    both = torch.cat([x, -x])
    loss = losses.mixture_loss(logits, both @ torch.cat([half, -half]).T, alpha=0.5)
    loss.losses.sum().backward()
    close(loss.nll, [log(2)] * 60)
    close(half.grad, torch.zeros(2, 5))
    close(logits.grad.reshape(2, 30, 4).sum(0), torch.zeros(30, 4))


# --- stage 2 ----------------------------------------------------------------------------------------------------


def test_worked_hedge_targets(close):
    """tau 1: f_k s_k / P, the posterior. tau 0.5: [0.25 x 0.7758, 0.75 x 0.0723] over their sum = [0.7814, 0.2186]."""
    close(losses.hedge_targets(LOGITS, MARGINS, tau=1.0), [[0.52191629, 0.47808371]])
    close(losses.hedge_targets(LOGITS, MARGINS, tau=0.5), [[0.78143612, 0.21856388]])
    close(losses.router_loss(LOGITS, number([[0.52191629, 0.47808371]])), [0.86106573])


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_hedge_targets_are_the_least_point_of_the_objective_on_the_simplex(random, close, tau):
    """Check 5 (eq. 5): a numeric minimiser over weights = softmax(free numbers) ends at the closed form."""
    logits, margins = random(4, 3), random(4, 3, scale=2.0)
    prior, costs = logits.softmax(1), losses.head_losses(margins)
    free = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([free], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16,
                                  line_search_fn="strong_wolfe")

    def value():
        optimiser.zero_grad()
        total = losses.hedge_objective(free.softmax(1), prior, costs, tau=tau).sum()
        total.backward()
        return total

    for _ in range(10):
        optimiser.step(value)
    close(free.softmax(1), losses.hedge_targets(logits, margins, tau=tau), atol=1e-5)


def test_at_its_least_point_the_objective_is_the_free_energy_and_for_tau_1_the_mixture_loss(random, close):
    logits, margins = random(9, 4), random(9, 4, scale=2.0)
    prior, costs = logits.softmax(1), losses.head_losses(margins)
    for tau in (0.3, 1.0, 4.0):
        least = losses.hedge_objective(losses.hedge_targets(logits, margins, tau=tau), prior, costs, tau=tau)
        close(least, -tau * (prior * (-costs / tau).exp()).sum(1).log())
    close(losses.hedge_objective(losses.hedge_targets(logits, margins, tau=1.0), prior, costs, tau=1.0),
          -losses.log_mixture(logits, margins))


def test_the_first_term_of_the_objective_is_never_below_the_mixture_loss(random):
    logits, margins = random(200, 4, scale=2.0), random(200, 4, scale=3.0)
    bound = (logits.softmax(1) * losses.head_losses(margins)).sum(1)
    assert (bound >= -losses.log_mixture(logits, margins) - 1e-12).all()


def test_at_the_papers_tau_a_target_is_one_hot_on_the_best_head_and_finite(random):
    """A gap of 0.01 nats at tau 1e-3 is a weight ratio of e^10; exp of the losses themselves would underflow."""
    logits, margins = random(50, 5), random(50, 5, scale=300.0)
    targets = losses.hedge_targets(logits, margins, tau=1e-4)
    assert targets.isfinite().all() and torch.allclose(targets.sum(1), torch.ones(50, dtype=torch.float64))
    clear = losses.head_losses(margins).sort(1).values.diff(dim=1)[:, 0] > 0.01
    assert clear.any() and (targets[clear].max(1).values > 1 - 1e-6).all()
    assert (targets.argmax(1) == margins.argmax(1))[clear].all()


def test_a_large_tau_leaves_the_router_as_it_is(random, close):
    logits = random(5, 3)
    close(losses.hedge_targets(logits, random(5, 3), tau=1e9), logits.softmax(1))


def test_targets_and_head_losses_are_constants(random):
    logits, margins = random(5, 3).requires_grad_(), random(5, 3).requires_grad_()
    assert not losses.hedge_targets(logits, margins, tau=1.0).requires_grad
    assert not losses.head_losses(margins).requires_grad
    targets = random(5, 3).softmax(1).requires_grad_()
    losses.router_loss(logits, targets).sum().backward()
    assert targets.grad is None and logits.grad.abs().sum() > 0


# --- HyRe and the safety mask ------------------------------------------------------------------------------------


def test_worked_hyre_weights(close):
    """Margins [[2, -1], [1, 1]]: the second pair favours no head; 0.88079708 / (0.88079708 + 0.26894142)."""
    close(losses.hyre_weights(number([[2.0, -1.0], [1.0, 1.0]])), [0.76608470, 0.23391530])


def test_hyre_without_a_pair_weighs_all_heads_alike_and_with_many_takes_the_best_one(random, close):
    close(losses.hyre_weights(torch.zeros(0, 4, dtype=torch.float64)), [0.25] * 4)
    margins = random(500, 4)
    margins[:, 2] += 1
    assert losses.hyre_weights(margins)[2] > 0.999


def test_a_head_that_prefers_unsafe_answers_is_left_out_and_the_rest_renormalises(close):
    """Check 6: of three heads the second is right on one of three safety pairs."""
    safety = number([[1.0, -1.0, 2.0], [1.0, -1.0, -1.0], [0.5, 1.0, 2.0]])
    logits = number([[0.0, 5.0, log(3)]])
    close(losses.mask_unsafe(logits, safety, least=0.6).softmax(1), [[0.25, 0.0, 0.75]])
    with pytest.raises(ValueError, match="no head is right on 1.1"):
        losses.mask_unsafe(logits, safety, least=1.1)


# --- the floor ---------------------------------------------------------------------------------------------------


def test_worked_floor(close):
    """Two groups at 0.9 and 0.1: mean 0.5, H = ln 2, H(y | z) = 0.32508297, I = 0.36806421 >= 2 x 0.16 = 0.32."""
    found = losses.irreducible(number([[0.5, 0.5], [0.25, 0.75]]), number([[0.9, 0.1], [0.8, 0.4]]))
    close(found.lowest, [log(2), log(2)])
    close(found.entropy, [0.32508297, 0.62985936])
    close(found.information, [0.36806421, 0.06328782])
    close(found.pinsker, [0.32, 0.06])


def test_no_probability_does_better_than_the_groups_mean_and_its_excess_is_the_information(random, close):
    """Section 1.3: min over q of CE(y, q) = H_b(mean), found on a grid; excess over H(y | z) = E KL(z || mean)."""
    shares, prefers = random(6, 4).softmax(1), random(6, 4, scale=2.0).sigmoid()
    found, mean = losses.irreducible(shares, prefers), (shares * prefers).sum(1)
    grid = torch.linspace(1e-4, 1 - 1e-4, 9999, dtype=torch.float64)
    cost = -(mean[:, None] * grid.log() + (1 - mean[:, None]) * (1 - grid).log())
    assert (cost.min(1).values >= found.lowest - 1e-12).all()
    close(cost.min(1).values, found.lowest)
    close(grid[cost.argmin(1)], mean, atol=2e-4)
    ratio = prefers * (prefers / mean[:, None]).log() + (1 - prefers) * ((1 - prefers) / (1 - mean[:, None])).log()
    close(found.information, (shares * ratio).sum(1))


def test_the_theorems_bound_never_passes_the_information(random):
    shares, prefers = random(500, 5).softmax(1), random(500, 5, scale=3.0).sigmoid()
    found = losses.irreducible(shares, prefers)
    assert (found.information >= found.pinsker - 1e-12).all()


def test_a_mixture_without_context_has_the_same_floor(random):
    """Its prediction is one number for a pair, whatever heads and weights it has: Jensen, on 200 random mixtures."""
    shares, prefers = random(200, 3).softmax(1), random(200, 3, scale=2.0).sigmoid()
    logits, margins = random(200, 6), random(200, 6, scale=2.0)
    first, second = losses.log_mixture(logits, margins), losses.log_mixture(logits, -margins)
    mean = (shares * prefers).sum(1)
    assert (-(mean * first + (1 - mean) * second) >= losses.irreducible(shares, prefers).lowest).all()


def test_a_mixture_that_knows_the_group_reaches_the_entropy(random, close):
    shares, prefers = random(50, 3).softmax(1), random(50, 3, scale=2.0).sigmoid()
    cost = 0
    for z in range(3):
        sure = torch.full((50, 3), -1e9, dtype=torch.float64).index_fill(1, torch.tensor([z]), 0.0)
        first, second = (losses.log_mixture(sure, sign * prefers.logit()) for sign in (1, -1))
        cost = cost - shares[:, z] * (prefers[:, z] * first + (1 - prefers[:, z]) * second)
    close(cost, losses.irreducible(shares, prefers).entropy)


def test_with_exchangeable_texts_the_theorems_mean_says_nothing_but_the_pairs_do(close):
    """Each pair in both orders: every group's mean preference is 1/2, its variance over groups 0; not so I."""
    prefers = number([[0.9, 0.2], [0.1, 0.8]])
    close(prefers.mean(0), [0.5, 0.5])
    assert losses.irreducible(torch.full((2, 2), 0.5, dtype=torch.float64), prefers).information.min() > 0.2


def test_groups_that_agree_leave_nothing_irreducible(close):
    found = losses.irreducible(number([[0.3, 0.7]]), number([[0.8, 0.8]]))
    close(found.information, [0.0])


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan")])
def test_a_tau_that_is_none_raises(random, tau):
    with pytest.raises(ValueError, match=str(tau)):
        losses.hedge_targets(random(2, 2), random(2, 2), tau=tau)
    with pytest.raises(ValueError, match=str(tau)):
        losses.hedge_objective(WEIGHTS, WEIGHTS, MARGINS, tau=tau)


def test_a_negative_alpha_raises(random):
    with pytest.raises(ValueError, match="alpha is -0.5"):
        losses.mixture_loss(random(2, 2), random(2, 2), alpha=-0.5)


def test_shapes_that_do_not_agree_raise(random):
    for call in (lambda: losses.mixture_loss(random(2, 3), random(2, 4), alpha=0.5),
                 lambda: losses.hedge_targets(random(2, 3), random(3, 3), tau=1.0),
                 lambda: losses.router_loss(random(2, 3), random(2)),
                 lambda: losses.shared_base_loss(random(2, 3), random(2, 1)),
                 lambda: losses.bradley_terry_loss(random(2, 3)),
                 lambda: losses.static_loss(random(4), random(2, 3)),
                 lambda: losses.irreducible(random(2, 3), random(2, 2))):
        with pytest.raises(ValueError, match="expected .*; got"):
            call()


def test_group_shares_that_are_no_distribution_raise():
    with pytest.raises(ValueError, match="must sum to 1"):
        losses.irreducible(number([[0.5, 0.6]]), number([[0.5, 0.5]]))


# --- it improves -------------------------------------------------------------------------------------------------


def planted(n, seed, width=6):
    """Rows of two groups with opposite wishes; the prompt says nothing of them, the context does (with noise)."""
    g = torch.Generator().manual_seed(seed)
    group = torch.randint(2, (n,), generator=g)
    x = torch.randn(n, width, generator=g)
    wish = torch.eye(width)[:2]
    sign = torch.where(torch.rand(n, generator=g) < torch.sigmoid(4 * (x * wish[group]).sum(1)), 1.0, -1.0)
    context = torch.nn.functional.one_hot(group, 2).float() + 0.1 * torch.randn(n, 2, generator=g)
    cast = torch.ones(n)
    return mixture.Rows(x * sign[:, None], torch.zeros(n, 2), context, context, group, torch.arange(n), cast, cast)


def test_stage_two_beats_one_reward_on_people_who_want_different_things():
    """Wishes along two axes: one reward can only serve their sum; heads per wish and a router on 20 pairs each do."""
    rows, test = planted(3000, 0), planted(1000, 1)
    schedule = training.Schedule(epochs=5, batch_size=32, learning_rate=0.02, router_rate=0.02)
    how = mixture.Recipe(
        lambda g, m: losses.bradley_terry_loss(m), 1, mixture.linear_router, mixture.linear_heads, "prompt"
    )
    single, _ = training.train(rows, how, schedule, 0)
    mix = how._replace(loss=lambda g, m: losses.mixture_loss(g, m, alpha=0.1).losses, heads=4)
    model, _ = training.train(rows, mix, schedule, 0)
    routed = mixture.copy_with(model, reads="seen")
    training.fit_router_to_targets(
        routed, mixture.take(rows, 20, 0), lambda g, m: losses.hedge_targets(g, m, tau=0.1), losses.router_loss,
        training.Schedule(30, 8, 0.0, 0.1), seed=0,
    )  # fmt: skip
    accuracy = {name: float((losses.predict(*mixture.outputs(m, test)) > 0.5).float().mean())
                for name, m in (("single", single), ("stage 1", model), ("stage 2", routed))}
    assert accuracy["stage 2"] > accuracy["single"] + 0.03
    assert accuracy["stage 2"] > accuracy["stage 1"] + 0.03
