"""GenNm: names of variables in decompiled code, written by a language model and tuned on preferences (SymPO)."""
