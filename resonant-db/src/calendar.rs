//! Dates and times as text and back: counted from the start of the year 2000, in days and microseconds.

use std::fmt::Write as _;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// From 0000-03-01, where a year of this reckoning begins, to 2000-01-01.
const DAYS_TO_2000: i64 = 730_425;

/// A date; the ends of the scale are infinite.
pub(crate) fn date(days: i32, out: &mut String) {
    match days {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        days => {
            let era = calendar(i64::from(days), out);
            out.push_str(era);
        }
    }
}

/// A timestamp with what says its zone.
pub(crate) fn timestamp(micros: i64, zone: &str, out: &mut String) {
    match micros {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        micros => {
            let era = calendar(micros.div_euclid(MICROS_PER_DAY), out);
            out.push('T');
            time(micros.rem_euclid(MICROS_PER_DAY), out);
            out.push_str(zone);
            out.push_str(era);
        }
    }
}

/// A time of day.
pub(crate) fn time(micros: i64, out: &mut String) {
    let (seconds, fraction) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    fraction_of(fraction, out);
}

/// A time of day with its zone, given in seconds west of Greenwich.
pub(crate) fn time_with_zone(micros: i64, west: i32, out: &mut String) {
    time(micros, out);
    let (sign, offset) =
        if west > 0 { ('-', west.unsigned_abs()) } else { ('+', west.unsigned_abs()) };
    let _ = write!(out, "{sign}{:02}:{:02}", offset / 3600, offset / 60 % 60);
    if offset % 60 != 0 {
        let _ = write!(out, ":{:02}", offset % 60);
    }
}

/// An interval as ISO 8601 has it: `P1Y2M3DT4H5M6.7S`. Each part has its own sign.
pub(crate) fn interval(micros: i64, days: i32, months: i32, out: &mut String) {
    if (micros, days, months) == (0, 0, 0) {
        out.push_str("PT0S");
        return;
    }
    out.push('P');
    for (count, unit) in [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')] {
        if count != 0 {
            let _ = write!(out, "{count}{unit}");
        }
    }
    if micros != 0 {
        out.push('T');
        let seconds = micros / MICROS_PER_SECOND;
        for (count, unit) in [(seconds / 3600, 'H'), (seconds / 60 % 60, 'M')] {
            if count != 0 {
                let _ = write!(out, "{count}{unit}");
            }
        }
        let rest = micros % (60 * MICROS_PER_SECOND);
        if rest != 0 {
            let sign = if rest < 0 { "-" } else { "" };
            let rest = rest.unsigned_abs();
            let _ = write!(out, "{sign}{}", rest / MICROS_PER_SECOND.unsigned_abs());
            fraction_of((rest % MICROS_PER_SECOND.unsigned_abs()) as i64, out);
            out.push('S');
        }
    }
}

fn fraction_of(micros: i64, out: &mut String) {
    if micros != 0 {
        let digits = format!("{micros:06}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}

/// Writes a day as `YYYY-MM-DD` and answers what must stand at the end: years before the first are counted backwards.
fn calendar(days: i64, out: &mut String) -> &'static str {
    // Years that begin in March have their odd day at the end, in 400-year cycles of 146,097 days.
    let days = days + DAYS_TO_2000;
    let (cycle, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..=9 => (year + cycle * 400, month + 3),
        _ => (year + cycle * 400 + 1, month - 9),
    };
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    era
}

/// A day, read from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day {
    /// The year before the first is 0.
    pub(crate) year: i32,
    pub(crate) month: u8,
    pub(crate) day: u8,
}

/// A time of day, read from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    pub(crate) micros: u32,
}

/// Reads `2024-02-29` or `0044-03-15 BC`.
pub(crate) fn read_date(text: &str) -> Option<Day> {
    let (text, bc) = era(text);
    let mut parts = text.splitn(3, '-');
    let year: i32 = digits(parts.next()?, 4)?.try_into().ok()?;
    let month = u8::try_from(digits(parts.next()?, 2)?).ok()?;
    let day = u8::try_from(digits(parts.next()?, 2)?).ok()?;
    Some(Day { year: if bc { 1 - year } else { year }, month, day })
}

/// Reads `23:59:59.000001`, also of the 24th hour and the 60th second, which no clock has.
pub(crate) fn read_time(text: &str) -> Option<Clock> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = whole.splitn(3, ':');
    let mut part = || u8::try_from(digits(parts.next()?, 2)?).ok();
    let (hour, minute, second) = (part()?, part()?, part()?);
    if fraction.is_empty() || fraction.len() > 6 {
        return None;
    }
    let micros = digits(fraction, 1)? * 10_u32.pow(6 - u32::try_from(fraction.len()).ok()?);
    Some(Clock { hour, minute, second, micros })
}

/// Reads `2024-02-29T12:34:56.789`, with a blank for the `T` too, followed by what says the zone.
pub(crate) fn read_timestamp(text: &str, zone: &str) -> Option<(Day, Clock)> {
    let (text, bc) = era(text);
    let (date, time) = text.strip_suffix(zone)?.split_once(['T', ' '])?;
    let day = read_date(date)?;
    let year = if bc { 1 - day.year } else { day.year };
    Some((Day { year, ..day }, read_time(time)?))
}

fn era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

/// At least so many digits, and nothing else.
fn digits(text: &str, least: usize) -> Option<u32> {
    let plain = text.len() >= least && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn days_become_dates() {
        for (days, expected) in [
            (0, "2000-01-01"),
            (59, "2000-02-29"),
            (60, "2000-03-01"),
            (-1, "1999-12-31"),
            (8823, "2024-02-27"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (i32::MAX, "infinity"),
        ] {
            assert_eq!(shown(|out| date(days, out)), expected);
        }
    }

    #[test]
    fn moments_show_their_microseconds() {
        assert_eq!(shown(|out| timestamp(-1, "Z", out)), "1999-12-31T23:59:59.999999Z");
        assert_eq!(shown(|out| timestamp(500_000, "", out)), "2000-01-01T00:00:00.5");
        assert_eq!(shown(|out| timestamp(i64::MIN, "Z", out)), "-infinity");
        assert_eq!(shown(|out| time_with_zone(0, -3600, out)), "00:00:00+01:00");
        assert_eq!(shown(|out| time_with_zone(0, 12_600, out)), "00:00:00-03:30");
    }

    #[test]
    fn intervals_keep_the_sign_of_each_part() {
        assert_eq!(shown(|out| interval(0, 0, 0, out)), "PT0S");
        assert_eq!(shown(|out| interval(3_723_500_000, 4, 14, out)), "P1Y2M4DT1H2M3.5S");
        assert_eq!(shown(|out| interval(-500_000, -1, 0, out)), "P-1DT-0.5S");
    }

    #[test]
    fn what_is_written_is_read_again() {
        for days in [0, 59, -730_119, -730_120, 8823, 3_000_000, -800_000] {
            let text = shown(|out| date(days, out));
            let Day { year, month, day } = read_date(&text).expect("a date");
            let (shown_year, bc) = if year > 0 { (year, "") } else { (1 - year, " BC") };
            assert_eq!(text, format!("{shown_year:04}-{month:02}-{day:02}{bc}"));
        }
        let text = shown(|out| timestamp(-1, "Z", out));
        let clock = Clock { hour: 23, minute: 59, second: 59, micros: 999_999 };
        let day = Day { year: 1999, month: 12, day: 31 };
        assert_eq!(read_timestamp(&text, "Z"), Some((day, clock)));
        assert_eq!(read_timestamp(&text, ""), None, "its zone is not overlooked");
        assert_eq!(read_time("01:02:03.5").map(|clock| clock.micros), Some(500_000));
        let early = shown(|out| timestamp(-64_000_000_000_000_000, "Z", out));
        assert!(early.ends_with(" BC") && read_timestamp(&early, "Z").is_some(), "{early}");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["infinity", "-infinity", "", "2024-1-1", "+2024-01-01", "2024-01", "x-01-01"] {
            assert_eq!(read_date(text), None, "{text}");
        }
        for text in ["", "1:2:3", "01:02", "01:02:03.", "01:02:03.1234567", "01:02:03+01"] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }
}
