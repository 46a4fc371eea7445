import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.errors import SchemaError
from streaming.inputs import IMPRESSIONS, cut_pieces, find_files, read_blocks
from streaming.source import Events, Impressions, Source


def make(folder, *names, text="a,b\n1,2\n3,4\n"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(files):
    return [file.name for file in files]


def test_folders_are_searched_in_natural_order_and_hidden_files_skipped(tmp_path):
    make(tmp_path, "d10.csv", "d2.csv", "sub/d1.csv", ".hidden.csv", "_tmp/x.csv", "readme.md")
    files, _ = find_files([str(tmp_path)], Source())
    assert names(files) == ["d2.csv", "d10.csv", "sub/d1.csv"]


def test_a_file_named_by_hand_needs_to_match_no_pattern(tmp_path):
    make(tmp_path, "mine.csv")
    files, _ = find_files([str(tmp_path / "mine.csv")], Source(input=("other*.csv",)))
    assert names(files) == ["mine.csv"]


def test_patterns_tell_impressions_from_events(tmp_path):
    make(tmp_path, "imp-1.csv", "clk-1.csv", "notes.csv")
    source = Source(
        impressions=Impressions(input=("imp*.csv",)),
        events=(Events(label="click", input=("clk*.csv",), window_s=1),),
    )
    files, _ = find_files([str(tmp_path / "*.csv")], source)
    assert [(file.name, file.role) for file in files] == [
        ("imp-1.csv", IMPRESSIONS),
        ("clk-1.csv", 0),
    ]


def test_a_file_given_twice_is_read_once(tmp_path):
    make(tmp_path, "a.csv")
    assert len(find_files([str(tmp_path), str(tmp_path / "a.csv")], Source())[0]) == 1


def test_unknown_endings_need_a_format(tmp_path):
    make(tmp_path, "log.dat")
    with pytest.raises(SchemaError, match="Set \\[source\\] format"):
        find_files([str(tmp_path / "log.dat")], Source())
    assert find_files([str(tmp_path / "log.dat")], Source(format="csv"))[0][0].names == ("a", "b")


def test_a_file_without_header_must_be_as_wide_as_declared(tmp_path):
    make(tmp_path, "a.csv")
    with pytest.raises(SchemaError, match="has 2 fields, column_names lists 3"):
        find_files([str(tmp_path)], Source(header=False, column_names=("x", "y", "z")))


@pytest.mark.parametrize("piece_bytes", [4, 9, 1000])
def test_row_clock_runs_on_over_files_whatever_the_pieces(tmp_path, piece_bytes):
    make(tmp_path, "a1.csv", "a2.csv", "a3.csv")
    source = Source(event_time="row")
    files, _ = find_files([str(tmp_path)], source)
    clock = []
    for piece in cut_pieces(files, source, piece_bytes):
        for block in read_blocks(piece, source, ("a",), piece_bytes):
            assert block.table.column("a").to_pylist() == [
                "1" if r == 2 else "3" for r in block.rows
            ]
            clock += (block.rows + block.clock).tolist()
    assert clock == [2, 3, 5, 6, 8, 9]


def test_small_row_groups_share_a_piece(tmp_path):
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "a.parquet", row_group_size=10)
    files, _ = find_files([str(tmp_path)], Source())
    pieces = cut_pieces(files, Source())
    assert len(pieces) == 1
    rows = [r for block in read_blocks(pieces[0], Source(), ()) for r in block.rows]
    assert rows == list(range(1, 1001))
