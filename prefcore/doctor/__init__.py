"""What is in my data, and which method is it for? Findings about a set of preferences, each a number and what to do.

finding.py says what a finding is; texts.py, preferences.py and votes.py find; report.py tells. No model is trained.
"""
