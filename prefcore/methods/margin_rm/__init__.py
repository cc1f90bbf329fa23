"""Does a margin for how far people agree make a better reward model (arXiv 2412.03822)?

In: pairs of texts with people's votes (scoring/voters). Out: reward models, and how closely they follow other people's
votes. labels.py draws one rater's choice, simulated_votes.py lets a language model play raters, losses.py is the
method, linear.py and tuned.py teach reward models by it, evaluation.py holds them against votes.
"""
