//! `time`: dates, times of day, timestamps without a zone, and moments.

use ::time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

use crate::Param;
use crate::calendar::{Clock, Day, read_date, read_time, read_timestamp};

/// The first day of 1970, as `time` counts.
const EPOCH: i32 = 2_440_588;

fn date(day: Day) -> Option<Date> {
    Date::from_calendar_date(day.year, Month::try_from(day.month).ok()?, day.day).ok()
}

fn time(clock: Clock) -> Option<Time> {
    Time::from_hms_micro(clock.hour, clock.minute, clock.second, clock.micros).ok()
}

fn timestamp(text: &str, zone: &str) -> Option<PrimitiveDateTime> {
    let (day, clock) = read_timestamp(text, zone)?;
    Some(PrimitiveDateTime::new(date(day)?, time(clock)?))
}

/// Years have four digits at most here, so that it fits.
fn micros(moment: OffsetDateTime) -> i64 {
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}

super::foreign!(Date, "date": |value| Param::Date(value.to_julian_day() - EPOCH), |text| date(read_date(text)?),);
super::foreign!(Time, "time of day": |value| {
    let (hour, minute, second, micro) = value.as_hms_micro();
    let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    Param::Time(seconds * 1_000_000 + i64::from(micro))
}, |text| time(read_time(text)?),);
super::foreign!(PrimitiveDateTime, "timestamp without a zone":
    |value| Param::Timestamp(micros(value.assume_utc())), |text| timestamp(text, ""),);
super::foreign!(OffsetDateTime, "moment (a timestamp with a zone)":
    |value| Param::TimestampTz(micros(*value)), |text| Some(timestamp(text, "Z")?.assume_utc()),);
