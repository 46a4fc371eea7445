"""Every preset, on rows in the exact format the data set is published in."""

import bz2
import gzip
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.errors import ConfigError, StreamError
from streaming.inputs import cut_pieces, find_files, find_lookup
from streaming.lookup import SideTable
from streaming.presets import load_preset, preset_names
from streaming.stage import Reading
from streaming.validate import validate_events, validate_impressions


@pytest.fixture
def rows(tmp_path):
    """Gives a function that reads a preset's impressions from files: rows and bad rows."""

    def read(preset, files, inputs=None):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pa.Table):
                pq.write_table(content, path)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        schema, source = load_preset(preset)
        inputs = inputs or [str(tmp_path)]
        found, _ = find_files(inputs, source)
        tables = tuple(
            SideTable(lookup, tuple(find_lookup(lookup, inputs, source)), source)
            for lookup in source.lookups
        )
        reading = Reading(schema, source, tables, 1 << 20)
        out, bad, events = [], [], {}
        for piece in cut_pieces(found, source):
            for block in reading.blocks(piece):
                bad += block.bad
                if piece.file.role < 0:
                    valid = validate_impressions(block, schema, source)
                    out += valid.batch.to_pylist()
                    bad += valid.bad
                else:
                    event = source.events[piece.file.role]
                    ids, times, wrong = validate_events(block, event, schema, source)
                    pairs = zip(ids.to_pylist(), times.tolist(), strict=True)
                    events.setdefault(event.label, []).extend(pairs)
                    bad += wrong
        return out, bad, events

    return read


def pick(row, *names):
    return tuple(row[name] for name in names)


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def test_every_preset_loads():
    assert len(preset_names()) == 14
    for name in preset_names():
        assert load_preset(name)[0].name == name


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="'kuairnd': did you mean 'kuairand'"):
        load_preset("kuairnd")


def criteo(label, first, category):
    return "\t".join([label, first, *[""] * 12, category, *["a1b2c3d4"] * 25])


def test_criteo_kaggle(rows):
    text = criteo("0", "-1", "68fd1e64") + "\n" + criteo("1", "", "") + "\n"
    found, bad, _ = rows("criteo_kaggle", {"train.txt": text})
    assert not bad
    assert pick(found[0], "I1", "I13", "C1", "C26", "click") == (
        -1.0, None, "68fd1e64", "a1b2c3d4", 0,
    )  # fmt: skip
    assert pick(found[1], "I1", "C1", "click", "example_id") == (None, None, 1, "train.txt:2")
    assert found[0]["event_time"] < found[1]["event_time"]


def test_criteo_1tb_orders_by_day_then_row(rows):
    line = criteo("0", "5", "68fd1e64") + "\n"
    files = {"day_10": line, "day_2": line * 2, "day_0.gz": gzip.compress(line.encode())}
    found, bad, _ = rows("criteo_1tb", files)
    assert not bad
    assert [row["example_id"] for row in found] == ["day_0.gz:1", "day_2:1", "day_2:2", "day_10:1"]
    times = [row["event_time"] for row in found]
    assert times == sorted(set(times))
    assert times[3] == utc(1970, 1, 11)


def test_criteo_1tb_needs_the_day_in_the_name(rows):
    with pytest.raises(StreamError, match="expected a name such as day_7"):
        rows("criteo_1tb", {"day_one": criteo("0", "5", "x") + "\n"})


def test_criteo_attribution(rows):
    header = (
        "timestamp uid campaign conversion conversion_timestamp conversion_id attribution click "
        "click_pos click_nb cost cpo time_since_last_click cat1 cat2 cat3 cat4 cat5 cat6 cat7 cat8 "
        "cat9"
    ).split()
    line = (
        "2 20073966 22589171 0 -1 -1 0 1 -1 -1 1.0e-05 0.39 -1 5824233 9312274 3490278 29196072 "
        "11409686 1973606 25162884 29196072 29196072"
    ).split()
    text = "\t".join(header) + "\n" + "\t".join(line) + "\n"
    name = "criteo_attribution_dataset.tsv.gz"
    found, bad, _ = rows("criteo_attribution", {name: gzip.compress(text.encode())})
    assert not bad
    names = ("uid", "campaign", "cat1", "cat9", "click", "conversion", "cost")
    assert pick(found[0], *names) == (
        "20073966", "22589171", "5824233", "29196072", 1, 0, 1e-5,
    )  # fmt: skip
    assert found[0]["time_since_last_click"] == -1.0
    assert found[0]["event_time"] == utc(1970, 1, 1, 0, 0, 2)


def test_criteo_attribution_1pct(rows):
    columns = {"row_in_original": [99, 524], **{f"cat{i}": [i, 2 * i] for i in (1, 4, 6, 8, 9)}}
    table = pa.table({**columns, "click": [0, 1], "split": ["train", "valid"]})
    found, _, _ = rows("criteo_attribution_1pct", {"impressions.parquet": table})
    assert pick(found[1], "example_id", "cat9", "click") == ("524", "18", 1)
    assert len(load_preset("criteo_attribution_1pct")[0].features) == 5 + 10


def test_avazu(rows):
    header = (
        "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,"
        "app_category,device_id,device_ip,device_model,device_type,device_conn_type,"
        "C14,C15,C16,C17,C18,C19,C20,C21"
    )
    line = (
        "1000009418151094273,0,14102123,1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,"
        "07d7df22,a99f214a,ddd2926e,44956a24,1,2,15706,320,50,1722,0,35,-1,79"
    )
    data = gzip.compress(f"{header}\n{line}\n".encode())
    found, bad, _ = rows("avazu", {"train.gz": data})
    assert not bad
    assert found[0]["event_time"] == utc(2014, 10, 21, 23)
    names = ("example_id", "hour_of_day", "banner_pos", "C20", "click")
    assert pick(found[0], *names) == ("1000009418151094273", "23", "0", "-1", 0)


def test_kuairand_takes_author_and_tags_from_the_video_table(rows):
    log = (
        "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
        "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
        "is_profile_enter,is_rand,tab\n"
        "0,3421,20220422,1900,1650625193000,1,0,0,0,0,0,1,44123,49866,0,0,0,0,1\n"
        "0,99,20220422,1900,1650625194000,0,0,0,0,0,0,0,0,7000,0,0,0,0,4\n"
    )
    videos = (
        "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
        "server_width,server_height,music_id,music_type,tag\n"
        '3421,7349781,NORMAL,2022-04-10,LongImport,0.0,49866.0,720,1280,915,9.0,"39,5"\n'
    )
    files = {
        "data/log_standard_4_22_to_5_08_pure.csv": log,
        "data/video_features_basic_pure.csv": videos,
        "data/user_features_pure.csv": "user_id\n0\n",
    }
    found, bad, _ = rows("kuairand", files)
    assert not bad
    assert found[0]["example_id"] == "0|3421|1650625193000"
    names = ("author_id", "tag", "tab", "hour", "duration_ms", "duration_bin", "click", "long_view")
    assert pick(found[0], *names) == ("7349781", "39,5", "1", "1900", 49866.0, 49866.0, 1, 1)
    assert pick(found[1], "author_id", "tag", "query_id") == (None, None, "0")


def test_open_bandit_takes_policy_and_campaign_from_the_path(rows):
    header = ",timestamp,item_id,position,click,propensity_score," + ",".join(
        f"user_feature_{i}" for i in range(4)
    )
    line = "0,2019-11-24 00:00:17.004101+00:00,79,2,0,0.087125,81ce,03a5,7bc9,c39b"
    found, bad, _ = rows(
        "open_bandit",
        {"bts/men/men.csv": f"{header}\n{line}\n", "bts/men/item_context.csv": ",item_id\n0,79\n"},
    )
    assert not bad
    names = ("policy", "campaign", "item", "slot", "position", "propensity_score", "click")
    assert pick(found[0], *names) == ("bts", "men", "men:79", "2", 2, 0.087125, 0)
    assert found[0]["event_time"] == utc(2019, 11, 24, 0, 0, 17, 4101)


def test_mind_explodes_pages_and_keeps_the_newest_history(rows):
    history = " ".join(f"N{i}" for i in range(20))
    log = (
        f"1\tU13740\t11/11/2019 9:05:58 AM\t{history}\tN55689-1 N35729-0\n"
        "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0\n"
        "3\tU73700\t11/14/2019 7:01:48 AM\tN1\tN50014\n"
    )
    news = 'N55689\tsports\tfootball_nfl\tCharles "Rog" Rogers dies\tabs\turl\t[]\t[]\n'
    found, bad, _ = rows("mind", {"behaviors.tsv": log, "news.tsv": news})
    assert not bad
    assert [pick(r, "example_id", "click", "query_id") for r in found] == [
        ("1|N55689", 1, "1"), ("1|N35729", 0, "1"), ("2|N20678", 0, "2"), ("3|N50014", None, "3"),
    ]  # fmt: skip
    assert found[0]["history"] == [f"N{i}" for i in range(19, 3, -1)]
    assert found[2]["history"] == []
    assert found[3]["history"] == ["N1"]
    assert pick(found[0], "category", "title") == ("sports", 'Charles "Rog" Rogers dies')
    assert found[1]["title"] is None
    assert found[2]["event_time"] == utc(2019, 11, 12, 18, 11, 30)


def ipinyou(bid, time, kind):
    return "\t".join(
        [bid, time, kind, "35605620124122340227135", "Mozilla/5.0", "119.163.222.*", "146", "147",
         "2", "e80f4ec7f5bfbc9ca416a8c01cd1a049", "hz55b000008e5a94ac18823d6f275121", "null",
         "2147689_8764813", "300", "250", "SecondView", "Na", "0", "e39e178f",
         "753", "15", "a8be178f", "2345", "123,5678,3456"]
    )  # fmt: skip


def test_ipinyou_logs_are_joined_by_bid(rows):
    imp = ipinyou("b1", "20130606000104008", "1") + "\n" + ipinyou("b2", "x", "1") + "\n"
    click = ipinyou("b1", "20130606000204000", "2") + "\n"
    found, bad, events = rows(
        "ipinyou",
        {"imp.20130606.txt": imp, "clk.20130606.txt.bz2": bz2.compress(click.encode())},
    )
    assert found[0]["event_time"] == utc(2013, 6, 6, 0, 1, 4, 8000)
    names = ("example_id", "slot_visibility", "ad_slot_floor_price", "user_tags", "bidding_price")
    assert pick(found[0], *names) == ("b1", "SecondView", 0.0, "123,5678,3456", 753.0)
    assert found[0]["anonymous_url_id"] is None
    assert events == {"click": [("b1", 1370476924_000000)]}
    assert [row.row for row in bad] == [2]


def test_kddcup2012_counts_become_weighted_examples(rows):
    lines = ["1\t3\t429\t7686695\t385\t3\t2\t1601\t5521\t7709\t576\t490234",
             "0\t2\t429\t8\t385\t1\t1\t12\t5\t7\t6\t0",
             "4\t2\t429\t9\t385\t1\t1\t12\t5\t7\t6\t0"]  # fmt: skip
    found, bad, _ = rows("kddcup2012", {"training.txt": "\n".join(lines) + "\n"})
    assert [pick(r, "example_id", "click", "weight") for r in found] == [
        ("training.txt:1:1", 1, 1.0), ("training.txt:1:0", 0, 2.0), ("training.txt:2:0", 0, 2.0),
    ]  # fmt: skip
    assert pick(found[0], "ad_id", "query", "slot", "depth") == ("7686695", "1601", "2", "3")
    assert [(row.row, row.reason) for row in bad] == [
        (3, "weight: must be finite and not negative")
    ]


def test_movielens_with_and_without_the_films(rows):
    ratings = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,3.5,964981247\n"
    found, _, _ = rows("movielens", {"ratings.csv": ratings})
    assert [pick(r, "example_id", "like", "title") for r in found] == [
        ("1|1", 1, None), ("1|3", 0, None),
    ]  # fmt: skip
    films = 'movieId,title,genres\n1,"Toy, Story (1995)",Adventure|Animation\n'
    found, _, _ = rows("movielens", {"movies.csv": films})
    assert pick(found[0], "title", "genres") == ("Toy, Story (1995)", "Adventure|Animation")


def test_trivago_explodes_clickouts_of_the_raw_log(rows):
    text = (
        "user_id,session_id,timestamp,step,action_type,reference,platform,city,device,"
        "current_filters,impressions,prices\n"
        'U,s1,1541030578,1,interaction item image,5,AU,"Rio, Brazil",mobile,,,\n'
        'U,s1,1541030600,2,clickout item,12,AU,"Rio, Brazil",mobile,,10|12|11,90|80|70\n'
        'U,s2,1541030700,1,clickout item,,AU,"Rio, Brazil",mobile,,10|12,90|80\n'
    )
    found, bad, _ = rows("trivago", {"train.csv": text})
    assert not bad
    names = ("example_id", "impressed_item_id", "slot", "list_length", "click")
    assert [pick(r, *names) for r in found] == [
        ("s1_2|1", "10", "1", "3", 0), ("s1_2|2", "12", "2", "3", 1), ("s1_2|3", "11", "3", "3", 0),
        ("s2_1|1", "10", "1", "2", None), ("s2_1|2", "12", "2", "2", None),
    ]  # fmt: skip
    assert found[0]["query_id"] == "s1_2"


def test_yandex_relpred_has_pages_of_ranked_results(rows):
    table = pa.table(
        {
            "split": ["train", "train", "train", "test"],
            "session_index": pa.array([0, 0, 1, 0], pa.int32()),
            "query_region": ["98435_1"] * 3 + ["9_0"],
            "rank": pa.array([1, 2, 1, 1], pa.int8()),
            "url_id": pa.array([232429, 688835, 232429, 21660], pa.int64()),
            "clicked": pa.array([0, 1, 1, 0], pa.int8()),
            "n_clicks": pa.array([0, 2, 1, 0], pa.int16()),
        }
    )
    found, bad, _ = rows("yandex_relpred", {"serp_items.parquet": table})
    assert not bad
    names = ("example_id", "query_id", "url_id", "slot", "position", "click")
    assert [pick(r, *names) for r in found] == [
        ("train|0|1", "train|0", "232429", "1", 1, 0),
        ("train|0|2", "train|0", "688835", "2", 2, 1),
        ("train|1|1", "train|1", "232429", "1", 1, 1), ("test|0|1", "test|0", "21660", "1", 1, 0),
    ]  # fmt: skip
    times = [r["event_time"] for r in found]
    assert times == sorted(set(times))


def test_upworthy_counts_dates_and_tags(rows):
    text = (
        ",created_at,updated_at,clickability_test_id,excerpt,headline,lede,slug,eyecatcher_id,"
        "impressions,clicks,significance,first_place,winner,share_text,square,test_week\n"
        '11,2014-11-20,2016-04-02,t1,Short,"Big, news","<p>One\n\nmore</p>",s,e1,3052,150,100,'
        "true,true,,,201446\n"
        "12,2014-11-20,2016-04-02,t1,Short,Other,l,s,e1,10,0,0,false,false,,,201499\n"
    )
    found, bad, _ = rows("upworthy", {"upworthy-archive-exploratory.csv": text})
    assert [pick(r, "click", "weight", "headline", "query_id") for r in found] == [
        (1, 150.0, "Big, news", "t1"), (0, 2902.0, "Big, news", "t1"),
    ]  # fmt: skip
    assert found[0]["lede"] == " One\n\nmore "
    assert found[0]["event_time"] == utc(2014, 11, 19)
    assert [(row.row, row.reason) for row in bad] == [(3, "event_time missing or unreadable")]


@pytest.mark.parametrize(
    ("preset", "path", "n_rows", "n_positive"),
    [
        ("criteo_attribution_1pct", "criteo_attribution_1pct", 165_152, 59_638),
        ("trivago", "trivago_rio", 223_237, 9_114),
        ("open_bandit", "open_bandit_small", 60_000, 287),
        ("movielens", "movielens_latest_small", 100_836, 48_580),
        ("mind", "mind_subsets/behaviors_demo_last_train_day.parquet", 187_758, 7_377),
    ],
)
def test_real_logs_give_the_known_counts(shared_data, preset, path, n_rows, n_positive):
    schema, source = load_preset(preset)
    files, _ = find_files([str(shared_data / path)], source)
    reading = Reading(schema, source, (), 1 << 25)
    if source.lookups:
        tables = [SideTable(lookup, (), source) for lookup in source.lookups]
        reading = Reading(schema, source, tuple(tables), 1 << 25)
    total = positive = 0
    for piece in cut_pieces(files, source):
        for block in reading.blocks(piece):
            valid = validate_impressions(block, schema, source)
            assert not valid.bad
            total += valid.batch.num_rows
            positive += sum(valid.batch.column(schema.labels[0].name).to_pylist())
    assert (total, positive) == (n_rows, n_positive)


def test_upworthy_real_counts_keep_every_view(shared_data):
    schema, source = load_preset("upworthy")
    files, _ = find_files([str(shared_data / "upworthy_exploratory")], source)
    weights = {0: 0.0, 1: 0.0}
    for piece in cut_pieces(files, source):
        for block in Reading(schema, source, (), 1 << 25).blocks(piece):
            valid = validate_impressions(block, schema, source)
            assert not valid.bad
            for click, weight in zip(
                valid.batch.column("click").to_pylist(),
                valid.batch.column("weight").to_pylist(),
                strict=True,
            ):
                weights[click] += weight
    assert weights == {1: 1_231_208, 0: 81_024_151 - 1_231_208}
