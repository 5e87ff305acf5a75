//! The tables. `docs/formats/queue.md` says what they mean to other programs.

/// `RsnQ` in the file's header.
pub(super) const APPLICATION_ID: i64 = 0x5273_6e51;

/// The layout this version writes.
pub(super) const VERSION: i64 = 1;

/// How far a partition's number is shifted in a message's id; what is below is its sequence.
pub(super) const SHIFT: u32 = 40;

/// The highest sequence of a partition: at a million messages a second, twelve days; at a thousand, 34 years.
pub(super) const MAX_SEQUENCE: i64 = (1 << SHIFT) - 1;

pub(super) const SCHEMA: &str = "
CREATE TABLE queues (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    partitions  INTEGER NOT NULL,
    base        INTEGER NOT NULL,           -- id of partition 0; partition n is base + n
    paused      INTEGER NOT NULL DEFAULT 0,
    ready       INTEGER NOT NULL DEFAULT 0, -- rows of messages
    delayed     INTEGER NOT NULL DEFAULT 0, -- rows of delayed
    parked      INTEGER NOT NULL DEFAULT 0, -- rows of parked
    parked_keys INTEGER NOT NULL DEFAULT 0, -- rows of parked_keys
    dead        INTEGER NOT NULL DEFAULT 0, -- rows of dead
    unique_ids  INTEGER NOT NULL DEFAULT 0  -- rows of unique_ids
) STRICT;

CREATE TABLE partitions (
    id    INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    last  INTEGER NOT NULL DEFAULT 0,       -- the highest sequence given out
    epoch INTEGER NOT NULL DEFAULT 0        -- of the owner; lower ones are fenced
) STRICT;

CREATE TABLE messages (
    id        INTEGER PRIMARY KEY,          -- partition id * 2^40 + sequence
    key       TEXT,
    previous  INTEGER,                      -- sequence of the key's message before it
    failures  INTEGER NOT NULL DEFAULT 0,
    due       INTEGER,                      -- not before, milliseconds since 1970
    published INTEGER NOT NULL,
    headers   TEXT,                         -- JSON object of text
    error     TEXT,
    body      TEXT    NOT NULL              -- the user's JSON
) STRICT;

CREATE TABLE keys (
    partition INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    sequence  INTEGER NOT NULL,             -- of the key's last message
    PRIMARY KEY (partition, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE delayed (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    partition INTEGER NOT NULL,
    due       INTEGER NOT NULL,
    key       TEXT,
    headers   TEXT,
    body      TEXT    NOT NULL
) STRICT;
CREATE INDEX delayed_due ON delayed (due, id);

CREATE TABLE parked_keys (
    partition INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    sequence  INTEGER NOT NULL,             -- the message that failed
    since     INTEGER NOT NULL,
    error     TEXT    NOT NULL,
    PRIMARY KEY (partition, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE parked (
    partition INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    sequence  INTEGER NOT NULL,
    previous  INTEGER,
    failures  INTEGER NOT NULL,
    published INTEGER NOT NULL,
    headers   TEXT,
    body      TEXT    NOT NULL,
    PRIMARY KEY (partition, key, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE resumed (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    partition INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    sequence  INTEGER NOT NULL
) STRICT;

CREATE TABLE dead (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    queue     INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    key       TEXT,
    failures  INTEGER NOT NULL,
    published INTEGER NOT NULL,
    died      INTEGER NOT NULL,
    error     TEXT    NOT NULL,
    headers   TEXT,
    body      TEXT    NOT NULL
) STRICT;
CREATE INDEX dead_queue ON dead (queue, id);

CREATE TABLE unique_ids (
    queue     INTEGER NOT NULL,
    unique_id TEXT    NOT NULL,
    partition INTEGER NOT NULL,             -- number, from 0
    sequence  INTEGER,                      -- none for a delayed message
    at        INTEGER NOT NULL,
    PRIMARY KEY (queue, unique_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX unique_ids_at ON unique_ids (queue, at);

CREATE TABLE leases (
    name    TEXT PRIMARY KEY,
    owner   TEXT,
    epoch   INTEGER NOT NULL,
    ttl     INTEGER NOT NULL,               -- for how long it was granted, milliseconds
    expires INTEGER NOT NULL                -- milliseconds since 1970
) STRICT, WITHOUT ROWID;
";
