"""CHASE-SQL (Pourreza et al. 2024, arXiv:2410.01943): several generators, a fixer, and a trained pairwise selector."""
