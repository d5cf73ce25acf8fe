"""Tables of images and labels, as spreadsheets and scripts write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import DataError
from edgekd.runtime.label_table import (
    IMAGE_NAMES,
    LABEL_NAMES,
    Column,
    Table,
    files_in,
    read_table,
    refuse_conflicts,
)

IMAGE, LABEL = Column("image_column", None, IMAGE_NAMES), Column("label_column", None, LABEL_NAMES)


def table(tmp_path: Path, content: str | bytes, delimiter: str | None = None) -> Table:
    path = tmp_path / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, [IMAGE, LABEL], delimiter)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "file,label\na b.png,cat\nc.png,dog\n",
        "file,label\r\na b.png,cat\r\nc.png,dog",
        "file;label\na b.png;cat\n\n;\nc.png;dog\n",
        "File\tLabel\na b.png\tcat\nc.png\tdog\n",
        'file, "label"\n"a b.png", "cat"\n c.png , dog\n',
        "\nfile,label\na b.png,cat\nc.png,dog\n",
        '"file";"label"\n"a b.png";"cat"\n"c.png";"dog"\n',
        "\ufefffile,label\na b.png,cat\nc.png,dog\n",
        "file,label\na b.png,cat\nc.png,dog\n".encode("utf-16"),
        b"\xfe\xff" + "file\tlabel\na b.png\tcat\nc.png\tdog\n".encode("utf-16-be"),
        "file,label,comment; with, a semicolon\na b.png,cat,\nc.png,dog,x\n".replace("with, a", "with a"),
    ],
)
def test_one_table_in_many_forms(tmp_path: Path, content: str | bytes) -> None:
    read = table(tmp_path, content)
    assert files_in(read, read.place(IMAGE), outside=False) == ["a b.png", "c.png"]
    assert read.values(read.place(LABEL), "label") == ["cat", "dog"]


def test_quoted_values_hold_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    read = table(tmp_path, 'file,label\n"a,b.png","say ""cat"""\n"c\nd.png",dog\n')
    assert [row.values for row in read.rows] == [("a,b.png", 'say "cat"'), ("c\nd.png", "dog")]
    assert [row.line for row in read.rows] == [2, 4]


def test_the_delimiter_is_that_of_the_needed_columns_or_the_stated_one(tmp_path: Path) -> None:
    assert table(tmp_path, "file;label;a,b,c\nx.png;cat;\n").header == ("file", "label", "a,b,c")
    assert table(tmp_path, "file,label\tx\na.png,cat\t1\n", "tab").header == ("file,label", "x")
    with pytest.raises(
        DataError, match="can be split in several ways(?s:.)*next: set data.delimiter: one of ,, ;, tab"
    ):
        table(tmp_path, "a,b;c\n1,2;3\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "one column only\n  found: an empty file"),
        ("file\na.png\n", "one column only\n  found: file"),
        ("file,label\n", "has a header, but no rows\n  found: file, label"),
        (
            "a.png,cat\nb.png,dog\n",
            r"no image column(?s:.)*found: a.png, cat(?s:.)*next: the first line must be a header",
        ),
        ("file,kind\na.png,cat\n", "no label column(?s:.)*allowed: one of label, class, category, target, or another"),
        (
            "file,label,class\na.png,cat,x\n",
            "more than one label column\n  found: label, class\n  next: name one: data.l",
        ),
        ("file,label,label\na.png,cat,x\n", "columns of the same name\n  found: label"),
        ("file,label\na.png,cat\nb.png\n", "rows of another length(?s:.)*found: 1 of 2; line 3 has 1 value\n"),
        ("file,label\na,b.png,cat\n", "line 2 has 3 values\n  allowed: 2: file, label\n  next: quote values"),
        ('file,label\n"a.png,cat\n', "not a valid table\n  found: unexpected end of data, in line"),
        ('file,label\n"a"b.png,cat\n', "not a valid table\n  found: ',' expected after"),
        (f"file,label\n{'a' * 200_000},cat\n", "not a valid table\n  found: field larger"),
        (b"file,label\nM\xfcller.png,cat\n", "not text in UTF-8\n  found: byte 0xfc at position 12\n  next: save it"),
        ("file,label\na\0.png,cat\n", "not a table of text\n  found: a zero byte"),
        (b"\xff\xfef\x00i", "not text in UTF-16"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read = table(tmp_path, content)
        read.place(IMAGE), read.place(LABEL)


def test_a_column_that_is_named(tmp_path: Path) -> None:
    read = table(tmp_path, "file,label,Kind\na.png,cat,x\n")
    assert read.place(Column("label_column", "Kind", LABEL_NAMES)) == 2
    with pytest.raises(DataError, match="no label column 'kind'(?s:.)*allowed: one of file, label, Kind$"):
        read.place(Column("label_column", "kind", LABEL_NAMES))


def test_empty_values_are_named_by_line(tmp_path: Path) -> None:
    read = table(tmp_path, "file,label\na.png,cat\n,dog\nb.png, \n")
    with pytest.raises(DataError, match="rows without a label\n  found: 1 of 3: line 4"):
        read.values(1, "label")
    with pytest.raises(DataError, match="rows without a file\n  found: 1 of 3: line 3"):
        files_in(read, 0, outside=True)


def test_files_are_relative_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.png").touch()
    content = f"file,label\n./deep/../a.png,x\n{tmp_path}/deep/b.png,x\ndeep\\b.png,x\nnot\\there.png,x\n"
    inside = ["a.png", "deep/b.png", "deep/b.png", "not\\there.png"]
    assert files_in(table(tmp_path, content), 0, outside=False) == inside
    monkeypatch.chdir(tmp_path / "deep")
    assert files_in(read_table(Path("../labels.csv"), [IMAGE, LABEL]), 0, outside=False) == inside


@pytest.mark.parametrize("value", ["../a.png", "/etc/hostname", "deep/../../a.png", "."])
def test_files_outside_of_the_folder(tmp_path: Path, value: str) -> None:
    read = table(tmp_path, f"file,label\nb.png,x\n{value},x\n")
    with pytest.raises(DataError, match=r"outside of its folder\n  found: 1 of 2: .* in line 3\n  next: move"):
        files_in(read, 0, outside=False)
    assert Path(files_in(read, 0, outside=True)[1]).is_absolute()


def test_a_file_with_two_labels_is_named(tmp_path: Path) -> None:
    read = table(tmp_path, "file,label\na.png,cat\nb.png,dog\n./a.png,dog\nb.png,dog\n")
    labels = read.values(1, "label")
    files = files_in(read, 0, outside=False)
    with pytest.raises(DataError, match=r"more than one label\n  found: 1: a.png: cat in line 2, dog in line 4"):
        refuse_conflicts(read, files, labels)
    refuse_conflicts(read, files, ["cat", "dog", "cat", "dog"])


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read\n  found: No such file"):
        read_table(tmp_path / "gone.csv", [])
