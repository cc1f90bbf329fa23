"""One published method each: a file where the method is one loss, else a folder with all that only it uses.

A loss is a pure function in the file of the method, in loss.py or in losses.py; planted data, pictures, programs and
databases are in world/. No method imports another, but for dpo, the baseline. The notebook of the same name uses it.
"""
