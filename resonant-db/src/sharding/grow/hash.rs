//! The bucket of a key in SQL, for the trigger that guards a shard.
//!
//! XXH64 needs arithmetic modulo 2^64, which SQL has not: sums and products are put together from halves that do not
//! overflow. A server is asked for the buckets of [`samples`] before it is trusted with any.

use crate::sharding::function::Bucketed;
use crate::sharding::key::{KeyType, ShardKey};
use crate::sharding::{BUCKETS, ShardBy as _};

const P1: i64 = 0x9E37_79B1_85EB_CA87_u64.cast_signed();
const P2: i64 = 0xC2B2_AE3D_27D4_EB4F_u64.cast_signed();
const P3: i64 = 0x1656_67B1_9E37_79F9;
const P4: i64 = 0x85EB_CA77_C2B2_AE63_u64.cast_signed();
const P5: i64 = 0x27D4_EB2F_1656_67C5;

/// Creates the functions in the schema `resonant`.
pub(super) fn functions() -> String {
    let last = BUCKETS - 1;
    let first = [P1.wrapping_add(P2), P2, 0, 0_i64.wrapping_sub(P1)];
    let [v1, v2, v3, v4] = first;
    let stripes: String = (1..=4)
        .map(|lane| {
            let at = (lane - 1) * 8;
            format!(
                "v{lane} := resonant.mul(resonant.rotl(resonant.add(v{lane}, resonant.mul(resonant.lane(data, at + {at}), {P2})), 31), {P1});\n"
            )
        })
        .collect();
    let merged: String = (1..=4)
        .map(|lane| {
            format!(
                "t := resonant.mul(resonant.rotl(resonant.mul(v{lane}, {P2}), 31), {P1});
                 t := h # t;
                 h := resonant.add(resonant.mul(t, {P1}), {P4});\n"
            )
        })
        .collect();
    format!(
        "
CREATE OR REPLACE FUNCTION resonant.mul(a bigint, b bigint) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    al bigint := a & 4294967295; ah bigint := (a >> 32) & 4294967295;
    bl bigint := b & 4294967295; bh bigint := (b >> 32) & 4294967295;
    q bigint := (al >> 16) * bl;
    s bigint := (al & 65535) * bl + ((q & 65535) << 16);
    hi bigint := (s >> 32) + (q >> 16)
        + (((al & 65535) * bh + ((((al >> 16) * bh) & 65535) << 16)) & 4294967295)
        + (((ah & 65535) * bl + ((((ah >> 16) * bl) & 65535) << 16)) & 4294967295);
BEGIN
    RETURN ((hi & 4294967295) << 32) | (s & 4294967295);
END $$;
CREATE OR REPLACE FUNCTION resonant.add(a bigint, b bigint) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    lo bigint := (a & 4294967295) + (b & 4294967295);
    hi bigint := ((a >> 32) & 4294967295) + ((b >> 32) & 4294967295) + (lo >> 32);
BEGIN
    RETURN ((hi & 4294967295) << 32) | (lo & 4294967295);
END $$;
CREATE OR REPLACE FUNCTION resonant.rotl(a bigint, n integer) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN (a << n) | ((a >> (64 - n)) & ((1::bigint << n) - 1));
END $$;
CREATE OR REPLACE FUNCTION resonant.lane(data bytea, at integer) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN pg_catalog.get_byte(data, at)::bigint
        | (pg_catalog.get_byte(data, at + 1)::bigint << 8) | (pg_catalog.get_byte(data, at + 2)::bigint << 16)
        | (pg_catalog.get_byte(data, at + 3)::bigint << 24) | (pg_catalog.get_byte(data, at + 4)::bigint << 32)
        | (pg_catalog.get_byte(data, at + 5)::bigint << 40) | (pg_catalog.get_byte(data, at + 6)::bigint << 48)
        | (pg_catalog.get_byte(data, at + 7)::bigint << 56);
END $$;
CREATE OR REPLACE FUNCTION resonant.finish(h bigint) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE t bigint := h;
BEGIN
    t := resonant.mul(t # ((t >> 33) & 2147483647), {P2});
    t := resonant.mul(t # ((t >> 29) & 34359738367), {P3});
    RETURN ((t # ((t >> 32) & 4294967295)) & {last})::integer;
END $$;
CREATE OR REPLACE FUNCTION resonant.bucket_of(key bigint) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE t bigint := resonant.mul(resonant.rotl(resonant.mul(key, {P2}), 31), {P1});
BEGIN
    t := {P5_8} # t;
    RETURN resonant.finish(resonant.add(resonant.mul(resonant.rotl(t, 27), {P1}), {P4}));
END $$;
CREATE OR REPLACE FUNCTION resonant.bucket_of(data bytea) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    size integer := pg_catalog.length(data); at integer := 0; h bigint; t bigint;
    v1 bigint := {v1}; v2 bigint := {v2}; v3 bigint := {v3}; v4 bigint := {v4};
BEGIN
    IF size >= 32 THEN
        WHILE at + 32 <= size LOOP
            {stripes}
            at := at + 32;
        END LOOP;
        h := resonant.add(resonant.add(resonant.rotl(v1, 1), resonant.rotl(v2, 7)),
            resonant.add(resonant.rotl(v3, 12), resonant.rotl(v4, 18)));
        {merged}
    ELSE
        h := {P5};
    END IF;
    h := resonant.add(h, size);
    WHILE at + 8 <= size LOOP
        t := resonant.mul(resonant.rotl(resonant.mul(resonant.lane(data, at), {P2}), 31), {P1});
        t := h # t;
        h := resonant.add(resonant.mul(resonant.rotl(t, 27), {P1}), {P4});
        at := at + 8;
    END LOOP;
    IF at + 4 <= size THEN
        t := pg_catalog.get_byte(data, at)::bigint | (pg_catalog.get_byte(data, at + 1)::bigint << 8)
            | (pg_catalog.get_byte(data, at + 2)::bigint << 16) | (pg_catalog.get_byte(data, at + 3)::bigint << 24);
        t := h # resonant.mul(t, {P1});
        h := resonant.add(resonant.mul(resonant.rotl(t, 23), {P2}), {P3});
        at := at + 4;
    END IF;
    WHILE at < size LOOP
        t := h # resonant.mul(pg_catalog.get_byte(data, at)::bigint, {P5});
        h := resonant.mul(resonant.rotl(t, 11), {P1});
        at := at + 1;
    END LOOP;
    RETURN resonant.finish(h);
END $$;
",
        P5_8 = P5.wrapping_add(8),
    )
}

/// The bucket of a key column, or of what stands for one; `None` where SQL has no such hash.
pub(super) fn bucket(buckets: &Bucketed, key_type: KeyType, column: &str) -> Option<String> {
    const SEED: &str = "8816678312871386365";
    if buckets.name() == "hash_mod" {
        return Some(match key_type {
            KeyType::Int => format!("resonant.bucket_of(({column})::bigint)"),
            KeyType::Text => {
                format!("resonant.bucket_of(pg_catalog.convert_to(({column})::text, 'UTF8'))")
            }
            KeyType::Uuid => format!("resonant.bucket_of(pg_catalog.uuid_send({column}))"),
            KeyType::Bytes => format!("resonant.bucket_of({column})"),
        });
    }
    let hash = match key_type {
        KeyType::Int => format!("pg_catalog.hashint8extended(({column})::bigint, {SEED})"),
        KeyType::Text => {
            format!("pg_catalog.hashtextextended(({column})::text COLLATE \"C\", {SEED})")
        }
        KeyType::Uuid => format!("pg_catalog.uuid_hash_extended({column}, {SEED})"),
        KeyType::Bytes => return None,
    };
    let last = BUCKETS - 1;
    // What combining with an empty row hash adds, modulo the buckets.
    Some(format!("((({hash} & {last}) + 2275) & {last})::integer"))
}

/// Keys of a type as SQL, with their buckets.
pub(super) fn samples(buckets: &Bucketed, key_type: KeyType) -> Vec<(String, u32)> {
    let of = |key: ShardKey<'_>| buckets.bucket(&key);
    let bytes = (0..80_u8)
        .map(|size| (0..size).map(|at| at.wrapping_mul(37).wrapping_add(size)).collect::<Vec<_>>());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match key_type {
        KeyType::Int => [0, 1, -1, 42, 4_096, i64::MAX, i64::MIN, -987_654_321_012_345_678]
            .map(|n| (format!("('{n}'::bigint)"), of(ShardKey::Int(n))))
            .into(),
        KeyType::Text => bytes
            .map(|bytes| bytes.into_iter().map(|byte| char::from(b'!' + byte % 90)).collect())
            .chain(["żółć".to_owned(), "org_123".to_owned()])
            .map(|text: String| {
                (format!("('{}'::text)", text.replace('\'', "''")), of(ShardKey::Text(&text)))
            })
            .collect(),
        KeyType::Bytes => bytes
            .map(|bytes| (format!("('\\x{}'::bytea)", hex(&bytes)), of(ShardKey::Bytes(&bytes))))
            .collect(),
        KeyType::Uuid => (1..20_u8)
            .map(|n| {
                let uuid: [u8; 16] = std::array::from_fn(|at| n.wrapping_mul(29 + at as u8));
                (format!("('{}'::uuid)", hex(&uuid)), of(ShardKey::Uuid(uuid)))
            })
            .collect(),
    }
}
