"""Times: read at full resolution and ordered alike from every source, or refused with their place."""

from __future__ import annotations

import datetime
import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfvae.data.interactions import Interactions
from tfvae.data.splits import LeaveOneOutSettings, leave_one_out
from tfvae.system.errors import InputError


def as_csv(folder, times):
    frame = pd.DataFrame({"user": 7, "item": range(len(times)), "when": times})
    frame.to_csv(folder / "events.csv", index=False)
    return Interactions.from_csv(folder / "events.csv", timestamp="when")


def as_parquet(folder, times):
    table = pa.table({"user": [7] * len(times), "item": range(len(times)), "when": pa.array(times)})
    pq.write_table(table, folder / "events.parquet")
    return Interactions.from_parquet(folder / "events.parquet", timestamp="when")


def as_frame(folder, times):
    frame = pd.DataFrame({"user": 7, "item": range(len(times)), "when": times})
    return Interactions.from_frame(frame, timestamp="when")


def as_array(folder, times):
    return Interactions.from_events([7] * len(times), range(len(times)), timestamps=times)


every_source = pytest.mark.parametrize("source", [as_csv, as_parquet, as_frame, as_array])
MIDNIGHT = 1_764_374_400  # 2025-11-29, UTC


def read(found: Interactions) -> list[tuple[int, int]]:
    beyond = np.zeros(found.n_events, int) if found.nanoseconds is None else found.nanoseconds
    return list(zip(found.timestamps.tolist(), beyond.tolist(), strict=True))


@every_source
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (np.array([5, -7, 0]), [(5, 0), (-7, 0), (0, 0)]),
        (np.array([5, 7], np.uint64), [(5, 0), (7, 0)]),
        (np.array([5, 7], np.int8), [(5, 0), (7, 0)]),
        (np.array([2**62, -(2**62)]), [(2**62, 0), (-(2**62), 0)]),
        (np.array([0.25, -0.25, 3.0]), [(0, 250_000_000), (-1, 750_000_000), (3, 0)]),
        (["2025-11-29", "2025-11-29T00:00:01Z"], [(MIDNIGHT, 0), (MIDNIGHT + 1, 0)]),
        (["2025-11-29T01:00:00.1+01:00", "2025-11-29 00:00:00.000000001"], [(MIDNIGHT, 100_000_000), (MIDNIGHT, 1)]),
        (["1969-12-31T23:59:59.9", "1970-01-01"], [(-1, 900_000_000), (0, 0)]),
    ],
)
def test_times_are_what_was_written(times, expected, source, tmp_path):
    assert read(source(tmp_path, times)) == expected


@every_source
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetimes_keep_their_resolution(unit, source, tmp_path):
    times = np.array(["2025-11-29T00:00:00", "1969-12-31T23:59:59"], "datetime64[s]").astype(f"datetime64[{unit}]")
    times = times + np.array([0, unit != "s"], f"timedelta64[{unit}]")
    least = {"s": 0, "ms": 1_000_000, "us": 1_000, "ns": 1}[unit]
    assert read(source(tmp_path, times)) == [(MIDNIGHT, 0), (-1, least)]


@pytest.mark.parametrize("source", [as_csv, as_parquet, as_frame])
def test_zoned_datetimes_are_moments(source, tmp_path):
    times = pd.Series(pd.to_datetime(["2025-11-29 01:00", "2025-11-29 02:00"])).dt.tz_localize("Europe/Berlin")
    assert read(source(tmp_path, times)) == [(MIDNIGHT, 0), (MIDNIGHT + 3600, 0)]


@pytest.mark.parametrize("source", [as_parquet, as_frame, as_array])
def test_dates_are_midnights(source, tmp_path):
    assert read(source(tmp_path, [datetime.date(2025, 11, 29), datetime.date(1970, 1, 1)])) == [(MIDNIGHT, 0), (0, 0)]


@every_source
@pytest.mark.parametrize(
    "bad",
    [
        np.array([1.0, np.inf]),
        np.array([1.0, np.nan]),
        np.array([1.0, 1e30]),
        np.array([1, 2**63], np.uint64),
        ["2025-11-29", "29.11.2025"],
        ["2025-11-29", "soon"],
        ["2025-11-29", "2025-13-01"],
        ["5", "0x102"],
        ["5", ""],
        [None, "2025-11-29"],
        [True, False],
    ],
)
def test_what_is_no_time_is_refused_with_its_place(bad, source, tmp_path):
    with pytest.raises(InputError, match="line [23]|event [12]"):
        source(tmp_path, bad)


@pytest.mark.parametrize("bad", [[1, "2025-11-29"], [datetime.timedelta(1)], [(1,)]])
def test_columns_of_other_things_are_refused(bad):
    with pytest.raises(InputError, match="event [12]"):
        Interactions.from_events(range(len(bad)), range(len(bad)), timestamps=pd.Series(bad, dtype=object))


# ---- what comes of them ----------------------------------------------------------------------------


def a_log(step: float, order: str) -> pd.DataFrame:
    """30 users of 6 items each, an event every `step` seconds; the value is 1 for the latest event of its pair."""
    rows = [(user, item, MIDNIGHT + step * (10 * user + item), 0) for user in range(30) for item in range(6)]
    # Each user comes back to item 2 at the very end.
    rows += [(user, 2, MIDNIGHT + step * (10 * user + 9), 1) for user in range(30)]
    # Half of them know one item more, which the others can be asked about as a negative, and they another.
    rows += [(user, 6 + user % 2, MIDNIGHT - step, 0) for user in range(30)]
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "value"])
    if order == "newest first":
        return frame.sort_values("time", ascending=False)
    return frame.sample(frac=1, random_state=1) if order == "shuffled" else frame.sort_values("time")


@pytest.mark.parametrize("step", [86_400, 1, 0.1])
@pytest.mark.parametrize("order", ["oldest first", "newest first", "shuffled"])
def test_the_latest_event_is_the_latest_in_time_whatever_the_order_of_the_data(order, step):
    found = Interactions.from_frame(a_log(step, order), rating="value", timestamp="time")
    assert found.n_events == 210
    assert (found.values[found.items == 2] == 1).all()
    assert held_out(found) == [2] * 30
    first = Interactions.from_frame(a_log(step, order), rating="value", timestamp="time", duplicates="first")
    assert held_out(first) == [5] * 30


def held_out(found: Interactions) -> list[int]:
    """The item of each user that is held out."""
    split = leave_one_out(found, LeaveOneOutSettings(n_negatives=1))
    return split.item_ids[split.test.items].tolist()


def test_ties_in_time_say_what_was_done(caplog):
    with caplog.at_level(logging.WARNING):
        found = Interactions.from_events([1, 1, 1], [5, 5, 6], values=[1, 2, 3], timestamps=[9, 9, 9])
    assert found.values.tolist() == [2, 3]
    assert "1 of them have the same time, where the order of the data decides" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        split = leave_one_out(
            Interactions.from_events([1, 1, 2, 2, 2], [5, 6, 7, 8, 5], timestamps=[9, 9, 1, 2, 3]),
            LeaveOneOutSettings(n_negatives=1),
        )
    assert split.item_ids[split.test.items].tolist() == [6, 5]
    assert "1 users have several events at their latest time" in caplog.text


events = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(-3, 3)), min_size=1, max_size=30)


@given(events, st.sampled_from(["last", "first"]))
def test_of_any_repeated_events_the_one_kept_is_that_of_a_plain_loop(rows, policy):
    users, items, times = zip(*rows, strict=True)
    found = Interactions.from_events(users, items, range(len(rows)), np.array(times) / 4, duplicates=policy)
    kept: dict = {}
    for number, (user, item, time) in enumerate(rows):
        before = kept.get((user, item))
        if before is None or (time >= rows[before][2] if policy == "last" else time < rows[before][2]):
            kept[user, item] = number
    assert sorted(found.values.astype(int).tolist()) == sorted(kept.values())


def test_saved_times_come_back(tmp_path):
    found = Interactions.from_events([1, 2], [3, 4], timestamps=[0.5, 1.0])
    found.save(tmp_path / "events.npz")
    again = Interactions.load(tmp_path / "events.npz")
    assert read(again) == [(0, 500_000_000), (1, 0)] and again.digest == found.digest


@pytest.mark.parametrize(
    ("text", "seconds", "beyond"),
    [
        ("1700000000.123456789", 1_700_000_000, 123_456_789),
        ("1700000000.1234567899", 1_700_000_000, 123_456_789),
        ("1700000000.5", 1_700_000_000, 500_000_000),
        ("+7.", 7, 0),
        ("-0.25", -1, 750_000_000),
        ("-2", -2, 0),
        ("-3.000000001", -4, 999_999_999),
    ],
)
def test_decimal_text_is_exact_to_the_nanosecond_and_rounded_down(text, seconds, beyond):
    found = Interactions.from_events([1, 1], [1, 2], timestamps=[text, "1.5"])
    assert (found.timestamps[0], found.nanoseconds[0]) == (seconds, beyond)
