//! What the text of a statement cannot tell: what the server's catalogue knows behind its names.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// Whether nothing behind these names does more than read: no view, whose definition may call anything, and no table with
/// a policy; no foreign table, nor one below a table as a partition or an heir; no function of the user's own, called or read like a column; no domain, which may check
/// values with one. Operators and casts have no names that could be looked for, so there must be none that runs anything
/// but compiled code. What comes with the server has been thought of already.
const HARMLESS: &str = "\
    WITH RECURSIVE wanted AS (SELECT string_to_array($1, ',')::name[] AS names), \
        named AS (SELECT c.oid, c.relkind, c.relrowsecurity FROM wanted w JOIN pg_catalog.pg_class c ON c.relname = ANY (w.names) \
            WHERE c.oid >= 16384), \
        below AS (SELECT n.oid FROM named n \
            UNION SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid) \
    SELECT NOT EXISTS (SELECT FROM named n WHERE n.relkind NOT IN ('r', 'p', 'm', 'i', 'I', 'S', 't', 'c') OR n.relrowsecurity) \
        AND NOT EXISTS (SELECT FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid WHERE c.relkind = 'f') \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname = ANY (w.names) AND p.oid >= 16384) \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typname = ANY (w.names) AND t.typtype = 'd' AND t.oid >= 16384) \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode \
            JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE o.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')) \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_cast k JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc \
            JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE k.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')) \
    FROM wanted w";

/// Asks; `None` when there was no answer.
pub(super) async fn is_harmless(client: &Client, names: &str) -> Option<bool> {
    let rows = client.query_typed(HARMLESS, &[(&names, Type::TEXT)]).await.ok()?;
    rows.first()?.try_get(0).ok()
}
