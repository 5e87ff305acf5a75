//! What a statement changes in its session, seen while SQLite compiles it.

use rusqlite::hooks::{AuthAction, AuthContext};

/// Pragmas that take an argument and change nothing in the session.
const HARMLESS: [&str; 13] = [
    "application_id",
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "optimize",
    "quick_check",
    "table_info",
    "table_xinfo",
    "user_version",
    "wal_checkpoint",
];

/// Whether what the statement does outlives it in the session, so that the next caller would meet it.
pub(super) fn alters_session(context: &AuthContext<'_>) -> bool {
    match context.action {
        AuthAction::Pragma { pragma_name, pragma_value } => {
            pragma_value.is_some()
                && !HARMLESS.iter().any(|harmless| pragma_name.eq_ignore_ascii_case(harmless))
        }
        AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempIndex { .. } => true,
        _ => false,
    }
}
