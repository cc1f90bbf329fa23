"""The made-up part of the chapter: who judges how often.

Planted groups of people with opposite wishes (`planted`), and shares of measured criteria (`measured`). In: pools of
real texts with their measures, and pairs of them. Out: populations whose choice probabilities are known exactly, so
that the floor of an ignorant reward is a number and no estimate.
"""
