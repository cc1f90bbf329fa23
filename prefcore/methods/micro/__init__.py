"""MiCRo (arXiv 2505.24846): can one reward serve people who judge by different criteria, and what does a mixture gain?

In: texts as vectors of frozen readers (`reader`), behind a gate on what they hold (`criteria`), and populations that
judge pairs by known probabilities (`population`, world/). `losses` is the method; `mixture` and `training` are heads,
router and how they learn. Out: what each arm is worth on each pair, exactly (`accuracy`), and people (`annotators`).
"""
