"""A canonical basis of human preferences (arXiv 2503.24150), reconstructed: do 21 preferences carry what people want?

In: choices with the phrases that say why (planted, see world/), or your own votes (own.py). Out: categories of phrases,
merged by what they choose, what a basis of them explains and foretells, ratings of models for one preference, and what
training on one preference changes. Only abstract and first page of the paper were readable to us: phrases, categories,
coverage, ratings and subsets are from there; all else is ours, each file saying what.
"""
