"""How a corpus stands on disk: `corpus.json`, `shard-NNNNNN.parquet`, `failed.csv`.

In: rows, one a file that is a readable image. Out: Parquet files any data tool reads, each written
whole or not at all and with a checksum a page. A row holds all that is known of its file, so a
shard needs no other; of two rows of one path the one in the later shard counts.
"""

import csv
import json
import os
import re
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.files import replace_atomically, write_atomically
from jetson_cluster.quality import Measures
from jetson_cluster.recipe import Model
from jetson_cluster.records import mtime_in, text_in

FORMAT = 1
DESCRIPTION, FAILED = "corpus.json", "failed.csv"
MEASURES = len(Measures._fields)
# What is small and read whole; thumbnails and embeddings are read as needed.
FACTS = ("path", "path_raw", "sha256", "bytes", "mtime_ns", "width", "height", "captured_at",
         "measures")
SPACE_KEY = b"jetson_cluster.space"  # in a shard's metadata: which network it is of
_SHARD = re.compile(r"^shard-(\d{6,})\.parquet$")


class Row(NamedTuple):
    """One file that was read, decoded and embedded."""

    path: str  # absolute; bytes that are not UTF-8 as surrogates, as Python's os module has them
    sha256: str  # of the file's bytes, hex
    bytes: int
    mtime_ns: int
    width: int
    height: int
    captured_at: str  # ISO 8601, UTC: by EXIF, else the file's time; "" if neither is known
    measures: np.ndarray  # float16 [7], in the order of quality.Measures; NaN: not to be had
    thumbnail: bytes  # a whole WebP or JPEG file
    embedding: np.ndarray  # float16 [D]


class Failure(NamedTuple):
    """One file that is no usable image, and why."""

    path: str
    code: str  # one of frame.CODES, or "absent", "not_finite", "overflow", "crashed"
    reason: str


class Description(NamedTuple):
    """What corpus.json says."""

    space: str
    dimension: int
    complete: bool  # whether the last run came to its end


# ---- rows and tables ---------------------------------------------------------------------------


def schema(dimension: int) -> pa.Schema:
    """The columns of a shard. `path` is for people where `path_raw`, the name's bytes, is set."""
    return pa.schema([
        ("path", pa.string()), ("path_raw", pa.binary()), ("sha256", pa.string()),
        ("bytes", pa.int64()), ("mtime_ns", pa.int64()), ("width", pa.int32()),
        ("height", pa.int32()), ("captured_at", pa.string()), ("scene", pa.string()),
        ("measures", pa.list_(pa.float16(), MEASURES)), ("thumbnail", pa.binary()),
        ("embedding", pa.list_(pa.float16(), dimension))])


def table_of(rows: Sequence[Row], dimension: int) -> pa.Table:
    """The rows as a shard has them."""
    names = [os.fsencode(row.path) for row in rows]
    shown = [text_in(row.path) for row in rows]
    raw = [None if text.encode("utf-8") == name else name for text, name in zip(shown, names)]
    columns = [
        shown, raw, [row.sha256 for row in rows], [row.bytes for row in rows],
        [mtime_in(row.mtime_ns) for row in rows], [row.width for row in rows],
        [row.height for row in rows], [row.captured_at for row in rows],
        [text_in(os.path.dirname(row.path)) for row in rows],
        _vectors([row.measures for row in rows], MEASURES), [row.thumbnail for row in rows],
        _vectors([row.embedding for row in rows], dimension)]
    fields = schema(dimension)
    return pa.table([pa.array(column, field.type) if isinstance(column, list) else column
                     for column, field in zip(columns, fields)], schema=fields)


def _vectors(vectors: List[np.ndarray], length: int) -> pa.Array:
    flat = np.array(vectors, np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), length)


def matrix(column: pa.ChunkedArray, length: int) -> np.ndarray:
    """A column of vectors as float16 [N, length], in memory of Arrow's: not to be written to."""
    parts = [chunk.flatten().to_numpy().reshape(-1, length) for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(
        parts + [np.empty((0, length), np.float16)])


def paths_of(table: pa.Table) -> List[str]:
    """The paths as Python's os module has them."""
    raw = table.column("path_raw").to_pylist()
    return [path if name is None else os.fsdecode(name)
            for path, name in zip(table.column("path").to_pylist(), raw)]


def rows_of(table: pa.Table, dimension: int) -> List[Row]:
    """The rows of a whole shard."""
    measures = matrix(table.column("measures"), MEASURES)
    embeddings = matrix(table.column("embedding"), dimension)
    names = ("sha256", "bytes", "mtime_ns", "width", "height", "captured_at")
    facts = zip(paths_of(table), *(table.column(name).to_pylist() for name in names))
    return [Row(*fact, measures[place], thumbnail, embeddings[place]) for place, (fact, thumbnail)
            in enumerate(zip(facts, table.column("thumbnail").to_pylist()))]


# ---- shards ------------------------------------------------------------------------------------


def shard_path(folder: str, number: int) -> str:
    """Where a shard stands."""
    return os.path.join(folder, "shard-%06d.parquet" % number)


def shard_numbers(folder: str) -> List[int]:
    """The shards there are, in order."""
    try:
        found = [_SHARD.match(name) for name in os.listdir(folder)]
    except OSError as error:
        raise UserError("corpus %s: cannot be read: %s" % (folder, error.strerror or error))
    return sorted(int(match.group(1)) for match in found if match)


def write_shard(folder: str, number: int, table: pa.Table, space: str) -> None:
    """Put a shard on disk, whole or not at all; raises WorldError if it cannot be written."""
    path = shard_path(folder, number)
    table = table.replace_schema_metadata({SPACE_KEY: space})
    try:
        # Embeddings have no value twice: a dictionary of them takes time and bytes.
        replace_atomically(path, lambda stream: pq.write_table(
            table, stream, compression="zstd", use_dictionary=["scene"], write_page_checksum=True))
    except OSError as error:  # Arrow's own are of this class
        raise WorldError("corpus %s: %s cannot be written: %s" % (
            folder, os.path.basename(path), error.strerror or error))


def read_shard(folder: str, number: int, description: Description,
               columns: Optional[Sequence[str]] = None) -> pa.Table:
    """A shard, or some of its columns; raises UserError if it is damaged or of another space."""
    path = shard_path(folder, number)
    try:
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            found = (file.schema_arrow.metadata or {}).get(SPACE_KEY, b"")
            if found != description.space.encode("utf-8"):
                raise ValueError("its embeddings are of the space '%s'" % found.decode(
                    "utf-8", "replace"))
            # What says so in a Parquet file is the one part of it that has no checksum.
            if not file.schema_arrow.equals(schema(description.dimension)):
                raise ValueError("it has other columns than a shard")
            table = file.read(columns=None if columns is None else list(columns))
            table.validate(full=True)
            if any(len(column) != file.metadata.num_rows for column in table.columns):
                raise ValueError("its columns differ in length")
            return table
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError("corpus %s: %s cannot be used (%s); `jetson-cluster embed` into this "
                        "corpus makes it anew" % (folder, os.path.basename(path),
                                                  " ".join(str(error).split())))


# ---- what stands beside them -------------------------------------------------------------------


def write_description(folder: str, model: Model, complete: bool) -> None:
    """Say what the corpus holds; raises WorldError if that cannot be written."""
    recipe = model.recipe
    content = {
        "format": FORMAT, "space": model.space, "dimension": recipe.dimension, "complete": complete,
        "recipe": {"name": recipe.name, "layer": recipe.layer, "width": recipe.input_width,
                   "height": recipe.input_height, "resample": recipe.resample,
                   "onnx_sha256": model.onnx_sha256}}
    _write(folder, DESCRIPTION, (json.dumps(content, indent=1) + "\n").encode("utf-8"))


def read_description(folder: str) -> Description:
    """What the corpus holds; raises UserError if it is none, or of another format."""
    path = os.path.join(folder, DESCRIPTION)
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
        found = content["format"]
        if found == FORMAT:
            return Description(str(content["space"]), int(content["dimension"]),
                               bool(content["complete"]))
    except FileNotFoundError:
        raise UserError("corpus %s: there is no %s; make a corpus with `jetson-cluster embed`" % (
            folder, DESCRIPTION))
    except OSError as error:
        raise UserError("corpus %s: %s cannot be read: %s" % (
            folder, DESCRIPTION, error.strerror or error))
    except (ValueError, KeyError, TypeError):
        raise UserError("corpus %s: %s is damaged; remove the folder and run `jetson-cluster "
                        "embed` again" % (folder, DESCRIPTION))
    raise UserError("corpus %s: it is of format %s, this version reads format %d" % (
        folder, found, FORMAT))


def holds_corpus(folder: str) -> bool:
    """Whether a corpus of any version is kept in a folder, not only a file of such a name."""
    if not os.path.isfile(os.path.join(folder, DESCRIPTION)):
        return False
    try:
        read_description(folder)
    except UserError:
        return bool(shard_numbers(folder))
    return True


def write_failed(folder: str, failures: Sequence[Failure]) -> None:
    """List the files that are no images, for people and for spreadsheets."""
    def write(stream):
        for line in [Failure._fields] + list(failures):
            stream.write(_csv_line(line))
    try:
        replace_atomically(os.path.join(folder, FAILED), write)
    except OSError as error:
        raise WorldError("corpus %s: %s cannot be written: %s" % (
            folder, FAILED, error.strerror or error))


class _Lines(list):
    """What csv.writer writes to."""

    write = list.append


def _csv_line(fields: Tuple[str, str, str]) -> bytes:
    lines = _Lines()
    csv.writer(lines).writerow(fields)
    return "".join(lines).encode("utf-8", "surrogateescape")


def read_failed(folder: str) -> List[Failure]:
    """The inverse of write_failed; empty before the first run came to its end."""
    try:
        with open(os.path.join(folder, FAILED), newline="", encoding="utf-8",
                  errors="surrogateescape") as stream:
            return [Failure(*line) for line in csv.reader(stream)][1:]
    except FileNotFoundError:
        return []
    except (OSError, TypeError, csv.Error) as error:
        raise UserError("corpus %s: %s cannot be read: %s" % (folder, FAILED, error))


def _write(folder: str, name: str, content: bytes) -> None:
    try:
        write_atomically(os.path.join(folder, name), content)
    except OSError as error:
        raise WorldError("corpus %s: %s cannot be written: %s" % (
            folder, name, error.strerror or error))
