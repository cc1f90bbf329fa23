"""Does NaPO make a vision-language model answer from the picture, and not by a short cut?

In: pictures with questions (world/, or a user's rows: own.py, vqa.py) and a model, ours (tower.py) or any (vision.py).
Its own biased answers are the negatives (negatives.py), a known share of them noise (noise.py); a starting model is
lent to one arm after the other (starts.py, trainer.py, parts.py) that is trained on them (losses.py, margins.py,
objectives.py). Out: what bias is left, question by question (probes.py).
"""
