//! A table that takes part in a move, and the statements about it.

use crate::sharding::key::KeyType;

/// A table as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// As it is declared: folded, perhaps with its schema.
    pub(super) name: String,
    pub(super) key: String,
    pub(super) key_type: KeyType,
    /// What rows are made of, without generated columns.
    pub(super) columns: Vec<Column>,
    /// The columns of the primary key.
    pub(super) primary: Vec<String>,
    /// What it refers to, of the tables that move.
    pub(super) refers_to: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// The sequence that numbers it.
    pub(super) sequence: Option<String>,
}

/// A name in quotes; one with a schema in two.
pub(super) fn quoted(name: &str) -> String {
    name.split('.').map(plain).collect::<Vec<_>>().join(".")
}

/// A column's name in quotes.
pub(super) fn plain(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Buckets as an array.
pub(super) fn array(buckets: &[u32]) -> String {
    let numbers: Vec<String> = buckets.iter().map(u32::to_string).collect();
    format!("'{{{}}}'::integer[]", numbers.join(","))
}

/// The columns that tables have now, generated ones aside, with the place of the table.
pub(super) fn columns_now(tables: &[Table]) -> String {
    let each = tables.iter().enumerate().map(|(at, table)| {
        format!(
            "SELECT {at}::bigint AS place, attname::text AS name FROM pg_catalog.pg_attribute WHERE \
             attrelid = pg_catalog.to_regclass({}) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
            text(&table.quoted())
        )
    });
    each.collect::<Vec<_>>().join(" UNION ALL ")
}

/// The function of a table's trigger, with a name of its own for each table.
fn guard(table: &str) -> String {
    // The name itself may be too long for one more word.
    format!("resonant.guard_{:016x}", resonant_common::hash::key_hash(table.as_bytes()))
}

/// Takes a table's triggers away.
pub(super) fn forget_guard(table: &str) -> String {
    let (quoted, guard) = (quoted(table), guard(table));
    format!(
        "DROP TRIGGER IF EXISTS resonant_guard ON {quoted};
         DROP TRIGGER IF EXISTS resonant_truncate ON {quoted};
         DROP FUNCTION IF EXISTS {guard}();\n"
    )
}

impl Table {
    pub(super) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    fn list(&self, prefix: &str) -> String {
        let columns = self.columns.iter().map(|column| format!("{prefix}{}", plain(&column.name)));
        columns.collect::<Vec<_>>().join(", ")
    }

    fn primary_list(&self, prefix: &str) -> String {
        let columns = self.primary.iter().map(|column| format!("{prefix}{}", plain(column)));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// Two rows have the same primary key.
    fn same(&self, one: &str, other: &str) -> String {
        let columns = self.primary.iter().map(|column| plain(column));
        let equal = columns.map(|column| format!("{one}.{column} = {other}.{column}"));
        equal.collect::<Vec<_>>().join(" AND ")
    }

    /// What the source keeps: the keys that move, and the rows that were changed.
    pub(super) fn notebook(&self, at: usize) -> String {
        let (key, table) = (plain(&self.key), self.quoted());
        let primary = self.primary_list("");
        format!(
            "CREATE TABLE resonant_move.keys_{at} AS SELECT 0::integer AS bucket, {key} AS key FROM {table} WITH NO DATA;
             ALTER TABLE resonant_move.keys_{at} ADD PRIMARY KEY (key);
             CREATE INDEX ON resonant_move.keys_{at} (bucket);
             CREATE TABLE resonant_move.log_{at} AS SELECT 0::integer AS bucket, {primary} FROM {table} WITH NO DATA;\n"
        )
    }

    /// What the target keeps until the rows are its own.
    pub(super) fn waiting_room(&self, at: usize) -> String {
        let (table, primary) = (self.quoted(), self.primary_list(""));
        format!(
            "CREATE TABLE resonant_move.rows_{at} AS SELECT 0::integer AS \"resonant bucket\", {} FROM {table} WITH NO DATA;
             ALTER TABLE resonant_move.rows_{at} ADD PRIMARY KEY ({primary});
             CREATE INDEX ON resonant_move.rows_{at} (\"resonant bucket\");\n",
            self.list("")
        )
    }

    /// Where changes arrive, for the time of a transaction.
    pub(super) fn inbox(&self, at: usize) -> String {
        format!(
            "CREATE TEMPORARY TABLE inbox_{at} ON COMMIT DELETE ROWS AS SELECT false AS \"resonant present\", \
             0::integer AS \"resonant bucket\", {} FROM {} WITH NO DATA;\n",
            self.list(""),
            self.quoted()
        )
    }

    /// The trigger's function. While buckets leave it writes down which rows are changed.
    pub(super) fn guard_function(
        &self,
        at: Option<usize>,
        bucket: impl Fn(&str) -> String,
    ) -> String {
        let admit = |record: &str| {
            let bucket = bucket(&format!("{record}.{}", plain(&self.key)));
            match at {
                Some(at) => format!(
                    "b := {bucket};
                     IF resonant.admit(b) THEN INSERT INTO resonant_move.log_{at} VALUES (b, {}); END IF;",
                    self.primary_list(&format!("{record}."))
                ),
                None => format!("PERFORM resonant.admit({bucket});"),
            }
        };
        format!(
            "CREATE OR REPLACE FUNCTION {guard}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $guard$
             DECLARE b integer;
             BEGIN
                 IF pg_catalog.current_setting('resonant.mover', true) = 'on' THEN
                     -- Of those alone who might as well take the trigger away.
                     IF pg_catalog.pg_has_role(session_user, current_user, 'MEMBER') THEN
                         IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
                         RETURN NEW;
                     END IF;
                 END IF;
                 PERFORM resonant.current();
                 IF TG_OP <> 'INSERT' THEN {} END IF;
                 IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
                 {}
                 RETURN NEW;
             END $guard$;
             REVOKE ALL ON FUNCTION {guard}() FROM PUBLIC;\n",
            admit("OLD"),
            admit("NEW"),
            guard = guard(&self.name),
        )
    }

    /// The triggers, that fire for replicated changes, too.
    pub(super) fn guard_triggers(&self) -> String {
        let (table, guard) = (self.quoted(), guard(&self.name));
        format!(
            "CREATE OR REPLACE TRIGGER resonant_guard BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {guard}();
             CREATE OR REPLACE TRIGGER resonant_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION resonant.no_truncate();
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER resonant_guard;
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER resonant_truncate;\n"
        )
    }

    /// Finds the keys that move.
    pub(super) fn find_keys(&self, at: usize, buckets: &[u32], bucket: &str) -> String {
        let (key, table, buckets) = (plain(&self.key), self.quoted(), array(buckets));
        format!(
            "INSERT INTO resonant_move.keys_{at} SELECT b, k FROM (SELECT k, {bucket} AS b FROM \
             (SELECT DISTINCT {key} AS k FROM {table} OFFSET 0) distinct_keys OFFSET 0) hashed WHERE b = ANY ({buckets}) \
             ON CONFLICT DO NOTHING"
        )
    }

    pub(super) fn copy_out(&self, at: usize) -> String {
        format!(
            "COPY (SELECT k.bucket, {} FROM {} r JOIN resonant_move.keys_{at} k ON k.key = r.{}) TO STDOUT",
            self.list("r."),
            self.quoted(),
            plain(&self.key)
        )
    }

    pub(super) fn copy_in(&self, at: usize) -> String {
        format!("COPY resonant_move.rows_{at} (\"resonant bucket\", {}) FROM STDIN", self.list(""))
    }

    /// Takes what was written down since, with the rows as they are now.
    pub(super) fn changes_out(&self, at: usize) -> String {
        let columns = self.columns.iter().map(|column| {
            let from = if self.primary.contains(&column.name) { "d" } else { "r" };
            format!("{from}.{}", plain(&column.name))
        });
        let key = plain(&self.key);
        let (first, primary) =
            (plain(self.primary.first().map_or("", String::as_str)), self.primary_list(""));
        format!(
            "COPY (WITH gone AS (DELETE FROM resonant_move.log_{at} RETURNING bucket, {primary}), \
             d AS (SELECT DISTINCT * FROM gone), \
             k AS (INSERT INTO resonant_move.keys_{at} SELECT DISTINCT bucket, {key} FROM gone ON CONFLICT DO NOTHING) \
             SELECT r.{first} IS NOT NULL, d.bucket, {} FROM d LEFT JOIN {} r ON {}) TO STDOUT",
            columns.collect::<Vec<_>>().join(", "),
            self.quoted(),
            self.same("r", "d")
        )
    }

    pub(super) fn changes_in(&self, at: usize) -> String {
        format!(
            "COPY inbox_{at} (\"resonant present\", \"resonant bucket\", {}) FROM STDIN",
            self.list("")
        )
    }

    /// Brings the waiting rows up to what has arrived.
    pub(super) fn apply(&self, at: usize) -> String {
        let same = self.same("w", "i");
        let columns = self.list("");
        format!(
            "DELETE FROM resonant_move.rows_{at} w USING inbox_{at} i WHERE {same};
             INSERT INTO resonant_move.rows_{at} (\"resonant bucket\", {columns}) \
             SELECT \"resonant bucket\", {columns} FROM inbox_{at} WHERE \"resonant present\";\n"
        )
    }

    /// Makes waiting rows rows of the table.
    pub(super) fn land(&self, at: usize, buckets: &str) -> String {
        let columns = self.list("");
        format!(
            "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM resonant_move.rows_{at} \
             WHERE \"resonant bucket\" = ANY ({buckets});\n",
            self.quoted()
        )
    }

    /// Moves sequences past the numbers of rows that land.
    pub(super) fn advance(&self, at: usize, buckets: &str) -> String {
        let numbered = self.columns.iter().filter_map(|column| {
            let (sequence, column) = (column.sequence.as_deref()?, plain(&column.name));
            let name = text(sequence);
            // A few numbers are taken one by one: to set it could set it back behind those that others take meanwhile.
            Some(format!(
                "SELECT CASE WHEN m.v - s.last_value < 1000 THEN (SELECT max(pg_catalog.nextval({name}::regclass)) FROM \
                 generate_series(s.last_value + s.is_called::integer, m.v)) ELSE pg_catalog.setval({name}::regclass, m.v) END \
                 FROM (SELECT max({column})::bigint AS v FROM resonant_move.rows_{at} WHERE \"resonant bucket\" = ANY ({buckets})) m, \
                 {sequence} s WHERE m.v > s.last_value OR (m.v = s.last_value AND NOT s.is_called);\n"
            ))
        });
        numbered.collect()
    }

    /// Takes landed rows back out of the table.
    pub(super) fn lift(&self, at: usize, buckets: &str) -> String {
        format!(
            "DELETE FROM {} r USING resonant_move.rows_{at} w WHERE w.\"resonant bucket\" = ANY ({buckets}) AND {};\n",
            self.quoted(),
            self.same("r", "w")
        )
    }

    /// Forgets rows that have landed for good.
    pub(super) fn settle(&self, at: usize, buckets: &str) -> String {
        format!(
            "DELETE FROM resonant_move.rows_{at} WHERE \"resonant bucket\" = ANY ({buckets});\n"
        )
    }

    /// Deletes what has gone.
    pub(super) fn depart(&self, at: usize, buckets: &str) -> String {
        format!(
            "DELETE FROM {} r USING resonant_move.keys_{at} k WHERE k.bucket = ANY ({buckets}) AND r.{} = k.key;\n",
            self.quoted(),
            plain(&self.key)
        )
    }

    /// A count and a sum of digests for each bucket that has rows, over the keys of `keys (bucket, key)`.
    pub(super) fn digest(&self, keys: &str, buckets: &str) -> String {
        format!(
            "SELECT k.bucket::bigint AS bucket, count(*) AS rows, \
             coalesce(sum(pg_catalog.hashtextextended(ROW({})::text COLLATE \"C\", 0)::numeric), 0)::text AS digest \
             FROM {keys} k JOIN {} r ON r.{} = k.key WHERE k.bucket = ANY ({buckets}) GROUP BY 1 ORDER BY 1",
            self.list("r."),
            self.quoted(),
            plain(&self.key)
        )
    }

    /// The keys of waiting rows, as the digest wants them.
    pub(super) fn waiting_keys(&self, at: usize) -> String {
        format!(
            "(SELECT DISTINCT \"resonant bucket\" AS bucket, {} AS key FROM resonant_move.rows_{at})",
            plain(&self.key)
        )
    }
}

/// What a shard that gives buckets away needs besides its tables' own triggers. Whoever calls these first in a session must
/// not decide what their names mean.
pub(super) const GUARDS: &str = "
CREATE OR REPLACE FUNCTION resonant.current() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- A snapshot may be older than what is said of buckets here. Locking the row that changes with it tells.
    IF pg_catalog.current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        PERFORM 1 FROM resonant.fence WHERE id = 1 FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'buckets are being moved; run the transaction again' USING ERRCODE = '40001';
        END IF;
    END IF;
END $$;
CREATE OR REPLACE FUNCTION resonant.admit(b integer) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE found_state pg_catalog.text; found_owner pg_catalog.text;
BEGIN
    SELECT state, owner INTO found_state, found_owner FROM resonant.bucket WHERE bucket = b;
    IF found_state = 'leaving' THEN
        -- Whoever has it alone switches the owner. What is read after that is newer.
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(5927194, b);
        SELECT state, owner INTO found_state, found_owner FROM resonant.bucket WHERE bucket = b;
    END IF;
    IF found_state = 'away' THEN
        RAISE EXCEPTION 'bucket % has moved to %', b, found_owner
            USING ERRCODE = 'RS001', HINT = 'Read the bucket map anew and send it there.';
    END IF;
    RETURN found_state = 'leaving';
END $$;
CREATE OR REPLACE FUNCTION resonant.no_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the table has buckets that move or have moved: delete its rows instead' USING ERRCODE = '55006';
END $$;
";
