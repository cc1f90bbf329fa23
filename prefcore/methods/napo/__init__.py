"""Does NaPO make a vision-language model answer from the picture, and not from the question's words alone?

In: pictures with questions (world/, or a user's rows: own.py, vqa.py) and a model, ours (tower.py) or any (vision.py).
Its own biased answers are the negatives (negatives.py), some labels can be flipped (noise.py), an arm is trained on
them (losses.py, margins.py, objectives.py, trainer.py). Out: what bias is left, question by question (probes.py).
"""
