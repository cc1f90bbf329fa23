"""A canonical basis of human preferences (arXiv 2503.24150), reconstructed.

Only abstract and first page of the paper were readable to us. What is taken from there: preference phrases extracted by
a language model from (prompt, chosen, rejected), thousands of them condensed into 21 categories, their share of the
variation between people, Elo ratings for each category, and training on the subset of data that a category explains.
All else is ours, each file saying what: cluster.py (phrases to categories), coverage.py (a basis and what it covers),
variance.py (the same where most entries of the matrix of people are missing), elo.py (ratings for a category).
"""
