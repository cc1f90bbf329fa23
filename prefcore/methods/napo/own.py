"""A user's own pictures with questions: a file of image, question, chosen and rejected, checked row by row."""

from pathlib import Path

from prefcore.data.rows import DataError, fault, short, usable_rows
from prefcore.methods.napo.world import archive
from prefcore.methods.napo.world.pictures import Row


def read(source: str) -> list[Row]:
    """Rows of a .jsonl, .json, .csv or .parquet file with the texts image, question, chosen, rejected.

    image is a path, from the file's folder or absolute. Every picture is decoded here. DataError with file, line and
    field for the first bad row: a question without a picture, one that cannot be read, a missing or equal answer.
    """
    found = [_own(row, Path(source).parent) for row in usable_rows(source)]
    if not found:
        raise DataError(f"{source}: no rows; give at least one with image, question, chosen and rejected")
    return found


def _own(row, folder: Path) -> Row:
    for name in ("image", "question", "chosen", "rejected"):
        value = row.values.get(name)
        if not isinstance(value, str) or not value.strip():
            what = "a question without a picture" if name == "image" else "no text"
            raise fault(row, name, f"{what} ({short(value)}); every row needs image, question, chosen and rejected")
    if row.values["chosen"] == row.values["rejected"]:
        raise fault(row, "rejected", "the same as chosen; give two different answers")
    path = folder / row.values["image"]
    if not path.is_file():
        raise fault(row, "image", f"no such file: {row.values['image']}; paths count from the data file's folder")
    try:
        archive.read_picture(path, row.values["image"])
    except ValueError as error:
        raise fault(row, "image", str(error)) from error
    return Row(row.id, str(path), row.values["question"], row.values["chosen"], row.values["rejected"])
