"""The made-up part of the chapter: six planted groups of people who judge real texts by opposite wishes.

In: pools of real texts with their measures. Out: votes to learn from, and a test set whose choice probabilities are
known exactly, so that the floor of an ignorant reward is a number and no estimate.
"""
