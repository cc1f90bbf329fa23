"""A user's own pictures with questions: a file of image, question, chosen and rejected, checked row by row."""

from pathlib import Path

from prefcore.data import places
from prefcore.data.rows import DataError, fault, refuse_weight, short, usable_rows
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


def read_enough(source: str) -> list[Row]:
    """What `read` gives; DataError where some pictures cannot be held out."""
    found = read(source)
    if (pictures := len({row.picture for row in found})) < 10:
        raise DataError(f"{source}: {pictures} different pictures; at least 10 are needed to hold some out")
    return found


def _own(row, folder: Path) -> Row:
    refuse_weight(row)
    row = row._replace(values={**row.values, "image": _only(row)})
    for name in ("image", "question", "chosen", "rejected"):
        value = row.values.get(name)
        if not isinstance(value, str) or not value.strip():
            what = "a question without a picture" if name == "image" else "no text"
            raise fault(row, name, f"{what} ({short(value)}); every row needs image, question, chosen and rejected")
    if row.values["chosen"] == row.values["rejected"]:
        raise fault(row, "rejected", "the same as chosen; give two different answers")
    name = row.values["image"]
    if name.startswith(("http://", "https://", "data:")):
        raise fault(row, "image", f"{short(name)} is an address, and none is fetched; save the picture, give its path")
    path = folder / name
    if not path.is_file():
        hint = " (and \\ is no / here)" if "\\" in name else ""
        raise fault(row, "image", f"no such file: {name}; paths count from the data file's folder{hint}")
    try:
        places.check_fetched(path.read_bytes()[:100], name)
        archive.read_picture(path, name)
    except ValueError as error:
        raise fault(row, "image", str(error)) from error
    return Row(row.id, str(path), row.values["question"], row.values["chosen"], row.values["rejected"])


def _only(row):
    """The picture of a row: `image`, or the one in a list; DataError for several, and for bytes inside the row."""
    name = "images" if "images" in row.values and "image" not in row.values else "image"
    value = row.values.get(name)
    if isinstance(value, list) and len(value) > 1:
        raise fault(row, name, f"{len(value)} pictures; a question is about one here")
    value = value[0] if isinstance(value, list) and value else value
    if isinstance(value, dict) and value.get("bytes"):
        raise fault(row, name, "holds the picture itself; save it as a file beside the rows and give its path")
    return value.get("path") if isinstance(value, dict) else value
