"""Which pictures and questions does the chapter see, if a user brings none?

In: the archive of easy-VQA. Out: what each of its pictures shows (archive.py), and pictures.jsonl, the rows to learn
from and to test on, with a planted prior that lets a question's words alone suggest the answer (pictures.py).
"""
