//! `jiff`: civil dates, times and timestamps, and moments.

use ::jiff::civil::{Date, DateTime, Time, date as civil_date};
use ::jiff::tz::TimeZone;
use ::jiff::{Timestamp, Unit, Zoned};

use crate::calendar::{Clock, Day, read_date, read_time, read_timestamp};
use crate::{Param, ToParam};

fn date(day: Day) -> Option<Date> {
    let (month, of_month) = (i8::try_from(day.month).ok()?, i8::try_from(day.day).ok()?);
    Date::new(i16::try_from(day.year).ok()?, month, of_month).ok()
}

fn time(clock: Clock) -> Option<Time> {
    let Clock { hour, minute, second, micros } = clock;
    let [hour, minute, second] = [hour, minute, second].map(|part| i8::try_from(part).ok());
    Time::new(hour?, minute?, second?, i32::try_from(micros * 1000).ok()?).ok()
}

fn timestamp(text: &str, zone: &str) -> Option<DateTime> {
    let (day, clock) = read_timestamp(text, zone)?;
    Some(date(day)?.to_datetime(time(clock)?))
}

fn micros(moment: &Timestamp) -> i64 {
    i64::try_from(moment.as_nanosecond().div_euclid(1000)).unwrap_or(i64::MAX)
}

fn days(date: &Date) -> i32 {
    let span = date.since((Unit::Day, civil_date(1970, 1, 1)));
    span.map_or(i32::MAX, |span| span.get_days())
}

fn of_day(time: &Time) -> i64 {
    let seconds = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60;
    (seconds + i64::from(time.second())) * 1_000_000 + i64::from(time.subsec_nanosecond() / 1000)
}

super::foreign!(Date, "date": |value| Param::Date(days(value)), |text| date(read_date(text)?),);
super::foreign!(Time, "time of day": |value| Param::Time(of_day(value)), |text| time(read_time(text)?),);
super::foreign!(DateTime, "timestamp without a zone": |value| {
    let midnight = i64::from(days(&value.date())) * 86_400_000_000;
    Param::Timestamp(midnight + of_day(&value.time()))
}, |text| timestamp(text, ""),);
super::foreign!(Timestamp, "moment (a timestamp with a zone)": |value| Param::TimestampTz(micros(value)),
    |text| TimeZone::UTC.to_timestamp(timestamp(text, "Z")?).ok(),);

impl ToParam for Zoned {
    fn to_param(&self) -> Param<'_> {
        Param::TimestampTz(micros(&self.timestamp()))
    }
}
