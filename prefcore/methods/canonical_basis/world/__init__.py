"""The made-up part of the chapter: planted people who choose between real texts by planted preferences, and say why.

`traits` measures 24 qualities on any text and has the phrases that name them; `choices` plants people, topics, models
and choices. What the pipeline finds is scored against what was planted; nothing here is a result about people.
"""
