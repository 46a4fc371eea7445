import pytest

from ctr.errors import SchemaError
from streaming.source import key_columns, load_source, raw_columns

BASE = """
name = "t"
[columns]
example_id = "id"
event_time = "ts"
[source]
{source}
[[features]]
name = "user"
column = "u"
[[features]]
name = "pair"
cross = ["user", "ad"]
[[features]]
name = "ad"
[[labels]]
name = "click"
"""
JOIN = """
[source.impressions]
input = "imp*.csv"
[[source.events]]
label = "click"
input = "clk*.csv"
window_s = 60
"""


def load(tmp_path, source="", text=BASE):
    path = tmp_path / "schema.toml"
    path.write_text(text.format(source=source))
    return load_source(path)


def test_needed_columns_leave_out_crosses_and_labels_that_are_events(tmp_path):
    assert raw_columns(*load(tmp_path)) == ("id", "ts", "u", "ad", "click")
    schema, source = load(tmp_path, JOIN)
    assert raw_columns(schema, source) == ("id", "ts", "u", "ad")
    assert key_columns(schema, source) == ("id",)
    assert source.impressions.input == ("imp*.csv",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('formt = "csv"', "unknown key 'formt': did you mean 'format'"),
        ('format = "xlsx"', "unknown format 'xlsx'"),
        ('event_time = "minutes"', "neither a unit"),
        ("header = 1", "expected bool, received 1"),
        ("input = 3", "[source].input: expected a list, received 3"),
        ("header = false", "needs column_names"),
        (JOIN.replace("window_s", "windows"), "unknown key 'windows': did you mean 'window_s'"),
        (JOIN.replace("window_s = 60", ""), "'window_s' is missing"),
        (JOIN.replace("60", "-1"), "window_s must be above 0"),
        (JOIN.replace('"click"', '"clik"'), "'clik': did you mean 'click'"),
        (JOIN.replace('input = "imp*.csv"', ""), "must name its input pattern"),
        ('event_time = "row"' + JOIN, "needs a real event_time"),
        ('[source.impressions]\ninput = "x"', "needs [[source.events]]"),
        ('[[source.impressions]]\ninput = "x"', "expected a table"),
    ],
)
def test_mistakes_are_named(tmp_path, source, message):
    with pytest.raises(SchemaError) as error:
        load(tmp_path, source)
    assert message in str(error.value)
    assert "schema.toml" in str(error.value)


def test_event_time_must_come_from_somewhere(tmp_path):
    text = BASE.replace('event_time = "ts"', "")
    with pytest.raises(SchemaError, match="no column holds the event time"):
        load(tmp_path, text=text)
    assert "ts" not in raw_columns(*load(tmp_path, 'event_time = "row"', text))


def test_dedup_must_agree_with_the_join(tmp_path):
    with pytest.raises(SchemaError, match="joined and de-duplicated by 'id'"):
        load(tmp_path, JOIN, 'dedup = ["u"]\n' + BASE)
