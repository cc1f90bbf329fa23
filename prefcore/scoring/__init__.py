"""Who says what is good, and how sure is that?

In: texts and policies. Out: what people, scorers and judges say of them, and numbers about it. votes.py and voters.py
are people's votes on pairs, scorers.py rates a text, judge.py compares two, llm.py asks a language model,
reward_model.py is a network with one output; bank.py measures a policy on rated answers, evaluate.py samples it;
effects.py has contrasts between arms over seeds and units, metrics.py statistics with their intervals, calibration.py
what a probability is worth.
"""
