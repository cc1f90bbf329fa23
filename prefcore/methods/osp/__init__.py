"""OSP: can a policy improve by judging its own answers, and does the strength of a verdict help?

In go prompts, a policy and a judge. Out come pairs of sampled answers with P(the first beats the second) (`selfplay`:
what meets the models), and the loss that learns a strength instead of a winner (`loss`: pure). The chapter
notebooks/osp.ipynb plays the rounds.
"""
