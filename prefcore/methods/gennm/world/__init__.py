"""Where does decompiled code with true names come from?

In come source archives of C libraries (`programs`), which gcc compiles with debug information and strips; a decompiler
in an environment of its own reads the stripped copy (`decompiler`, `decompile_worker`), the debug copy tells what the
variables are called (`dwarf`). Out go functions as text, each with its variables' true names. Nothing of them is run.
"""
