"""prefcore: a small, reproducible core for learning from human preferences."""
