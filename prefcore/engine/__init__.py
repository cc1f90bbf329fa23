"""How is a policy scored, trained and sampled? A prompt with K completions, and what comes of it.

In come tokenised prompts with their completions (collate), a policy (models) and a pure loss of log-probabilities. Out
go summed log-probabilities (logps, and reference for the frozen model), trained weights with a history of the steps
(train, which goes on where a killed run stopped: checkpoints; descent for small heads) and samples with their tokens.
"""
