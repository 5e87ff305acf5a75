//! `chrono`: dates, times of day, timestamps without a zone, and moments in UTC.

use ::chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike, Utc};

use crate::calendar::{Clock, Day, read_date, read_time, read_timestamp};
use crate::{Param, ToParam};

const EPOCH: NaiveDate = match NaiveDate::from_ymd_opt(1970, 1, 1) {
    Some(day) => day,
    None => NaiveDate::MIN,
};

fn date(day: Day) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(day.year, day.month.into(), day.day.into())
}

fn time(clock: Clock) -> Option<NaiveTime> {
    let Clock { hour, minute, second, micros } = clock;
    NaiveTime::from_hms_micro_opt(hour.into(), minute.into(), second.into(), micros)
}

fn timestamp(text: &str, zone: &str) -> Option<NaiveDateTime> {
    let (day, clock) = read_timestamp(text, zone)?;
    Some(date(day)?.and_time(time(clock)?))
}

fn micros(value: &NaiveTime) -> i64 {
    i64::from(value.num_seconds_from_midnight()) * 1_000_000 + i64::from(value.nanosecond() / 1000)
}

super::foreign!(NaiveDate, "date": |value| {
    let days = value.signed_duration_since(EPOCH).num_days();
    Param::Date(i32::try_from(days).unwrap_or(i32::MAX))
}, |text| date(read_date(text)?),);
super::foreign!(NaiveTime, "time of day": |value| Param::Time(micros(value)), |text| time(read_time(text)?),);
super::foreign!(NaiveDateTime, "timestamp without a zone":
    |value| Param::Timestamp(value.and_utc().timestamp_micros()), |text| timestamp(text, ""),);
super::foreign!(DateTime<Utc>, "moment (a timestamp with a zone)":
    |value| Param::TimestampTz(value.timestamp_micros()), |text| Some(timestamp(text, "Z")?.and_utc()),);

/// A moment in any other zone.
macro_rules! zoned {
    ($($zone:ty),*) => {$(
        impl ToParam for DateTime<$zone> {
            fn to_param(&self) -> Param<'_> {
                moment(self)
            }
        }
    )*};
}

zoned!(::chrono::FixedOffset);

fn moment<Z: TimeZone>(value: &DateTime<Z>) -> Param<'static> {
    Param::TimestampTz(value.timestamp_micros())
}
