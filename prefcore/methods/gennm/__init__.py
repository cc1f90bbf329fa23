"""GenNm (arXiv 2306.02546): what were the variables of a stripped binary called?

In come decompiled functions (`world` makes them, `corpus` keeps them fair) and a language model that answers questions
on them (`prompt`, `recover`). Names travel along calls (`callgraph`), the model learns from its own better answers
(`preferences`, `losses`), and variables that are copied to each other vote (`validation`). Out go names with
probabilities, scored word by word (`score`, `report`), or those of a binary of your own (`apply`, `limits`).
"""
