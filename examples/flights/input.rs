//! Reading the CSV: one flight a line, checked field by field.
//!
//! One line is one row, so that a stray quote spoils its own line only and a line's number is the one an editor shows;
//! quotes and blanks around a field are taken off. Empty lines are passed over. Every bad line is known by its number,
//! its reason and its bytes. (The `csv` crate was tried: with CRLF its line numbers are one too low, and it has no bound
//! on the length of a line.)

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use resonant_common::hash::key_hash;

use crate::failure::Failure;
use crate::flight::{Flight, Totals};

const HEADER: [&str; 5] =
    ["departed_at", "origin", "destination", "distance_miles", "delay_minutes"];

/// The bytes kept of a line. What is longer is no flight, and must not fill the memory.
const LONGEST: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
    reader: BufReader<File>,
    /// The line without its end.
    line: Vec<u8>,
    /// Whether the file's line is longer than what is kept of it.
    cut: bool,
    number: u64,
    read: u64,
}

impl Lines {
    /// Opens the file and checks its header.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Failure::Input(format!("cannot read {}: {why}", path.display()))
        };
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        let kind = file.metadata().map_err(|error| unreadable(&error))?.file_type();
        if kind.is_dir() {
            return Err(unreadable(&"it is a folder; give a CSV file"));
        }
        if !kind.is_file() {
            return Err(unreadable(&"it is read twice, so it must be a file on disk"));
        }
        let reader = BufReader::with_capacity(1 << 16, file);
        let path = path.to_owned();
        let mut lines = Self { path, reader, line: Vec::new(), cut: false, number: 0, read: 0 };
        let found = lines.advance()?;
        if found && fields(&lines.line).eq(HEADER.iter().map(|name| name.as_bytes())) {
            return Ok(lines);
        }
        Err(Failure::Input(format!(
            "{}, line {}: wrong header: expected {}, found {}",
            lines.path.display(),
            lines.number.max(1),
            HEADER.join(","),
            shown(&lines.line),
        )))
    }

    /// The next line that is not empty, or `None` at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, Failure> {
        if !self.advance()? {
            return Ok(None);
        }
        let parsed = if self.cut {
            Err(format!("expected at most {LONGEST} bytes, found more; only these are kept"))
        } else {
            parse(&self.line)
        };
        Ok(Some(match parsed {
            Ok(fields) => Line::Good(fields),
            Err(reason) => Line::Bad { number: self.number, reason, bytes: self.line.clone() },
        }))
    }

    /// The bytes of the file read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read
    }

    fn advance(&mut self) -> Result<bool, Failure> {
        loop {
            let more = self.read_line().map_err(|error| {
                Failure::Input(format!("cannot read {}: {error}", self.path.display()))
            })?;
            if !more || !self.line.is_empty() {
                return Ok(more);
            }
        }
    }

    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let mut bounded = (&mut self.reader).take(LONGEST as u64 + 1);
        let mut read = bounded.read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.cut = self.line.len() > LONGEST && self.line.pop_if(|byte| *byte != b'\n').is_some();
        if self.cut {
            read += self.reader.skip_until(b'\n')?;
        } else if self.line.pop_if(|byte| *byte == b'\n').is_some() {
            self.line.pop_if(|byte| *byte == b'\r');
        }
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        self.read += read as u64;
        Ok(true)
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
        survey.fingerprint = survey.fingerprint.rotate_left(1).wrapping_add(key_hash(&lines.line));
        if (survey.flights + survey.rejected).is_multiple_of(4096) {
            progress(lines.bytes_read());
        }
    }
}

fn parse(line: &[u8]) -> Result<Fields<'_>, String> {
    let mut found = fields(line);
    let mut row = [&[] as &[u8]; HEADER.len()];
    for (index, field) in row.iter_mut().enumerate() {
        *field = found.next().ok_or_else(|| miscounted(index))?;
    }
    let more = found.count();
    if more > 0 {
        return Err(miscounted(HEADER.len() + more));
    }
    let departed_at = text(&row, 0)?;
    if !is_timestamp(departed_at) {
        return Err(format!(
            "expected {} as YYYY-MM-DDTHH:MM:SS, found {}",
            HEADER[0],
            shown(departed_at.as_bytes())
        ));
    }
    Ok(Fields {
        departed_at,
        origin: airport(&row, 1)?,
        destination: airport(&row, 2)?,
        distance_miles: number(&row, 3)?,
        delay_minutes: number(&row, 4)?,
    })
}

type Row<'a> = [&'a [u8]; HEADER.len()];

/// The fields of a line, without blanks and quotes around them.
fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(|field| {
        let field = field.trim_ascii();
        field.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(field)
    })
}

fn miscounted(found: usize) -> String {
    format!("expected {} fields ({}), found {found}", HEADER.len(), HEADER.join(","))
}

fn text<'a>(row: &Row<'a>, field: usize) -> Result<&'a str, String> {
    std::str::from_utf8(row[field])
        .map_err(|_| format!("expected {} as UTF-8 text, found other bytes", HEADER[field]))
}

fn airport<'a>(row: &Row<'a>, field: usize) -> Result<&'a str, String> {
    let code = text(row, field)?;
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

fn number<T: std::str::FromStr>(row: &Row<'_>, field: usize) -> Result<T, String> {
    let digits = text(row, field)?;
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

/// A short quotation of untrusted bytes for a message of one line.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 100;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MOST + 4)]);
    let short: String = text.chars().take(MOST).collect();
    format!("{short:?}{}", if text.chars().count() > MOST { "…" } else { "" })
}
