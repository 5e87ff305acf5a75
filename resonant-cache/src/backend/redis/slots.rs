//! Which slot a key has, and which servers have it.

use super::driver::Reply;
use super::target::Address;

pub(super) const SLOTS: u16 = 16_384;

/// The slot of a stored key.
pub(super) fn slot(key: &[u8]) -> u16 {
    redis_protocol::redis_keyslot(key)
}

/// A range of slots, the primary that has it, and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) primary: Address,
    pub(super) replicas: Vec<Address>,
}

/// Reads the answer to `CLUSTER SLOTS`. A server that does not know its own name is `asked`.
pub(super) fn parse(reply: &Reply, asked: &Address) -> Option<Vec<Range>> {
    let Reply::Array(ranges) = reply else { return None };
    ranges.iter().map(|range| parse_range(range, asked)).collect()
}

fn parse_range(reply: &Reply, asked: &Address) -> Option<Range> {
    let Reply::Array(parts) = reply else { return None };
    let [Reply::Int(first), Reply::Int(last), primary, replicas @ ..] = &parts[..] else {
        return None;
    };
    let slot = |number: i64| u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
    let (first, last) = (slot(*first)?, slot(*last)?);
    if first > last {
        return None;
    }
    let replicas = replicas.iter().filter_map(|reply| address(reply, asked)).collect();
    Some(Range { first, last, primary: address(primary, asked)?, replicas })
}

fn address(reply: &Reply, asked: &Address) -> Option<Address> {
    let Reply::Array(parts) = reply else { return None };
    let [host, Reply::Int(port), ..] = &parts[..] else { return None };
    let host = match host {
        Reply::Bytes(host) if host.as_ref() == b"?" => return None,
        Reply::Bytes(host) if !host.is_empty() => String::from_utf8(host.to_vec()).ok()?,
        _ => asked.host.clone(),
    };
    Some(Address { host, port: u16::try_from(*port).ok()? })
}

/// The place in the text of a redirection: `MOVED 3999 127.0.0.1:6381` or `ASK …`.
pub(super) fn redirection(text: &str, asked: &Address) -> Option<Address> {
    let place = text.split(' ').nth(2)?;
    let (host, port) = place.rsplit_once(':')?;
    let host = if host.is_empty() { &asked.host } else { host };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Address { host, port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From the Redis Cluster specification and `CLUSTER KEYSLOT`.
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), 8363);
        assert_eq!(slot(b"foo{{bar}}zap"), 4015);
        assert_eq!(slot(b"foo{bar}{zap}"), 5061);
    }

    #[test]
    fn an_answer_without_names_means_who_was_asked() {
        let asked = Address { host: "me".into(), port: 1 };
        let node = |host: Reply, port| Reply::Array(vec![host, Reply::Int(port)]);
        let text = |text: &'static str| Reply::Bytes(Bytes::from_static(text.as_bytes()));
        let answer = Reply::Array(vec![Reply::Array(vec![
            Reply::Int(0),
            Reply::Int(99),
            node(Reply::Nil, 7000),
            node(text("h2"), 7001),
            node(text("?"), 7002),
        ])]);
        let at = |host: &str, port| Address { host: host.into(), port };
        let expected =
            Range { first: 0, last: 99, primary: at("me", 7000), replicas: vec![at("h2", 7001)] };
        assert_eq!(parse(&answer, &asked), Some(vec![expected]));
        assert_eq!(parse(&Reply::Array(vec![Reply::Nil]), &asked), None);
        let backwards = vec![Reply::Int(7), Reply::Int(3), node(text("h2"), 7001)];
        assert_eq!(parse(&Reply::Array(vec![Reply::Array(backwards)]), &asked), None);
        assert_eq!(redirection("MOVED 3999 127.0.0.1:6381", &asked), Some(at("127.0.0.1", 6381)));
        assert_eq!(redirection("ASK 3999 :6381", &asked), Some(at("me", 6381)));
        assert_eq!(redirection("MOVED 3999 ::1:6381", &asked), Some(at("::1", 6381)));
        assert_eq!(redirection("MOVED 3999", &asked), None);
    }
}
