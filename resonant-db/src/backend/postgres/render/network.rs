//! Addresses.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Bytes, Fault, SHORT, write};

const IPV4: u8 = 2;

/// An `inet` or `cidr`: family, bits of the network, which of the two, length, address.
pub(super) fn address(bytes: &mut Bytes<'_>, cidr: bool, out: &mut String) -> Result<(), Fault> {
    let (family, bits) = (bytes.u8()?, bytes.u8()?);
    bytes.take(2)?;
    let full = if family == IPV4 {
        write(out, Ipv4Addr::from(bytes.u32()?));
        32
    } else {
        let octets: [u8; 16] = bytes.take(16)?.try_into().map_err(|_| SHORT)?;
        write(out, Ipv6Addr::from(octets));
        128
    };
    if cidr || bits != full {
        let _ = write!(out, "/{bits}");
    }
    Ok(())
}

/// A `macaddr` or `macaddr8`.
pub(super) fn hardware(raw: &[u8], out: &mut String) {
    for (at, byte) in raw.iter().enumerate() {
        if at > 0 {
            out.push(':');
        }
        let _ = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_their_network_only_when_it_says_something() -> Result<(), Fault> {
        let shown = |raw: &[u8], cidr| {
            let mut out = String::new();
            address(&mut Bytes(raw), cidr, &mut out).map(|()| out)
        };
        assert_eq!(shown(&[2, 32, 0, 4, 10, 0, 0, 1], false)?, "10.0.0.1");
        assert_eq!(shown(&[2, 24, 0, 4, 10, 0, 0, 1], false)?, "10.0.0.1/24");
        assert_eq!(shown(&[2, 32, 1, 4, 10, 0, 0, 1], true)?, "10.0.0.1/32");
        let mut six = vec![3, 128, 0, 16];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        assert_eq!(shown(&six, false)?, "::1");
        Ok(())
    }
}
