//! The words the scanner knows.

/// What a statement that reads begins with.
pub(super) const FIRST: &str = "\
    select with values table";

/// Words that a statement which writes, locks or leaves something behind cannot do without.
pub(super) const NEVER: &str = "\
    insert update delete merge into for lock call copy tablesample";

/// Words before a parenthesis that are no functions.
pub(super) const BEFORE_PARENTHESES: &str = "\
    all and any array as between by case char character decimal distinct else except exists filter from \
    group having ilike in intersect interval is join lateral like limit materialized not numeric offset \
    on or over row select some then time timestamp timestamptz union using values varchar when where";

/// Functions and aggregates that depend on nothing but their arguments and the clock.
pub(super) const FUNCTIONS: &str = "\
    abs age array_agg array_length array_position array_to_string avg bit_and bit_or bool_and bool_or \
    btrim cardinality cast ceil ceiling char_length clock_timestamp coalesce concat concat_ws count date \
    date_part date_trunc decode dense_rank div encode every exp extract first_value floor format \
    greatest initcap json_agg json_array_length json_build_array json_build_object json_object_agg \
    jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array \
    jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text \
    jsonb_object_agg jsonb_object_keys jsonb_strip_nulls jsonb_typeof lag last_value lead least left \
    length ln log lower lpad ltrim make_date make_interval make_timestamptz max md5 min mod now ntile \
    nullif num_nonnulls num_nulls octet_length overlay percent_rank position power rank replace reverse \
    right round row_number row_to_json rpad rtrim sha256 sign split_part sqrt starts_with \
    statement_timestamp string_agg string_to_array strpos substr substring sum to_char to_date to_json \
    to_jsonb to_number to_timestamp translate trim trunc unnest upper variance width_bucket";
