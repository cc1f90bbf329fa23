"""A canonical basis of human preferences (arXiv 2503.24150), reconstructed: do 21 preferences carry what people want?

In: choices with the phrases that say why (planted, see world/), or people's votes on statements (people.py). Out: what
an extractor is worth, categories of phrases, what a basis of them covers by three definitions, ratings of models for
one preference, and what training on one preference changes. Only abstract and first page of the paper were readable to
us: phrases, 21 categories, coverage, ratings and subsets are from there; all else is ours, each file saying what.
"""
