"""GenNm (arXiv 2306.02546): what were the variables of a stripped binary called?

In come decompiled functions (`world` makes them, `corpus` keeps them fair) and a language model that writes names or
chooses known ones (`namer`, `prompt`, `recover`). Names travel along calls (`callgraph`), the model learns from its own
better names (`preferences`, `losses`), and variables that are copied to each other vote (`validation`). Out go names
with probabilities, scored word by word (`score`, `report`, beside `baselines`), or those of your own programs (`apply`,
`limits`), from which it can learn, too (`own`).
"""
