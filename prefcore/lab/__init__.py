"""What notebooks and stages do alike, from their parameters to their metrics files.

In come the values of params.yaml and a method's objective; out go trained arms, their scores, claims with verdicts,
figures and the files of a run. A chapter opens a task (tasks), trains arms on it (training), holds them against each
other (comparison, verdicts), draws (plots) and ends (runs). pipeline has the stages before the notebooks, notebooks
runs one, overview sets all chapters side by side, study is the pipeline under the larger profile.
"""
