"""What the tests of notebooks share."""

import nbformat
import pytest


@pytest.fixture
def changed():
    """Writes a notebook again with a change made to it; returns its path."""

    def write(path, change):
        nb = nbformat.read(path, as_version=4)
        change(nb)
        nbformat.write(nb, path)
        return path

    return write
