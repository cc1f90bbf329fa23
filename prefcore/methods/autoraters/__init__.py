"""Judging with Confidence (arXiv 2510.00263): a written probability, and rewards that make it mean it."""
