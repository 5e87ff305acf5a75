//! Bad input gets one clear line, and nothing is half stored.

use super::{Place, arguments};
use crate::program::{printed, run};

const HEADER: &str = "departed_at,origin,destination,distance_miles,delay_minutes\n";
const GOOD: &str = "2001-01-01T00:47:00,DTW,LAS,1750,66\n";

/// The bad lines, each with what its message must say.
const BAD: [(&[u8], &str); 9] = [
    (b"2001-01-01T00:47:00,DTW,LAS,1750\n", "expected 5 fields"),
    (b"2001-01-01T00:47:00,DTW,LAS,1750,66,9\n", "found 6"),
    (
        b"2001-01-01T00:47:00,DTW,LAS,far,66\n",
        "expected distance_miles as a whole number, not negative, found \"far\"",
    ),
    (
        b"2001-01-01T00:47:00,DTW,LAS,1750,\n",
        "expected delay_minutes as a whole number, found \"\"",
    ),
    (b"2001-02-30T00:47:00,DTW,LAS,1750,66\n", "expected departed_at as YYYY-MM-DDTHH:MM:SS"),
    (b"yesterday,DTW,LAS,1750,66\n", "found \"yesterday\""),
    (b"2001-01-01T00:47:00,\xff\xfe\xfd,LAS,1750,66\n", "expected origin as UTF-8"),
    (b"2001-01-01T00:47:00,\"DTW,LAS,1750,66\n", "expected origin as an airport code"),
    (b"2001-01-01T00:47:00,\"DTW, LAS\",1750,66\n", "expected origin as an airport code"),
];

#[test]
fn a_bad_line_is_named_and_nothing_is_stored() {
    for (line, reason) in BAD {
        let place = Place::new();
        let content = [HEADER.as_bytes(), GOOD.as_bytes(), line, GOOD.as_bytes()].concat();
        let input = place.write("bad.csv", content);
        let data = place.path("data");
        let output = run("flights", arguments(&[("input", &input), ("data-dir", &data)]));
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("line 3: ") && text.contains(reason), "{reason}: {text}");
        let complaint: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(complaint.len(), 1, "{text}");
        let stored = std::fs::read_dir(&data).map(Iterator::count).unwrap_or_default();
        assert_eq!(stored, 0, "something was stored for {reason}");
    }
}

#[test]
fn line_numbers_are_those_an_editor_shows() {
    for (good_end, bad_end, number) in [("\r\n", "\r\n", 3), ("\n\n\r\n", "\n", 7), ("\n", "", 3)] {
        let place = Place::new();
        let content = [HEADER.trim_end(), GOOD.trim_end(), "x,y"].join(good_end) + bad_end;
        let input = place.write("bad.csv", &content);
        let output = run("flights", arguments(&[("input", &input)]));
        let line = format!("line {number}: ");
        assert!(printed(&output).contains(&line), "{content:?}: {}", printed(&output));
    }
}

#[test]
fn other_programs_ways_to_write_a_file_are_read_too() {
    let ways: [fn(&str) -> String; 6] = [
        |text| text.replace('\n', "\r\n"),
        |text| format!("\u{feff}{text}"),
        |text| text.trim_end().to_owned(),
        |text| text.replace('\n', "\n\n"),
        |text| text.replace(',', " ,\t").replace('\n', "  \n"),
        |text| format!("\"{}\"\n", text.trim_end().replace(',', "\",\"").replace('\n', "\"\n\"")),
    ];
    for way in ways {
        let place = Place::new();
        let text = way(&format!("{HEADER}{GOOD}2001-01-01T00:48:00,DTW,LAS,1750,-6\n"));
        let input = place.write("other.csv", &text);
        let summary = place.path("summary.json");
        let output = run("flights", arguments(&[("input", &input), ("summary", &summary)]));
        assert!(output.status.success(), "{text:?}: {}", printed(&output));
        let summary = place.summary();
        assert_eq!(summary["by_airport"]["DTW"]["flights"], 2, "{text:?}");
        assert_eq!(summary["total_delay_minutes"], 60, "{text:?}");
    }
}

#[test]
fn of_a_line_without_end_only_the_beginning_is_held() {
    const KEPT: usize = 1 << 20;
    for (length, end) in [(KEPT + 1, "\n"), (3 * KEPT, "\n"), (3 * KEPT, "")] {
        let place = Place::new();
        let content = [HEADER, GOOD, &"x".repeat(length), end].concat();
        let input = place.write("long.csv", content + if end.is_empty() { "" } else { GOOD });
        let mut arguments =
            arguments(&[("input", &input), ("summary", &place.path("summary.json"))]);
        arguments.push("--skip-bad-rows".into());
        let output = run("flights", arguments);
        assert!(output.status.success(), "{}", printed(&output));
        assert_eq!(place.summary()["flights"], 2 - usize::from(end.is_empty()));
        let rejected = std::fs::read_to_string(place.path("long.csv.rejected")).expect("a file");
        assert!(
            rejected.starts_with("line 3: expected at most 1048576 bytes"),
            "{}",
            &rejected[..99]
        );
        let kept = rejected.trim_end().bytes().rev().take_while(|byte| *byte == b'x').count();
        assert_eq!(kept, KEPT);
    }
}

#[test]
fn with_skip_bad_rows_good_ones_are_stored_and_bad_ones_kept() {
    let place = Place::new();
    let mut content = HEADER.as_bytes().to_vec();
    for (line, _) in BAD {
        content.extend_from_slice(GOOD.as_bytes());
        content.extend_from_slice(line);
    }
    let input = place.write("mixed.csv", content);
    let mut arguments = arguments(&[("input", &input), ("summary", &place.path("summary.json"))]);
    arguments.push("--skip-bad-rows".into());
    let output = run("flights", arguments);
    assert!(output.status.success(), "{}", printed(&output));
    let summary = place.summary();
    assert_eq!((&summary["flights"], &summary["rejected"]), (&BAD.len().into(), &BAD.len().into()));
    assert_eq!(summary["total_delay_minutes"], 66 * BAD.len());
    let rejected = std::fs::read(place.path("mixed.csv.rejected")).expect("the rejected lines");
    let rejected: Vec<&[u8]> = rejected.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(rejected.len(), BAD.len());
    for (index, ((line, reason), kept)) in BAD.iter().zip(&rejected).enumerate() {
        let text = String::from_utf8_lossy(kept);
        assert!(
            text.starts_with(&format!("line {}: ", 3 + 2 * index)) && text.contains(reason),
            "{text}"
        );
        assert!(kept.ends_with(line), "the bytes are kept: {text}");
    }
    assert!(printed(&output).contains("mixed.csv.rejected"), "{}", printed(&output));
}

#[test]
fn a_wrong_header_or_no_file_is_said_in_one_line() {
    let place = Place::new();
    let wrong = place.write("wrong.csv", "when,from,to\n1,2,3\n");
    let empty = place.write("empty.csv", "");
    let cases = [
        (
            wrong,
            "line 1: wrong header: expected departed_at,origin,destination,distance_miles,delay_minutes",
        ),
        (empty, "line 1: wrong header"),
        (place.path("absent.csv"), "cannot read"),
        (place.0.path().to_owned(), "it is a folder"),
    ];
    for (input, reason) in cases {
        let output = run("flights", arguments(&[("input", &input)]));
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        assert!(printed(&output).contains(reason), "{reason}: {}", printed(&output));
    }
}
