"""What notebooks and stages do alike, from their parameters to their metrics files.

In come the values of params.yaml and a method's objective; out go trained arms, what they measure, claims with
verdicts, figures and the files of a run. A policy chapter opens a task (tasks), trains arms on it (training), makes a
table of what they are measured by (measures), decides the claims that params.yaml named (decisions), draws (plots) and
ends (runs). pipeline has the stages before the notebooks, notebooks runs one, launch runs it on several processes,
overview and verdicts set all chapters side by side, study is the pipeline under the larger profile; own and own_run
are for a user's data, and planner says what a run will take.
"""
