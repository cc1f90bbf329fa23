"""Speed and memory beside another library. Nothing here is a result of a method; nothing is written into metrics/."""
