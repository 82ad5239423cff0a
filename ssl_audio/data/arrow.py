"""A table in an Arrow IPC file: written by pyarrow, read as NumPy arrays that lie in the mapped file.

Any Arrow reader opens these files. Ours does not go through pyarrow, for two reasons. It decides what is read before
anything is: pyarrow decompresses, swaps bytes and joins dictionaries as the file asks, so a small file could ask for
any amount of memory. And a worker that maps the file needs no import and no memory pool of pyarrow. The price is that
we walk the metadata ourselves.

Source: Apache Arrow, "Arrow Columnar Format", serialization and IPC; `format/Schema.fbs`, `Message.fbs` (version 5).
"""

import dataclasses
import json
import mmap
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ssl_audio.data.flatbuffers import FlatTable
from ssl_audio.data.json_values import read_json
from ssl_audio.data.strings import Strings
from ssl_audio.storing import writing

Values: TypeAlias = dict[str, np.ndarray | Strings]

_MAGIC = b"ARROW1"
_METADATA_KEY = b"ssl_audio"
_END = b"\xff\xff\xff\xff\0\0\0\0"
_ALIGNED = 8
_VERSION = 4  # counted from 0
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3  # kinds of messages
_INT, _FLOAT, _STRUCT, _FIXED_LIST, _TEXT, _LIST = 2, 3, 13, 16, 20, 21  # types; text and lists with 64-bit offsets
_PRECISION = {"<f4": 1, "<f8": 2}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A column.

    Args:
        name: What it is called.
        dtype: Type of its numbers, such as `<i4`; empty where it is text or lists.
        words: Its numbers are codes of words, which are stored once. A code of -1 is none.
        each: So many numbers a row.
        fields: What its rows have lists of.
        none: The number that stands for none, which other readers see as null.
        optional: It may be missing.
    """

    name: str
    dtype: str = ""
    words: bool = False
    each: int = 1
    fields: tuple["Field", ...] = ()
    none: int | None = None
    optional: bool = False


def write_arrow(path: Path, fields: Sequence[Field], values: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write a table as one uncompressed record batch; the same values give the same bytes.

    Args:
        path: The file; it appears whole or not at all.
        fields: The columns; an optional one is left out where `values` has None for it.
        values: By the names that `read_arrow` gives them.
        metadata: Anything that JSON knows.
    """
    import pyarrow as pa  # only writing needs it, and it takes a quarter of a second to import

    fields = [field for field in fields if not (field.optional and values.get(field.name) is None)]
    rows = len(values[fields[0].name])
    arrays = [_arrow(pa, field, values, field.name, rows) for field in fields]
    text = json.dumps(metadata, ensure_ascii=False).encode()
    schema = pa.schema(
        [(field.name, array.type) for field, array in zip(fields, arrays, strict=True)], metadata={_METADATA_KEY: text}
    )
    with writing(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _arrow(pa: Any, field: Field, values: Mapping[str, Any], name: str, rows: int) -> Any:
    """A column as a pyarrow array over the same memory."""
    value = values[name]
    if field.fields:
        children = {
            child.name: _arrow(pa, child, values, f"{name}.{child.name}", int(value[-1]) if rows else 0)
            for child in field.fields
            if not (child.optional and values.get(f"{name}.{child.name}") is None)
        }
        kind = pa.struct([(child, array.type) for child, array in children.items()])
        count = len(next(iter(children.values())))
        inner = pa.Array.from_buffers(kind, count, [None], children=list(children.values()))
        return pa.Array.from_buffers(pa.large_list(kind), rows, [None, _offsets(pa, value)], children=[inner])
    if not field.dtype:
        return pa.Array.from_buffers(
            pa.large_string(), rows, [None, _offsets(pa, value.ends), pa.py_buffer(np.ascontiguousarray(value.letters))]
        )
    numbers = np.ascontiguousarray(value, dtype=field.dtype)
    kind = pa.from_numpy_dtype(numbers.dtype)
    none = -1 if field.words else field.none
    there = None if none is None or not (numbers == none).any() else np.packbits(numbers != none, bitorder="little")
    buffers = [None if there is None else pa.py_buffer(there), pa.py_buffer(numbers)]
    if field.words:
        words = values[f"{name} words"]
        text = _arrow(pa, Field(name=name), {name: words}, name, len(words))
        return pa.DictionaryArray.from_buffers(pa.dictionary(kind, text.type), rows, buffers, text)
    array = pa.Array.from_buffers(kind, numbers.size, buffers)
    return array if field.each == 1 else pa.FixedSizeListArray.from_arrays(array, field.each)


def _offsets(pa: Any, ends: np.ndarray) -> Any:
    return pa.py_buffer(np.concatenate([[0], ends]).astype("<i8"))


def read_arrow(path: Path, fields: Sequence[Field]) -> tuple[Values, Any]:
    """Map what `write_arrow` wrote; nothing of it is read but metadata.

    Values of numbers, codes and ends are not checked here; every array lies in the file, and has as many numbers as
    its column has rows.

    Returns:
        The values by name, and the metadata. A column of words gives its codes by its name and the words by `NAME
        words`; one of lists gives the ends of the lists by its name, and what is in them by `NAME.FIELD`. Optional
        columns that are missing are left out.

    Raises:
        OSError, ValueError: if it is no such file, is cut off, compressed, or has other columns.
    """
    if not path.is_file():
        raise ValueError("no regular file")
    whole = np.asarray(np.memmap(path, np.uint8, "r"))
    if whole[: len(_MAGIC)].tobytes() != _MAGIC or whole[-len(_MAGIC) :].tobytes() != _MAGIC:
        raise ValueError("no Arrow file, or one that is cut off")
    try:
        return _read(_File(whole), fields)
    except (struct.error, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(f"damaged metadata ({error})") from error


def let_go(values: np.ndarray) -> None:
    """Release the memory pages of the mapped file of an array, if it is mapped; later reads map them again."""
    owner: Any = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def _read(file: "_File", fields: Sequence[Field]) -> tuple[Values, Any]:
    kind, schema, _ = file.message()
    if kind != _SCHEMA or schema.number(0, "<h"):
        raise ValueError("no schema of little-endian numbers")
    dictionaries: dict[int, str] = {}
    fields = _checked(fields, schema.tables(1), "", dictionaries)
    values: Values = {}
    for _ in range(len(dictionaries)):
        kind, header, body = file.message()
        name = dictionaries.pop(header.number(0, "<q"), None) if kind == _DICTIONARY else None
        if name is None or header.number(2, "<?"):
            raise ValueError("other dictionaries")
        _Batch(header.table(1), body).take(Field(name=name), f"{name} words", None, values)
    kind, header, body = file.message()
    if kind != _RECORDS:
        raise ValueError("no records")
    batch, rows = _Batch(header, body), header.number(0, "<q")
    for field in fields:
        batch.take(field, field.name, rows, values)
    batch.end()
    file.end()
    metadata = {one.text(0): one.text(1) for one in schema.tables(2, most=1)}
    return values, read_json(metadata.get(_METADATA_KEY, b"null"))


def _checked(
    fields: Sequence[Field], found: Sequence[FlatTable], within: str, dictionaries: dict[int, str]
) -> list[Field]:
    """The columns that are there, if they are as they should be; dictionaries are entered by their number."""
    names = [one.text(0) for one in found]
    present = [field for field in fields if not field.optional or field.name.encode() in names]
    if names != [field.name.encode() for field in present]:
        raise ValueError("other columns")
    return [
        _checked_one(field, one, within + field.name, dictionaries) for field, one in zip(present, found, strict=True)
    ]


def _checked_one(field: Field, found: FlatTable, name: str, dictionaries: dict[int, str]) -> Field:
    kind, parameters, children = found.number(2, "<B"), found.table(3), found.tables(5)
    if field.fields:
        if kind != _LIST or len(children) != 1 or children[0].number(2, "<B") != _STRUCT:
            raise ValueError(f"{name} has no lists")
        inner = _checked(field.fields, children[0].tables(5), f"{name}.", dictionaries)
        return dataclasses.replace(field, fields=tuple(inner))
    if field.each > 1:
        if kind != _FIXED_LIST or parameters.number(0, "<i") != field.each or len(children) != 1:
            raise ValueError(f"{name} has not {field.each} numbers a row")
        _checked_one(dataclasses.replace(field, each=1), children[0], name, dictionaries)
        return field
    if field.words:
        encoding = found.table(4)
        number = encoding.number(0, "<q")
        if kind != _TEXT or number in dictionaries:
            raise ValueError(f"{name} has no words of its own")
        dictionaries[number] = name
        kind, parameters = _INT, encoding.table(1)
    elif found.has(4):
        raise ValueError(f"{name} has words")
    if not field.dtype:
        same = kind == _TEXT
    elif field.dtype in _PRECISION:
        same = kind == _FLOAT and parameters.number(0, "<h") == _PRECISION[field.dtype]
    else:
        bits = 8 * np.dtype(field.dtype).itemsize
        same = kind == _INT and parameters.number(0, "<i") == bits and parameters.number(1, "<?")
    if not same or children:
        raise ValueError(f"{name} is of another type")
    return field


class _File:
    """The messages of a file, one after another."""

    def __init__(self, whole: np.ndarray) -> None:
        self.whole = whole
        self.at = _ALIGNED

    def message(self) -> tuple[int, FlatTable, np.ndarray]:
        """Kind, header and body of the next message."""
        mark, size = struct.unpack("<Ii", self.whole[self.at : self.at + 8].tobytes())
        start = self.at + 8
        if mark != 0xFFFFFFFF or not 0 <= size <= len(self.whole) - start:
            raise ValueError("no message")
        metadata = self.whole[start : start + size].tobytes()
        table = FlatTable.root(metadata)
        if table.number(0, "<h") != _VERSION:
            raise ValueError("another version of Arrow's metadata")
        length = table.number(3, "<q")
        if not 0 <= length <= len(self.whole) - start - size:
            raise ValueError("a message beyond the end")
        self.at = start + size + length
        return table.number(1, "<B"), table.table(2), self.whole[start + size : self.at]

    def end(self) -> None:
        """No more messages.

        Raises:
            ValueError: if there are.
        """
        if self.whole[self.at : self.at + len(_END)].tobytes() != _END:
            raise ValueError("more messages")


class _Batch:
    """The arrays of a record batch, in the order of its columns."""

    def __init__(self, header: FlatTable, body: np.ndarray) -> None:
        if header.has(3):
            raise ValueError("compressed")
        self.body = body
        self.lengths = [length for length, _ in header.pairs(1)][::-1]
        self.buffers = header.pairs(2)[::-1]

    def take(self, field: Field, name: str, rows: int | None, values: Values) -> None:
        """Enter the values of a column of so many rows; None is any number."""
        rows = self._node(rows)
        if field.fields:
            values[name] = self._ends(rows)
            count = self._node(None)  # of the structure, which has no numbers of its own
            for child in field.fields:
                self.take(child, f"{name}.{child.name}", count, values)
        elif not field.dtype:
            ends = self._ends(rows)
            values[name] = Strings(letters=self._numbers("|u1", int(ends[-1]) if rows else 0), ends=ends)
        elif field.each > 1:
            self._node(rows * field.each)
            values[name] = self._numbers(field.dtype, rows * field.each).reshape(rows, field.each)
        else:
            values[name] = self._numbers(field.dtype, rows)

    def end(self) -> None:
        """Nothing is left.

        Raises:
            ValueError: if there are more arrays than columns.
        """
        if self.lengths or self.buffers:
            raise ValueError("more arrays than columns")

    def _node(self, rows: int | None) -> int:
        """Rows of the next array, whose first buffer says which are null: codes and numbers say that themselves."""
        if not self.lengths or not self.buffers:
            raise ValueError("fewer arrays than columns")
        self.buffers.pop()
        found = self.lengths.pop()
        if found < 0 or rows not in (None, found):
            raise ValueError("columns of several lengths")
        return found

    def _ends(self, rows: int) -> np.ndarray:
        """Where lists or texts end; the first starts at 0."""
        offsets = self._numbers("<i8", rows + 1 if rows else 0)
        if rows and offsets[0]:
            raise ValueError("a list that does not start at 0")
        return offsets[1:]

    def _numbers(self, dtype: str, count: int) -> np.ndarray:
        if not self.buffers:
            raise ValueError("fewer arrays than columns")
        (offset, size), kind = self.buffers.pop(), np.dtype(dtype)
        if not 0 <= offset <= offset + size <= len(self.body) or not 0 <= count * kind.itemsize <= size:
            raise ValueError("an array beyond the end")
        if offset % kind.itemsize:
            raise ValueError("an array between the bounds of its numbers")
        return self.body[offset : offset + count * kind.itemsize].view(kind)
