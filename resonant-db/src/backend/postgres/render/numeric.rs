//! Decimal numbers: groups of four digits, with the place of the first.

use super::{Bytes, Fault};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Writes a `numeric` with all its digits.
pub(in crate::backend::postgres) fn numeric_of(raw: &[u8], out: &mut String) -> Result<(), Fault> {
    numeric(&mut Bytes(raw), out)
}

pub(super) fn numeric(bytes: &mut Bytes<'_>, out: &mut String) -> Result<(), Fault> {
    let count = usize::from(bytes.u16()?);
    let weight = i32::from(bytes.i16()?);
    let sign = bytes.u16()?;
    let scale = usize::from(bytes.u16()?);
    match sign {
        NAN => {
            out.push_str("NaN");
            return Ok(());
        }
        INFINITY => {
            out.push_str("Infinity");
            return Ok(());
        }
        NEGATIVE_INFINITY => {
            out.push_str("-Infinity");
            return Ok(());
        }
        NEGATIVE => out.push('-'),
        _ => {}
    }
    let groups = bytes.take(count * 2)?;
    let group = |place: i32| -> u16 {
        usize::try_from(place)
            .ok()
            .and_then(|place| groups.get(place * 2..place * 2 + 2))
            .map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
    };
    if weight < 0 {
        out.push('0');
    } else {
        super::write(out, group(0));
        for place in 1..=weight {
            out.push_str(&format!("{:04}", group(place)));
        }
    }
    if scale > 0 {
        out.push('.');
        let end = out.len() + scale;
        let mut place = weight + 1;
        while out.len() < end {
            out.push_str(&format!("{:04}", group(place)));
            place += 1;
        }
        out.truncate(end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(weight: i16, sign: u16, scale: u16, groups: &[u16]) -> String {
        let mut raw = (groups.len() as u16).to_be_bytes().to_vec();
        raw.extend(weight.to_be_bytes());
        raw.extend(sign.to_be_bytes());
        raw.extend(scale.to_be_bytes());
        raw.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
        let mut out = String::new();
        numeric_of(&raw, &mut out).expect("a number");
        out
    }

    #[test]
    fn digits_stand_where_the_weight_puts_them() {
        assert_eq!(shown(0, 0, 0, &[]), "0");
        assert_eq!(shown(0, 0, 2, &[]), "0.00");
        assert_eq!(shown(0, 0, 0, &[42]), "42");
        assert_eq!(shown(1, NEGATIVE, 2, &[1, 2345, 6700]), "-12345.67");
        assert_eq!(shown(2, 0, 0, &[1]), "100000000");
        assert_eq!(shown(-1, 0, 4, &[1]), "0.0001");
        assert_eq!(shown(-2, 0, 8, &[1]), "0.00000001");
        assert_eq!(shown(0, 0, 1, &[2, 5000]), "2.5");
        assert_eq!(shown(0, NAN, 0, &[]), "NaN");
        assert_eq!(shown(0, NEGATIVE_INFINITY, 0, &[]), "-Infinity");
    }
}
