CREATE SCHEMA resonant_queue;

-- One row. A program of version v works if oldest <= v <= version.
CREATE TABLE resonant_queue.layout (
    version int NOT NULL,
    oldest  int NOT NULL
);
INSERT INTO resonant_queue.layout VALUES (1, 1);

CREATE TABLE resonant_queue.queues (
    id           int     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text    NOT NULL UNIQUE,
    partitions   int     NOT NULL,
    base         int     NOT NULL,               -- id of partition 0; partition n is base + n
    paused       boolean NOT NULL DEFAULT false,
    max_depth    bigint  NOT NULL,               -- as the program that built it last said
    dedup_window bigint  NOT NULL                -- milliseconds
);

-- What publishers change. The lock on a row is held to the end of the transaction that publishes into the partition, so
-- that messages become visible in the order of their sequences.
--
-- Rows of heads and owners change all the time. While somebody holds an old snapshot none of their versions goes away, so
-- they are looked up by the highest turn, which rises with each change: the index has the newest version first, and the
-- others are never looked at. The index is not unique, as a unique one would look at all of them, and would make
-- every change one of the key, for which handlers would have to wait.
CREATE TABLE resonant_queue.heads (
    partition int    NOT NULL,
    turn      bigint NOT NULL DEFAULT 0,
    queue     int    NOT NULL,
    last      bigint NOT NULL DEFAULT 0,         -- the highest sequence given out
    arrived   bigint NOT NULL DEFAULT 0,         -- messages that became ready, ever
    delayed   bigint NOT NULL DEFAULT 0          -- rows of delayed
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX heads_turn ON resonant_queue.heads (partition, turn);
ALTER TABLE resonant_queue.heads REPLICA IDENTITY FULL;

-- What owners change.
CREATE TABLE resonant_queue.owners (
    partition   int    NOT NULL,
    turn        bigint NOT NULL DEFAULT 0,
    queue       int    NOT NULL,
    epoch       bigint NOT NULL DEFAULT 0,       -- of the owner; lower ones are fenced
    low         bigint NOT NULL DEFAULT 0,       -- no ready message has this sequence or a lower one
    gone        bigint NOT NULL DEFAULT 0,       -- messages that are ready no more, without those in tallies
    parked      bigint NOT NULL DEFAULT 0,       -- rows of parked
    parked_keys bigint NOT NULL DEFAULT 0,       -- rows of parked_keys
    dead        bigint NOT NULL DEFAULT 0        -- rows of dead
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX owners_turn ON resonant_queue.owners (partition, turn);
ALTER TABLE resonant_queue.owners REPLICA IDENTITY FULL;

CREATE TABLE resonant_queue.messages (
    partition int    NOT NULL,
    failures  int    NOT NULL DEFAULT 0,
    sequence  bigint NOT NULL,
    previous  bigint,                            -- sequence of the key's message before it
    published bigint NOT NULL,                   -- milliseconds since 1970, as all times here
    due       bigint,                            -- not before
    key       text,
    headers   text,                              -- JSON object of text
    error     text,
    body      text   NOT NULL,                   -- the user's JSON
    PRIMARY KEY (partition, sequence)
) WITH (fillfactor = 95, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_scale_factor = 1, vacuum_truncate = false);

CREATE TABLE resonant_queue.keys (
    partition int    NOT NULL,
    key       text   NOT NULL,
    sequence  bigint NOT NULL,                   -- of the key's last message; the highest is looked for, as above
    PRIMARY KEY (partition, key, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE resonant_queue.delayed (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition int    NOT NULL,
    due       bigint NOT NULL,
    key       text,
    headers   text,
    body      text   NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 5000);
CREATE INDEX delayed_due ON resonant_queue.delayed (partition, due, id);

CREATE TABLE resonant_queue.parked_keys (
    partition int    NOT NULL,
    key       text   NOT NULL,
    sequence  bigint NOT NULL,                   -- the message that failed
    since     bigint NOT NULL,
    error     text   NOT NULL,
    PRIMARY KEY (partition, key)
);

CREATE TABLE resonant_queue.parked (
    partition int    NOT NULL,
    key       text   NOT NULL,
    sequence  bigint NOT NULL,
    previous  bigint,
    failures  int    NOT NULL,
    published bigint NOT NULL,
    headers   text,
    body      text   NOT NULL,
    PRIMARY KEY (partition, key, sequence)
);

-- Keys that were resumed and not yet read again by the owner.
CREATE TABLE resonant_queue.resumed (
    number    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition int    NOT NULL,
    key       text   NOT NULL,
    sequence  bigint NOT NULL
);
CREATE INDEX resumed_partition ON resonant_queue.resumed (partition, number);

CREATE TABLE resonant_queue.dead (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue     int    NOT NULL,
    partition int    NOT NULL,
    sequence  bigint NOT NULL,
    key       text,
    failures  int    NOT NULL,
    published bigint NOT NULL,
    died      bigint NOT NULL,
    error     text   NOT NULL,
    headers   text,
    body      text   NOT NULL
);
CREATE INDEX dead_queue ON resonant_queue.dead (queue, id);

CREATE TABLE resonant_queue.unique_ids (
    queue     int    NOT NULL,
    unique_id text   NOT NULL,
    partition int    NOT NULL,
    sequence  bigint,                            -- none for a delayed message
    at        bigint NOT NULL,
    PRIMARY KEY (queue, unique_id)
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 5000);
CREATE INDEX unique_ids_at ON resonant_queue.unique_ids (queue, at);

-- Messages finished inside transactions of handlers, until the owner adds them to its row: handlers do not wait for one
-- another there.
CREATE TABLE resonant_queue.tallies (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition int    NOT NULL,
    queue     int    NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX tallies_partition ON resonant_queue.tallies (partition);
CREATE INDEX tallies_queue ON resonant_queue.tallies (queue);

-- Ids of messages of other queues whose effects are in this database.
CREATE TABLE resonant_queue.inbox (
    consumer text   NOT NULL,
    id       text   NOT NULL,
    at       bigint NOT NULL,
    PRIMARY KEY (consumer, id)
);
CREATE INDEX inbox_at ON resonant_queue.inbox (at);

CREATE TABLE resonant_queue.leases (
    name    text   PRIMARY KEY,
    owner   text   NOT NULL,
    epoch   bigint NOT NULL,
    ttl     bigint NOT NULL,                     -- for how long it was granted
    expires bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

-- Plans must not depend on statistics: a queue is empty when they are taken and full when they are used, or the other way
-- round. Hence the settings of the functions below.

CREATE FUNCTION resonant_queue.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- Finds or creates a queue.
CREATE FUNCTION resonant_queue.declare(p_name text, p_partitions int, p_max_depth bigint, p_window bigint)
RETURNS TABLE (id int, partitions int, base int) LANGUAGE plpgsql SET search_path = resonant_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE found queues; first int;
BEGIN
    SELECT * INTO found FROM queues WHERE name = p_name;
    IF found.id IS NULL THEN
        LOCK TABLE queues IN SHARE ROW EXCLUSIVE MODE;
        SELECT * INTO found FROM queues WHERE name = p_name;
    END IF;
    IF found.id IS NULL THEN
        SELECT coalesce(max(q.base + q.partitions), 1) INTO first FROM queues q;
        INSERT INTO queues (name, partitions, base, max_depth, dedup_window)
            VALUES (p_name, p_partitions, first, p_max_depth, p_window) RETURNING * INTO found;
        INSERT INTO heads (partition, queue) SELECT g, found.id FROM generate_series(first, first + p_partitions - 1) g;
        INSERT INTO owners (partition, queue) SELECT g, found.id FROM generate_series(first, first + p_partitions - 1) g;
    ELSIF found.partitions = p_partitions AND (found.max_depth, found.dedup_window) IS DISTINCT FROM (p_max_depth, p_window) THEN
        UPDATE queues SET max_depth = p_max_depth, dedup_window = p_window WHERE queues.id = found.id;
    END IF;
    RETURN QUERY SELECT found.id, found.partitions, found.base;
END $$;

-- How many messages a queue stores, in whatever state.
CREATE FUNCTION resonant_queue.total(p_queue int) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce(sum(h.n + o.n), 0)
            FROM resonant_queue.queues q CROSS JOIN generate_series(q.base, q.base + q.partitions - 1) p
            CROSS JOIN LATERAL (SELECT x.arrived + x.delayed AS n FROM resonant_queue.heads x WHERE x.partition = p
                ORDER BY x.turn DESC LIMIT 1) h
            CROSS JOIN LATERAL (SELECT x.parked + x.dead - x.gone AS n FROM resonant_queue.owners x WHERE x.partition = p
                ORDER BY x.turn DESC LIMIT 1) o
            WHERE q.id = p_queue)::bigint
         - (SELECT count(*) FROM resonant_queue.tallies t WHERE t.queue = p_queue);
END $$;

-- Bounds how long others wait for a transaction that publishes, and how long it waits for them: one whose client says
-- nothing for five seconds is ended by the server, and no lock is waited for longer than ten. Shorter limits of the
-- caller stay. Returns its limit for locks.
CREATE FUNCTION resonant_queue.bound() RETURNS text LANGUAGE plpgsql AS $$
DECLARE locks text := current_setting('lock_timeout'); idle text := current_setting('idle_in_transaction_session_timeout');
BEGIN
    IF locks = '0' OR locks::interval > '10 s' THEN
        PERFORM set_config('lock_timeout', '10s', true);
    END IF;
    IF idle = '0' OR idle::interval > '5 s' THEN
        PERFORM set_config('idle_in_transaction_session_timeout', '5s', true);
    END IF;
    RETURN locks;
END $$;

-- Locks the heads of partitions, in the order of their ids: all lock in the same order.
CREATE FUNCTION resonant_queue.hold(p_parts int[]) RETURNS void LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = on SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE part int;
BEGIN
    FOR part IN SELECT DISTINCT u.part FROM unnest(p_parts) u (part) ORDER BY u.part LOOP
        PERFORM 1 FROM heads h WHERE h.partition = part ORDER BY h.turn DESC LIMIT 1 FOR NO KEY UPDATE;
    END LOOP;
END $$;

-- Stores messages at the end of their partitions, and returns their sequences in the order given.
CREATE FUNCTION resonant_queue.append(p_parts int[], p_keys text[], p_headers text[], p_bodies text[])
RETURNS bigint[] LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off
SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE given bigint[]; t bigint; number int; n bigint; newest bigint; base bigint; held int[]; bases bigint[];
BEGIN
    -- All lock in the same order. What is read of keys is read after the lock is held. Row by row, as a join might look at
    -- all versions.
    FOR number, n IN SELECT u.part, count(*) FROM unnest(p_parts) u (part) GROUP BY u.part ORDER BY u.part LOOP
        SELECT h.turn INTO newest FROM heads h WHERE h.partition = number ORDER BY h.turn DESC LIMIT 1 FOR NO KEY UPDATE;
        UPDATE heads h SET turn = h.turn + 1, last = h.last + n, arrived = h.arrived + n WHERE h.partition = number AND h.turn = newest
            RETURNING h.last - n INTO base;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'resonant_queue: there is no such partition' USING ERRCODE = 'no_data_found';
        END IF;
        held := held || number;
        bases := bases || base;
    END LOOP;
    t := now_ms();
    WITH numbered AS MATERIALIZED (
        SELECT u.part, u.key, u.headers, u.body, u.ord,
            bases[array_position(held, u.part)] + row_number() OVER (PARTITION BY u.part ORDER BY u.ord) AS seq
        FROM unnest(p_parts, p_keys, p_headers, p_bodies) WITH ORDINALITY u (part, key, headers, body, ord)
    ), linked AS MATERIALIZED (
        SELECT l.*, k.sequence AS before, k.place
        FROM (SELECT n.*, lag(n.seq) OVER (PARTITION BY n.part, n.key ORDER BY n.seq) AS lagged FROM numbered n) l
        LEFT JOIN LATERAL (SELECT x.sequence, x.ctid AS place FROM keys x WHERE x.partition = l.part AND x.key = l.key
            AND l.lagged IS NULL ORDER BY x.sequence DESC LIMIT 1) k ON true
    ), latest AS MATERIALIZED (
        SELECT l.part, l.key, max(l.seq) AS seq, (array_agg(l.place) FILTER (WHERE l.place IS NOT NULL))[1] AS place
        FROM linked l WHERE l.key IS NOT NULL GROUP BY l.part, l.key
    ), moved_on AS (
        -- By its place, so that no plan looks at other versions.
        UPDATE keys k SET sequence = l.seq FROM latest l WHERE k.ctid = l.place
    ), remembered AS (
        INSERT INTO keys (partition, key, sequence) SELECT l.part, l.key, l.seq FROM latest l WHERE l.place IS NULL ORDER BY l.part, l.key
    ), stored AS (
        INSERT INTO messages (partition, sequence, previous, published, key, headers, body)
        SELECT l.part, l.seq, CASE WHEN l.key IS NOT NULL THEN coalesce(l.lagged, l.before) END, t, l.key, l.headers, l.body
        FROM linked l ORDER BY l.part, l.seq
    )
    SELECT array_agg(n.seq ORDER BY n.ord) INTO given FROM numbered n;
    RETURN given;
END $$;

-- Stores a batch. Returns the queue's depth before, and the sequences, or no sequences if it does not fit.
CREATE FUNCTION resonant_queue.publish(p_queue int, p_max bigint, p_parts int[], p_keys text[], p_headers text[], p_bodies text[])
RETURNS TABLE (depth bigint, sequences text) LANGUAGE plpgsql SET search_path = resonant_queue, pg_temp
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM bound();
    depth := total(p_queue);
    IF depth + array_length(p_parts, 1) <= p_max THEN
        sequences := array_to_string(append(p_parts, p_keys, p_headers, p_bodies), ',');
    END IF;
    RETURN NEXT;
END $$;

-- The same for messages with a delay or a unique id: one row for each, or one without a partition if they do not fit.
CREATE FUNCTION resonant_queue.publish_each(p_queue int, p_max bigint, p_window bigint, p_parts int[], p_keys text[],
    p_headers text[], p_bodies text[], p_delays bigint[], p_ids text[])
RETURNS TABLE (depth bigint, part int, sequence bigint, duplicate boolean) LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE t bigint := now_ms(); i int; locks text;
BEGIN
    depth := total(p_queue);
    IF depth + array_length(p_parts, 1) > p_max THEN
        RETURN NEXT;
        RETURN;
    END IF;
    locks := bound();
    PERFORM hold(p_parts);
    DELETE FROM unique_ids u WHERE u.queue = p_queue AND u.unique_id = ANY (ARRAY(
        SELECT v.unique_id FROM unique_ids v WHERE v.queue = p_queue AND v.at <= t - p_window
        ORDER BY v.at LIMIT 100 FOR UPDATE SKIP LOCKED));
    FOR i IN 1 .. array_length(p_parts, 1) LOOP
        part := p_parts[i]; sequence := NULL; duplicate := false;
        IF p_ids[i] IS NOT NULL THEN
            -- Waits for whoever stores the same id at this moment.
            INSERT INTO unique_ids (queue, unique_id, partition, at) VALUES (p_queue, p_ids[i], part, t)
            ON CONFLICT (queue, unique_id) DO UPDATE SET partition = excluded.partition, sequence = NULL, at = excluded.at
                WHERE unique_ids.at <= t - p_window;
            IF NOT FOUND THEN
                SELECT u.partition, u.sequence INTO part, sequence FROM unique_ids u WHERE u.queue = p_queue AND u.unique_id = p_ids[i];
                duplicate := true;
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;
        IF p_delays[i] IS NOT NULL THEN
            INSERT INTO delayed (partition, due, key, headers, body) VALUES (part, t + p_delays[i], p_keys[i], p_headers[i], p_bodies[i]);
            UPDATE heads h SET turn = h.turn + 1, delayed = h.delayed + 1 WHERE h.partition = part
                AND h.turn = (SELECT x.turn FROM heads x WHERE x.partition = part ORDER BY x.turn DESC LIMIT 1);
        ELSE
            sequence := (append(p_parts[i:i], p_keys[i:i], p_headers[i:i], p_bodies[i:i]))[1];
            IF p_ids[i] IS NOT NULL THEN
                UPDATE unique_ids u SET sequence = publish_each.sequence WHERE u.queue = p_queue AND u.unique_id = p_ids[i];
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    PERFORM set_config('lock_timeout', locks, true);
END $$;

-- Forgets ids that are too many, and keys that were not heard of for long.
CREATE FUNCTION resonant_queue.forget(p_queue int, p_limit bigint) RETURNS void LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp AS $$
DECLARE edge bigint;
BEGIN
    SELECT u.at INTO edge FROM unique_ids u WHERE u.queue = p_queue ORDER BY u.at DESC OFFSET p_limit LIMIT 1;
    IF edge IS NOT NULL THEN
        DELETE FROM unique_ids u WHERE u.queue = p_queue AND u.unique_id = ANY (ARRAY(
            SELECT v.unique_id FROM unique_ids v WHERE v.queue = p_queue AND v.at <= edge FOR UPDATE SKIP LOCKED));
    END IF;
    DELETE FROM keys k WHERE (k.partition, k.key, k.sequence) IN (
        SELECT l.partition, l.key, l.sequence FROM queues q CROSS JOIN generate_series(q.base, q.base + q.partitions - 1) p
        CROSS JOIN LATERAL (SELECT x.last FROM heads x WHERE x.partition = p ORDER BY x.turn DESC LIMIT 1) h
        JOIN keys l ON l.partition = p AND l.sequence < h.last - 1000000
        WHERE q.id = p_queue LIMIT 10000 FOR UPDATE OF l SKIP LOCKED);
END $$;

-- Moves what fell due to the end of its partition. Returns how many; -1 if somebody who publishes into the partition holds it
-- for longer than a moment: then ask again.
CREATE FUNCTION resonant_queue.promote(p_part int) RETURNS int LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE keys text[]; heads_ text[]; bodies text[]; n int; locks text := bound(); most text := current_setting('lock_timeout');
BEGIN
    -- In line with those that publish, as with SKIP LOCKED its turn might never come.
    BEGIN
        IF most::interval > '100 ms' THEN
            PERFORM set_config('lock_timeout', '100ms', true);
        END IF;
        PERFORM hold(ARRAY[p_part]);
    EXCEPTION WHEN lock_not_available THEN
        PERFORM set_config('lock_timeout', locks, true);
        RETURN -1;
    END;
    PERFORM set_config('lock_timeout', locks, true);
    WITH due AS (
        DELETE FROM delayed d WHERE d.id = ANY (ARRAY(
            SELECT e.id FROM delayed e WHERE e.partition = p_part AND e.due <= now_ms() ORDER BY e.due, e.id LIMIT 1000))
        RETURNING d.*
    )
    SELECT count(*), array_agg(d.key ORDER BY d.due, d.id), array_agg(d.headers ORDER BY d.due, d.id), array_agg(d.body ORDER BY d.due, d.id)
    INTO n, keys, heads_, bodies FROM due d;
    IF n > 0 THEN
        UPDATE heads h SET turn = h.turn + 1, delayed = h.delayed - n WHERE h.partition = p_part
            AND h.turn = (SELECT x.turn FROM heads x WHERE x.partition = p_part ORDER BY x.turn DESC LIMIT 1);
        PERFORM append(array_fill(p_part, ARRAY[n]), keys, heads_, bodies);
    END IF;
    RETURN n;
END $$;

-- Takes over a partition for an epoch. The first row has the epoch that holds now, the others the parked keys.
CREATE FUNCTION resonant_queue.open(p_part int, p_epoch bigint) RETURNS TABLE (epoch bigint, key text) LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE current bigint; newest bigint;
BEGIN
    SELECT o.epoch, o.turn INTO current, newest FROM owners o WHERE o.partition = p_part ORDER BY o.turn DESC LIMIT 1 FOR UPDATE;
    IF p_epoch < current THEN
        RETURN QUERY SELECT current, NULL::text;
        RETURN;
    END IF;
    UPDATE owners o SET turn = o.turn + 1, epoch = p_epoch WHERE o.partition = p_part AND o.turn = newest AND o.epoch <> p_epoch;
    DELETE FROM resumed r WHERE r.partition = p_part;
    RETURN QUERY SELECT p_epoch, NULL::text;
    RETURN QUERY SELECT p_epoch, k.key FROM parked_keys k WHERE k.partition = p_part;
END $$;

-- Messages after one sequence up to another. A last row without a sequence says that there are more.
CREATE FUNCTION resonant_queue.fetch(p_part int, p_after bigint, p_until bigint, p_limit bigint, p_bytes bigint)
RETURNS TABLE (sequence bigint, previous bigint, failures int, wait bigint, published bigint, key text, headers text, body text)
LANGUAGE plpgsql SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE msg record; size bigint := 0; n bigint := 0; t bigint := now_ms(); start bigint := p_after;
BEGIN
    IF start = 0 THEN
        SELECT o.low INTO start FROM owners o WHERE o.partition = p_part ORDER BY o.turn DESC LIMIT 1;
    END IF;
    FOR msg IN SELECT m.* FROM messages m WHERE m.partition = p_part AND m.sequence > start AND m.sequence <= p_until
               ORDER BY m.sequence LIMIT p_limit + 1 LOOP
        size := size + octet_length(msg.body);
        IF n >= p_limit OR (size > p_bytes AND n > 0) THEN
            sequence := NULL;
            RETURN NEXT;
            RETURN;
        END IF;
        n := n + 1;
        sequence := msg.sequence; previous := msg.previous; failures := msg.failures; published := msg.published;
        key := msg.key; headers := msg.headers; body := msg.body;
        wait := CASE WHEN msg.due > t THEN msg.due - t END;
        RETURN NEXT;
    END LOOP;
END $$;

-- What the owner is to know besides messages: keys that were resumed; without a key, in how many milliseconds the next
-- delayed message falls due.
CREATE FUNCTION resonant_queue.news(p_part int, p_seen bigint) RETURNS TABLE (number bigint, key text, sequence bigint)
LANGUAGE plpgsql SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT r.number, r.key, r.sequence FROM resumed r WHERE r.partition = p_part AND r.number > p_seen ORDER BY r.number;
    RETURN QUERY SELECT NULL::bigint, NULL::text, greatest(d.due - now_ms(), 0) FROM delayed d
        WHERE d.partition = p_part ORDER BY d.due, d.id LIMIT 1;
END $$;

-- Puts a message of a parked key aside; leaves it if the key is not parked.
CREATE FUNCTION resonant_queue.put_aside(p_part int, p_sequence bigint) RETURNS bigint LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE n bigint;
BEGIN
    WITH taken AS (
        DELETE FROM messages m USING parked_keys k
        WHERE m.partition = p_part AND m.sequence = p_sequence AND k.partition = p_part AND k.key = m.key
        RETURNING m.*
    )
    INSERT INTO parked (partition, key, sequence, previous, failures, published, headers, body)
    SELECT t.partition, t.key, t.sequence, t.previous, t.failures, t.published, t.headers, t.body FROM taken t;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;

-- Applies what became of messages, in order. Returns the epoch that holds; if it is another, nothing was changed.
CREATE FUNCTION resonant_queue.settle(p_part int, p_epoch bigint, p_done bigint[], p_rest json) RETURNS bigint LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    current bigint; old_low bigint; newest bigint; q int; t bigint; item json; s bigint; k text; n bigint; next bigint;
    gone_ bigint := 0; parked_ bigint := 0; keys_ bigint := 0; dead_ bigint := 0;
BEGIN
    SELECT o.epoch, o.low, o.queue, o.turn INTO current, old_low, q, newest FROM owners o WHERE o.partition = p_part
        ORDER BY o.turn DESC LIMIT 1 FOR NO KEY UPDATE;
    IF current <> p_epoch THEN
        RETURN current;
    END IF;
    IF p_rest IS NOT NULL THEN
        t := now_ms();
        FOR item IN SELECT * FROM json_array_elements(p_rest) LOOP
            s := (item->>'s')::bigint;
            CASE item->>'as'
            WHEN 'retry' THEN
                UPDATE messages SET failures = (item->>'f')::int, due = t + (item->>'w')::bigint, error = item->>'e'
                WHERE partition = p_part AND sequence = s;
            WHEN 'park' THEN
                UPDATE messages SET failures = (item->>'f')::int WHERE partition = p_part AND sequence = s RETURNING key INTO k;
                IF FOUND AND k IS NOT NULL THEN
                    INSERT INTO parked_keys (partition, key, sequence, since, error) VALUES (p_part, k, s, t, item->>'e')
                        ON CONFLICT DO NOTHING;
                    GET DIAGNOSTICS n = ROW_COUNT;
                    keys_ := keys_ + n;
                    n := put_aside(p_part, s);
                    gone_ := gone_ + n; parked_ := parked_ + n;
                END IF;
            WHEN 'behind' THEN
                n := put_aside(p_part, s);
                gone_ := gone_ + n; parked_ := parked_ + n;
            WHEN 'dead' THEN
                WITH taken AS (DELETE FROM messages m WHERE m.partition = p_part AND m.sequence = s RETURNING m.*)
                INSERT INTO dead (queue, partition, sequence, key, failures, published, died, error, headers, body)
                SELECT q, m.partition, m.sequence, m.key, (item->>'f')::int, m.published, t, item->>'e', m.headers, m.body FROM taken m;
                GET DIAGNOSTICS n = ROW_COUNT;
                gone_ := gone_ + n; dead_ := dead_ + n;
            END CASE;
        END LOOP;
    END IF;
    IF array_length(p_done, 1) > 0 THEN
        -- The bounds are for a plan that does not look up each.
        DELETE FROM messages WHERE partition = p_part AND sequence = ANY (p_done)
            AND sequence BETWEEN (SELECT min(d) FROM unnest(p_done) d) AND (SELECT max(d) FROM unnest(p_done) d);
        GET DIAGNOSTICS n = ROW_COUNT;
        gone_ := gone_ + n;
    END IF;
    DELETE FROM tallies WHERE partition = p_part;
    GET DIAGNOSTICS n = ROW_COUNT;
    gone_ := gone_ + n;
    -- Whoever looks for the first message starts behind the dead rows.
    SELECT m.sequence - 1 INTO next FROM messages m WHERE m.partition = p_part AND m.sequence > old_low ORDER BY m.sequence LIMIT 1;
    IF next IS NULL AND array_length(p_done, 1) > 0 THEN
        SELECT max(d) INTO next FROM unnest(p_done) d;
    END IF;
    UPDATE owners SET turn = turn + 1, gone = gone + gone_, parked = parked + parked_, parked_keys = parked_keys + keys_,
        dead = dead + dead_, low = greatest(low, next)
    WHERE partition = p_part AND turn = newest;
    RETURN current;
END $$;

-- Finishes messages inside the transaction that holds their effects; to be called last. Returns 0, or 1 if one of them is
-- finished already, or 2 if the partition has a newer owner: then the transaction must be rolled back.
CREATE FUNCTION resonant_queue.finish(p_part int, p_epoch bigint, p_sequences bigint[]) RETURNS int LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE current bigint; q int; n bigint;
BEGIN
    SELECT o.epoch, o.queue INTO current, q FROM owners o WHERE o.partition = p_part ORDER BY o.turn DESC LIMIT 1 FOR KEY SHARE;
    IF current IS DISTINCT FROM p_epoch THEN
        RETURN 2;
    END IF;
    DELETE FROM messages WHERE partition = p_part AND sequence = ANY (p_sequences)
        AND sequence BETWEEN (SELECT min(d) FROM unnest(p_sequences) d) AND (SELECT max(d) FROM unnest(p_sequences) d);
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n < cardinality(p_sequences) THEN
        RETURN 1;
    END IF;
    INSERT INTO tallies (partition, queue) SELECT p_part, q FROM generate_series(1, n);
    -- The next owner must wait for this transaction: one that froze here is ended by the server.
    PERFORM set_config('idle_in_transaction_session_timeout', '3000', true);
    RETURN 0;
END $$;

-- Which of these messages are still to be handled, separated by commas; null if the partition has another epoch.
CREATE FUNCTION resonant_queue.pending(p_part int, p_epoch bigint, p_sequences bigint[]) RETURNS text LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF (SELECT o.epoch FROM owners o WHERE o.partition = p_part ORDER BY o.turn DESC LIMIT 1) IS DISTINCT FROM p_epoch THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT coalesce(string_agg(m.sequence::text, ','), '') FROM messages m
            WHERE m.partition = p_part AND m.sequence = ANY (p_sequences)
            AND m.sequence BETWEEN (SELECT min(d) FROM unnest(p_sequences) d) AND (SELECT max(d) FROM unnest(p_sequences) d));
END $$;

-- Brings the messages of a parked key back under their old sequences. Returns how many; null if it is not parked.
CREATE FUNCTION resonant_queue.resume(p_part int, p_key text) RETURNS bigint LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE start bigint; n bigint; newest bigint;
BEGIN
    SELECT o.turn INTO newest FROM owners o WHERE o.partition = p_part ORDER BY o.turn DESC LIMIT 1 FOR NO KEY UPDATE;
    DELETE FROM parked_keys k WHERE k.partition = p_part AND k.key = p_key RETURNING k.sequence INTO start;
    IF start IS NULL THEN
        RETURN NULL;
    END IF;
    WITH back AS (DELETE FROM parked p WHERE p.partition = p_part AND p.key = p_key RETURNING p.*)
    INSERT INTO messages (partition, sequence, previous, published, key, headers, body)
    SELECT b.partition, b.sequence, b.previous, b.published, b.key, b.headers, b.body FROM back b ORDER BY b.sequence;
    GET DIAGNOSTICS n = ROW_COUNT;
    INSERT INTO resumed (partition, key, sequence) VALUES (p_part, p_key, start);
    UPDATE owners SET turn = turn + 1, parked = parked - n, parked_keys = parked_keys - 1, gone = gone - n, low = least(low, start - 1)
    WHERE partition = p_part AND turn = newest;
    RETURN n;
END $$;

-- Makes dead letters ready again, or removes them. Returns the partitions they were of, one for each.
CREATE FUNCTION resonant_queue.move_dead(p_queue int, p_limit bigint, p_alive boolean) RETURNS int[] LANGUAGE plpgsql
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE ids bigint[]; parts int[]; keys text[]; heads_ text[]; bodies text[]; part int; n bigint; newest bigint;
BEGIN
    PERFORM bound();
    ids := ARRAY(SELECT d.id FROM dead d WHERE d.queue = p_queue ORDER BY d.id LIMIT p_limit FOR UPDATE);
    IF cardinality(ids) = 0 THEN
        RETURN ARRAY[]::int[];
    END IF;
    WITH taken AS (DELETE FROM dead d WHERE d.id = ANY (ids) RETURNING d.*)
    SELECT array_agg(d.partition ORDER BY d.id), array_agg(d.key ORDER BY d.id), array_agg(d.headers ORDER BY d.id),
           array_agg(d.body ORDER BY d.id)
    INTO parts, keys, heads_, bodies FROM taken d;
    IF parts IS NULL THEN
        RETURN ARRAY[]::int[];
    END IF;
    IF p_alive THEN
        PERFORM append(parts, keys, heads_, bodies);
    END IF;
    FOR part, n IN SELECT u.part, count(*) FROM unnest(parts) u (part) GROUP BY u.part ORDER BY u.part LOOP
        SELECT o.turn INTO newest FROM owners o WHERE o.partition = part ORDER BY o.turn DESC LIMIT 1 FOR NO KEY UPDATE;
        UPDATE owners o SET turn = o.turn + 1, dead = o.dead - n WHERE o.partition = part AND o.turn = newest;
    END LOOP;
    RETURN parts;
END $$;

CREATE FUNCTION resonant_queue.stored(p_queue int)
RETURNS TABLE (ready bigint, delayed bigint, parked bigint, parked_keys bigint, dead bigint, age bigint) LANGUAGE sql STABLE
SET search_path = resonant_queue, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    SELECT (coalesce(sum(h.arrived - o.gone), 0) - (SELECT count(*) FROM tallies t WHERE t.queue = p_queue))::bigint,
        coalesce(sum(h.delayed), 0)::bigint, coalesce(sum(o.parked), 0)::bigint, coalesce(sum(o.parked_keys), 0)::bigint,
        coalesce(sum(o.dead), 0)::bigint, max(now_ms() - f.published)
    FROM queues q CROSS JOIN generate_series(q.base, q.base + q.partitions - 1) p
    CROSS JOIN LATERAL (SELECT x.* FROM heads x WHERE x.partition = p ORDER BY x.turn DESC LIMIT 1) h
    CROSS JOIN LATERAL (SELECT x.* FROM owners x WHERE x.partition = p ORDER BY x.turn DESC LIMIT 1) o
    LEFT JOIN LATERAL (SELECT m.published FROM messages m WHERE m.partition = p AND m.sequence > o.low ORDER BY m.sequence LIMIT 1) f ON true
    WHERE q.id = p_queue
$$;

-- XXH64 with seed 0, in arithmetic modulo 2^64 on signed numbers.
CREATE FUNCTION resonant_queue.wrap64(n numeric) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN m >= 9223372036854775808 THEN m - 18446744073709551616
                WHEN m < -9223372036854775808 THEN m + 18446744073709551616 ELSE m END::bigint
    FROM (SELECT mod(n, 18446744073709551616) AS m) x
$$;

CREATE FUNCTION resonant_queue.xxh64(p_data bytea) RETURNS bigint LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = resonant_queue, pg_temp AS $$
DECLARE
    p1 CONSTANT numeric := -7046029288634856825;
    p2 CONSTANT numeric := -4417276706812531889;
    p3 CONSTANT numeric := 1609587929392839161;
    p4 CONSTANT numeric := -8796714831421723037;
    p5 CONSTANT numeric := 2870177450012600261;
    turns CONSTANT int[] := ARRAY[1, 7, 12, 18];
    len int := octet_length(p_data); at int := 0; h bigint; lane bigint; acc bigint[]; x bigint; i int;
BEGIN
    IF len >= 32 THEN
        acc := ARRAY[wrap64(p1 + p2), p2::bigint, 0, wrap64(-p1)];
        WHILE at + 32 <= len LOOP
            FOR i IN 1 .. 4 LOOP
                x := wrap64(acc[i] + le64(p_data, at) * p2);
                acc[i] := wrap64(rotl64(x, 31) * p1);
                at := at + 8;
            END LOOP;
        END LOOP;
        h := wrap64(rotl64(acc[1], 1)::numeric + rotl64(acc[2], 7) + rotl64(acc[3], 12) + rotl64(acc[4], 18));
        FOR i IN 1 .. 4 LOOP
            x := wrap64(acc[i] * p2);
            h := wrap64((h # wrap64(rotl64(x, 31) * p1)) * p1 + p4);
        END LOOP;
    ELSE
        h := p5::bigint;
    END IF;
    h := wrap64(h::numeric + len);
    WHILE at + 8 <= len LOOP
        x := wrap64(le64(p_data, at) * p2);
        h := wrap64(rotl64(h # wrap64(rotl64(x, 31) * p1), 27) * p1 + p4);
        at := at + 8;
    END LOOP;
    IF at + 4 <= len THEN
        lane := get_byte(p_data, at)::bigint | (get_byte(p_data, at + 1)::bigint << 8)
            | (get_byte(p_data, at + 2)::bigint << 16) | (get_byte(p_data, at + 3)::bigint << 24);
        h := wrap64(rotl64(h # wrap64(lane * p1), 23) * p2 + p3);
        at := at + 4;
    END IF;
    WHILE at < len LOOP
        h := wrap64(rotl64(h # wrap64(get_byte(p_data, at) * p5), 11) * p1);
        at := at + 1;
    END LOOP;
    h := wrap64((h # ((h >> 33) & 2147483647)) * p2);
    h := wrap64((h # ((h >> 29) & 34359738367)) * p3);
    RETURN h # ((h >> 32) & 4294967295);
END $$;

CREATE FUNCTION resonant_queue.rotl64(x bigint, n int) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT (x << n) | ((x >> (64 - n)) & ((1::bigint << n) - 1)) $$;

CREATE FUNCTION resonant_queue.le64(data bytea, at int) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT get_byte(data, at)::bigint | (get_byte(data, at + 1)::bigint << 8) | (get_byte(data, at + 2)::bigint << 16)
         | (get_byte(data, at + 3)::bigint << 24) | (get_byte(data, at + 4)::bigint << 32) | (get_byte(data, at + 5)::bigint << 40)
         | (get_byte(data, at + 6)::bigint << 48) | (get_byte(data, at + 7)::bigint << 56)
$$;

-- The partition of a key: XXH64 of its UTF-8 bytes, modulo their number.
CREATE FUNCTION resonant_queue.partition_of(p_key text, p_partitions int) RETURNS int LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT mod(CASE WHEN h < 0 THEN h + 18446744073709551616 ELSE h END, p_partitions)::int
    FROM (SELECT resonant_queue.xxh64(convert_to(p_key, 'UTF8'))::numeric AS h) x
$$;

-- Publishes a message in the transaction of the caller. Returns its sequence, or null for a delayed one.
CREATE FUNCTION resonant_publish(queue text, key text, payload json, headers json DEFAULT NULL, delay interval DEFAULT NULL,
    unique_id text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SET search_path = resonant_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE known queues; place text := key; number int; stored record;
BEGIN
    SELECT * INTO known FROM queues q WHERE q.name = resonant_publish.queue;
    IF known.id IS NULL THEN
        RAISE EXCEPTION 'there is no queue %', quote_literal(queue) USING ERRCODE = 'undefined_object',
            HINT = 'A program creates it when it builds its PartitionedQueue.';
    END IF;
    IF payload IS NULL THEN
        RAISE EXCEPTION 'the payload is null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    place := coalesce(key, unique_id);
    number := CASE WHEN place IS NULL THEN floor(random() * known.partitions)::int ELSE partition_of(place, known.partitions) END;
    SELECT * INTO stored FROM publish_each(known.id, known.max_depth, known.dedup_window, ARRAY[known.base + number], ARRAY[key],
        ARRAY[headers::text], ARRAY[payload::text],
        ARRAY[CASE WHEN delay > interval '0' THEN ceil(extract(epoch FROM delay) * 1000)::bigint END], ARRAY[unique_id]);
    IF stored.part IS NULL THEN
        RAISE EXCEPTION 'the queue % is full: it holds % of % messages', quote_literal(queue), stored.depth, known.max_depth
            USING ERRCODE = 'configuration_limit_exceeded', HINT = 'Add workers or raise max_depth.';
    END IF;
    IF NOT stored.duplicate THEN
        PERFORM pg_notify('resonant_queue', CASE WHEN stored.sequence IS NULL THEN '!' ELSE '' END || (known.base + number));
    END IF;
    RETURN stored.sequence;
END $$;
