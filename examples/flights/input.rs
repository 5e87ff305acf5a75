//! Reading the CSV: one flight a line, checked field by field.
//!
//! Quoting is off, so that one line is one row and a stray quote spoils its own line only; quotes around a field are
//! taken off here. Every bad line is known by its number, its reason and its bytes.

use std::fs::File;
use std::path::{Path, PathBuf};

use resonant_common::hash::key_hash;

use crate::failure::Failure;
use crate::flight::{Flight, Totals};

const HEADER: [&str; 5] =
    ["departed_at", "origin", "destination", "distance_miles", "delay_minutes"];

/// The fields of a good line, still borrowed from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) departed_at: &'a str,
    pub(crate) origin: &'a str,
    pub(crate) destination: &'a str,
    pub(crate) distance_miles: u32,
    pub(crate) delay_minutes: i32,
}

impl Fields<'_> {
    /// The flight with its number among the good lines.
    pub(crate) fn to_flight(self, number: u64) -> Flight {
        Flight {
            number,
            departed_at: self.departed_at.to_owned(),
            origin: self.origin.to_owned(),
            destination: self.destination.to_owned(),
            distance_miles: self.distance_miles,
            delay_minutes: self.delay_minutes,
        }
    }
}

/// A line of the input.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    Good(Fields<'a>),
    Bad { number: u64, reason: String, bytes: Vec<u8> },
}

/// What a complete pass over the input found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Good lines.
    pub(crate) flights: u64,
    /// Bad lines.
    pub(crate) rejected: u64,
    /// The sums the stored flights must have.
    pub(crate) totals: Totals,
    /// Changes when any line changes.
    pub(crate) fingerprint: u64,
}

/// The lines of a file, one at a time, in constant memory.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    reader: csv::Reader<File>,
    record: csv::ByteRecord,
}

impl Lines {
    /// Opens the file and checks its header.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Failure::Input(format!("cannot read {}: {why}", path.display()))
        };
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(unreadable(&"it is a folder; give a CSV file"));
        }
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .quoting(false)
            .buffer_capacity(1 << 16)
            .from_reader(file);
        let mut lines = Self { path: path.to_owned(), reader, record: csv::ByteRecord::new() };
        let header = lines.advance()?
            && lines.record.iter().map(unquoted).eq(HEADER.iter().map(|name| name.as_bytes()));
        if header {
            Ok(lines)
        } else {
            Err(Failure::Input(format!(
                "{}, line 1: wrong header: expected {}, found {}",
                path.display(),
                HEADER.join(","),
                shown(&joined(&lines.record)),
            )))
        }
    }

    /// The next line, or `None` at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, Failure> {
        if !self.advance()? {
            return Ok(None);
        }
        Ok(Some(match parse(&self.record) {
            Ok(fields) => Line::Good(fields),
            Err(reason) => {
                Line::Bad { number: self.line_number(), reason, bytes: joined(&self.record) }
            }
        }))
    }

    /// The bytes of the file read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.reader.position().byte()
    }

    fn advance(&mut self) -> Result<bool, Failure> {
        self.reader.read_byte_record(&mut self.record).map_err(|error| {
            Failure::Input(format!("cannot read {}: {error}", self.path.display()))
        })
    }

    fn line_number(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }
}

/// Reads the whole file once: counts, sums and fingerprint of the good lines. Each bad line goes to `bad`, which says
/// whether to go on.
pub(crate) fn survey(
    path: &Path,
    mut bad: impl FnMut(u64, &str, &[u8]) -> Result<(), Failure>,
    mut progress: impl FnMut(u64),
) -> Result<Survey, Failure> {
    let mut lines = Lines::open(path)?;
    let mut survey = Survey::default();
    loop {
        match lines.next()? {
            Some(Line::Good(fields)) => {
                survey.flights += 1;
                survey.totals.add(
                    fields.origin,
                    1,
                    i64::from(fields.delay_minutes),
                    u64::from(fields.distance_miles),
                );
            }
            Some(Line::Bad { number, reason, bytes }) => {
                survey.rejected += 1;
                bad(number, &reason, &bytes)?;
            }
            None => return Ok(survey),
        }
        survey.fingerprint =
            survey.fingerprint.rotate_left(1).wrapping_add(key_hash(lines.record.as_slice()));
        if (survey.flights + survey.rejected).is_multiple_of(4096) {
            progress(lines.bytes_read());
        }
    }
}

fn parse(record: &csv::ByteRecord) -> Result<Fields<'_>, String> {
    if record.len() != HEADER.len() {
        return Err(format!(
            "expected {} fields ({}), found {}",
            HEADER.len(),
            HEADER.join(","),
            record.len()
        ));
    }
    let departed_at = text(record, 0)?;
    if !is_timestamp(departed_at) {
        return Err(format!(
            "expected {} as YYYY-MM-DDTHH:MM:SS, found {}",
            HEADER[0],
            shown(departed_at.as_bytes())
        ));
    }
    Ok(Fields {
        departed_at,
        origin: airport(record, 1)?,
        destination: airport(record, 2)?,
        distance_miles: number(record, 3)?,
        delay_minutes: number(record, 4)?,
    })
}

fn text(record: &csv::ByteRecord, field: usize) -> Result<&str, String> {
    let bytes = unquoted(&record[field]);
    std::str::from_utf8(bytes)
        .map_err(|_| format!("expected {} as UTF-8 text, found other bytes", HEADER[field]))
}

fn airport(record: &csv::ByteRecord, field: usize) -> Result<&str, String> {
    let code = text(record, field)?;
    let plausible = (3..=4).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if plausible {
        Ok(code)
    } else {
        Err(format!(
            "expected {} as an airport code such as DFW, found {}",
            HEADER[field],
            shown(code.as_bytes())
        ))
    }
}

fn number<T: std::str::FromStr>(record: &csv::ByteRecord, field: usize) -> Result<T, String> {
    let digits = text(record, field)?;
    digits.parse().map_err(|_| {
        let sign = if HEADER[field] == "distance_miles" {
            "a whole number, not negative"
        } else {
            "a whole number"
        };
        format!("expected {} as {sign}, found {}", HEADER[field], shown(digits.as_bytes()))
    })
}

fn is_timestamp(text: &str) -> bool {
    text.len() == 19 && text.as_bytes()[10] == b'T' && text.parse::<jiff::civil::DateTime>().is_ok()
}

fn unquoted(field: &[u8]) -> &[u8] {
    field.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(field)
}

fn joined(record: &csv::ByteRecord) -> Vec<u8> {
    record.iter().collect::<Vec<_>>().join(&b',')
}

/// A short quotation of untrusted bytes for a message of one line.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 60;
    let text = String::from_utf8_lossy(bytes);
    let short: String = text.chars().take(MOST).collect();
    format!("{short:?}{}", if text.chars().count() > MOST { "…" } else { "" })
}
