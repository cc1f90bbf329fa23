"""CHASE-SQL (Pourreza et al. 2024, arXiv:2410.01943): which of many SQL candidates answers the question?

In: questions on SQLite databases with candidates of several generators, drawn here on the embedded world (`world/`), or
read from a user's files. Out: a selector that compares pairs of candidates in a tournament, and how often it is right.
In the quick profile no language model has a part: queries are enumerated, and the selector is linear. The study adds a
small language model that writes SQL, and one that is the paper's selector.
"""
