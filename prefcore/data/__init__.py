"""What comes in: the kinds of preference data, and what reads them from files, hub data sets and the human ratings.

In go files as people have them (JSON lines, CSV, parquet, chats, or rated texts); out come records of one kind (pairs,
thumbs, scores, ranked completions, votes) or one error that names file, line and field. Any kind can be seen as another
one (`views`). Nothing here runs a model.
"""
