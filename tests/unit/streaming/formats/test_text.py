import gzip

import pytest

from ctr.errors import StreamError
from streaming.formats.text import count_rows, cut, first_line, read_pieces


@pytest.mark.parametrize("piece_bytes", [1, 7, 20, 1000])
@pytest.mark.parametrize("end", ["", "\n"])
def test_pieces_hold_every_line_once_with_its_number(tmp_path, piece_bytes, end):
    lines = [f"line {i}" * (1 + i % 5) for i in range(40)]
    path = tmp_path / "log.txt"
    path.write_text("\n".join(lines) + end)
    spans = cut(str(path), path.stat().st_size, piece_bytes)
    seen = []
    for span in spans:
        ((data, row),) = read_pieces(str(path), "", span, piece_bytes, False)
        assert row == len(seen)
        seen += data.decode().splitlines()
    assert seen == lines
    assert count_rows(str(path), "") == 40


def test_compressed_files_are_read_in_pieces(tmp_path):
    lines = [f"line {i}" for i in range(500)]
    path = tmp_path / "log.txt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    seen = []
    for data, row in read_pieces(str(path), "gzip", None, 100, False):
        assert row == len(seen)
        seen += data.decode().splitlines()
    assert seen == lines
    assert count_rows(str(path), "gzip") == 500


def test_a_cut_compressed_file_says_so(tmp_path):
    path = tmp_path / "log.txt.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 4000)[:-200])
    with pytest.raises(StreamError, match="damaged or cut off"):
        list(read_pieces(str(path), "gzip", None, 1 << 16, False))


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\n")
    assert first_line(str(path), "") == b"a,b"
    ((data, _),) = read_pieces(str(path), "", cut(str(path), 12, 100)[0], 100, False)
    assert data.startswith(b"a,b")
