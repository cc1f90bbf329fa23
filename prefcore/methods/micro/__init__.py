"""MiCRo (arXiv 2505.24846): can one reward serve people who judge by different criteria, and what does a mixture gain?

In: text vectors of a frozen encoder, as rows that say which text was preferred and under which criterion, group or
annotator (task.py). `losses` is the method; `mixture` and `training` are heads, router and how they learn.
Out: accuracies of heads and mixtures with intervals, and how far each arm is from the floor that no reward passes.
"""
