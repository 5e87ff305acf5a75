//! What is decided inside the server, in one step for each key.
//!
//! Sent by its digest, and in full when a server does not know it: a server that was restarted or promoted learns it from
//! the first call. Positions are compared byte by byte, because Lua compares strings by the server's locale; counters come
//! back as text, because Lua's numbers lose precision past 2^53. All keys of a script have one slot.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest as _, Sha1};

/// A script and its digest.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) text: &'static str,
    pub(super) sha: LazyLock<Bytes>,
}

/// The name a server gives a script.
fn digest(script: &str) -> Bytes {
    Sha1::digest(script).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $text:expr) => {
        $(#[$doc])*
        pub(super) static $name: Script =
            Script { text: $text, sha: LazyLock::new(|| digest($text)) };
    };
}

/// Whether a read includes everything up to a fence; `raise` puts a fence up. Of two that compare the higher one stays, for as
/// long as either would; one that does not compare takes the other's place.
macro_rules! fences {
    () => {
        r"
local function reached(read, fence)
  if read:sub(1, 8) ~= fence:sub(1, 8) then return false end
  for i = 9, 20 do
    local a, b = read:byte(i), fence:byte(i)
    if a ~= b then return a > b end
  end
  return true
end
local function raise(key, position, ttl)
  local held = redis.call('GET', key)
  if held and #held == 20 and held:sub(1, 8) == position:sub(1, 8) then
    if not reached(position, held) then position = held end
    local left = redis.call('PTTL', key)
    if left > tonumber(ttl) then ttl = string.format('%.0f', left) end
  end
  redis.call('SET', key, position, 'PX', ttl)
end
"
    };
}

/// Milliseconds since the start of our count, and the hash of epochs, made where there is none. A hash that was lost begins
/// above everything that was ever counted, and as cleared: values from before the loss are misses.
macro_rules! epochs {
    () => {
        r"
local time = redis.call('TIME')
local now = (tonumber(time[1]) - 1704067200) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function text(n) return string.format('%.0f', n) end
local latest = tonumber(redis.call('HGET', KEYS[1], 'latest') or nil)
if not latest then
  latest = now
  redis.call('HSET', KEYS[1], 'latest', text(now), 'cleared', text(now), 'floor', text(now))
end
"
    };
}

/// Whether what was there when a lease was granted is still there, or has run out: then nobody wrote in between.
///
/// A write without a condition is a plain `SET`, which costs what it costs with any client, and knows nothing of leases. So a
/// lease remembers what was stored when it was granted: the version of the value, or the digest of what is no value of ours,
/// or plain: of plain values any first byte may be the one that ours begin with.
/// A plain `SET` lives for [`LEASES_REMEMBER`] at least, so that it cannot have come and gone while a lease is younger than
/// that. For a lease that may get older a mark that nobody takes for a value is put where there is none.
macro_rules! stamps {
    () => {
        r"
local function stamp(key, plain)
  local head = redis.pcall('GETRANGE', key, 0, 21)
  if type(head) ~= 'string' then return '!' end
  if head == '' then return '-' end
  if not plain and #head == 22 and head:byte(1) == 161 then return head:sub(7, 12) end
  return redis.sha1hex(redis.call('GET', key))
end
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function untouched(held, key)
  local since, was = held:match('^%d+ (%d+) (.*)$', 9)
  if not since then return false end
  local stamped = stamp(key, #was == 40)
  if stamped == '-' then return clock() - tonumber(since) < 240000 end
  return stamped == was
end
"
    };
}

/// For how long a lease is told apart from what was plainly set since.
pub(super) const LEASES_REMEMBER: Duration = Duration::from_secs(240);

/// Whether stored bytes are the mark of a lease, and no value.
pub(super) fn is_mark(bytes: &[u8]) -> bool {
    bytes.len() == 15 && bytes.starts_with(b"\0lease:")
}

script!(
    /// KEYS: value, lease, fence. ARGV: bytes, ttl or 0, guard, its argument, position or nothing, the fence's ttl.
    WRITE,
    concat!(
        fences!(),
        stamps!(),
        r"
local guard, wanted, position = ARGV[3], ARGV[4], ARGV[5]
if guard == 'l' then
  local lease = redis.call('GET', KEYS[2])
  if not lease or lease:sub(1, 8) ~= wanted or not untouched(lease, KEYS[1]) then return 0 end
elseif guard ~= '' then
  local head = redis.pcall('GETRANGE', KEYS[1], 0, 21)
  local version = type(head) == 'string' and #head == 22 and head:byte(1) == 161 and head:sub(7, 12)
  if guard == 'a' and version then return 0 end
  if guard == 'v' and version ~= wanted then return 0 end
end
if position ~= '' then
  local fence = redis.call('GET', KEYS[3])
  if fence and #fence == 20 and not reached(position, fence) then return 0 end
  raise(KEYS[3], position, ARGV[6])
end
redis.call('DEL', KEYS[2])
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
"
    )
);

script!(
    /// KEYS: value, lease, counter, fence. ARGV: position or nothing, the fence's ttl.
    REMOVE,
    concat!(
        fences!(),
        r"
if ARGV[1] ~= '' then raise(KEYS[4], ARGV[1], ARGV[2]) end
redis.call('DEL', KEYS[2], KEYS[3])
local marked = redis.pcall('GETRANGE', KEYS[1], 0, 6) == '\0lease:'
local removed = redis.call('UNLINK', KEYS[1])
return marked and 0 or removed
"
    )
);

script!(
    /// KEYS: lease, value. ARGV: token, cleared, ttl, whether values are plain. Answers -1 when granted, else how long it is held.
    LEASE,
    concat!(
        stamps!(),
        r"
local plain = ARGV[4] == '1'
local held, stamped = redis.call('GET', KEYS[1]), stamp(KEYS[2], plain)
if held and held:sub(1, 8) ~= ARGV[1] and untouched(held, KEYS[2])
  and tonumber(ARGV[2]) <= tonumber(held:match('^%d+', 9)) then
  return math.max(redis.call('PTTL', KEYS[1]), 0)
end
if stamped == '-' and tonumber(ARGV[3]) > 240000 then
  redis.call('SET', KEYS[2], '\0lease:' .. ARGV[1], 'PX', ARGV[3])
  stamped = stamp(KEYS[2], plain)
end
local lease = ARGV[1] .. ARGV[2] .. ' ' .. string.format('%.0f', clock()) .. ' ' .. stamped
redis.call('SET', KEYS[1], lease, 'PX', ARGV[3])
return -1
"
    )
);

script!(
    /// KEYS: lease. ARGV: token.
    RELEASE,
    r"
local held = redis.call('GET', KEYS[1])
if held and held:sub(1, 8) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"
);

script!(
    /// KEYS: counter. ARGV: by, ttl or 0. Answers the counter as text.
    ADD,
    r"
if ARGV[1] == '0' then return redis.call('GET', KEYS[1]) or '0' end
local made = ARGV[2] ~= '0' and redis.call('EXISTS', KEYS[1]) == 0
redis.call('INCRBY', KEYS[1], ARGV[1])
if made then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])
"
);

script!(
    /// KEYS: the hash of epochs. ARGV: tags. Answers latest, cleared, and each tag's epoch, as text.
    EPOCHS,
    concat!(
        epochs!(),
        r"
local answer = { redis.call('HGET', KEYS[1], 'latest'), redis.call('HGET', KEYS[1], 'cleared') }
local floor = redis.call('HGET', KEYS[1], 'floor') or '0'
for i, tag in ipairs(ARGV) do answer[i + 2] = redis.call('HGET', KEYS[1], tag) or floor end
return answer
"
    )
);

script!(
    /// The same on a replica, which can make no hash: nothing where there is none.
    EPOCHS_THERE,
    r"
local answer = { redis.call('HGET', KEYS[1], 'latest'), redis.call('HGET', KEYS[1], 'cleared') }
if not answer[1] then return {} end
local floor = redis.call('HGET', KEYS[1], 'floor') or '0'
for i, tag in ipairs(ARGV) do answer[i + 2] = redis.call('HGET', KEYS[1], tag) or floor end
return answer
"
);

script!(
    /// KEYS: the hash of epochs. ARGV: the start of the message's name, the most tags, then tags; none for everything.
    /// Answers the epoch as text.
    ///
    /// The message is a key's name: it is set and removed at once, and trackers are told of it as of every change, in order
    /// with everything else the server says, without rights to any channel.
    BUMP,
    concat!(
        epochs!(),
        r"
local epoch = text(math.max(latest + 1, now))
local function say(what)
  local name = ARGV[1] .. epoch .. ':' .. what
  redis.call('SET', name, '')
  redis.call('DEL', name)
end
if #ARGV == 2 then
  redis.call('UNLINK', KEYS[1])
  redis.call('HSET', KEYS[1], 'latest', epoch, 'cleared', epoch, 'floor', epoch)
  say('*')
  return epoch
end
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[2]) then
  local cleared = redis.call('HGET', KEYS[1], 'cleared')
  redis.call('UNLINK', KEYS[1])
  redis.call('HSET', KEYS[1], 'cleared', cleared, 'floor', text(latest))
end
for i = 3, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], epoch) end
redis.call('HSET', KEYS[1], 'latest', epoch)
for first = 3, #ARGV, 100 do
  say(table.concat(ARGV, ',', first, math.min(first + 99, #ARGV)))
end
return epoch
"
    )
);
