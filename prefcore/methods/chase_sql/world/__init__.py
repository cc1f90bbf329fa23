"""The embedded world of CHASE-SQL: what are the databases, the questions, and the right answers?

In: a seed and sizes. Out: 24 SQLite databases with messy cells, questions with the gold SQL from which a grammar
(`forms`, `words`) made them, and the candidates that a language model wrote for them (`written`, kept in git).
"""
