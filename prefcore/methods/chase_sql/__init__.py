"""CHASE-SQL (Pourreza et al. 2024, arXiv:2410.01943): a question to a database, answered by choosing among queries.

In: an SQLite file, a question, and a language model (`system`, `apply`); or candidates that were written before
(`evidence`). Out: the query that a judge of pairs chooses in a tournament, and how often such choices are right.
"""
