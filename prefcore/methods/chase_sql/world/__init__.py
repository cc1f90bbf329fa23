"""The embedded world of CHASE-SQL: what are the databases, the questions, and the right answers?

In: a seed and sizes. Out: 24 SQLite databases with messy cells, and questions with the gold SQL from which a grammar
(`forms`, `words`) made them; lessons for a small language model (`layouts`, `language_model`). The quick profile's
generators enumerate the same grammar, so their upper bound says nothing about language models.
"""
