"""Can a judge write how many people would prefer the second of two texts, and mean it (arXiv 2510.00263)?

In: pairs of texts with people's votes (scoring/voters). Out: judges, and how far what they write is from other people's
share. labels.py says what is learnt from, prompt.py what is asked, answer.py what may be written, tree.py how likely
each answer is, losses.py rewards and losses, training.py an arm, twin.py the cheap arm that changes the head alone;
readout.py and probes.py make a probability of what the judge holds, measures.py holds it against people.
"""
