//! The reading methods that every handle offers, written once.

use crate::{Error, ErrorKind, Result, Row, Rows};

/// The only row, if there is one.
pub(super) fn at_most_one(operation: &'static str, rows: &Rows) -> Result<Option<Row>> {
    match rows.len() {
        0 | 1 => Ok(rows.first()),
        count => {
            let message =
                format!("one row was asked for and there are {count}; add LIMIT 1 or a condition");
            Err(Error::new(ErrorKind::Rejected, operation, message))
        }
    }
}

/// The only row.
pub(super) fn exactly_one(operation: &'static str, rows: &Rows) -> Result<Row> {
    at_most_one(operation, rows)?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, operation, "one row was asked for and there is none")
    })
}

/// The methods, over `self.rows(site, sql, params) -> impl Future<Output = Result<Rows>> + Send`.
macro_rules! query_methods {
    ($self:ident: $receiver:ty) => {
        /// Runs a statement and answers its rows.
        ///
        /// # Errors
        ///
        /// `Rejected` for a statement the engine refuses, `Constraint` for data it refuses, `Overloaded` when no connection
        /// comes free in time, `TimedOut` when the statement runs into its limit, `Unavailable` when no node can be
        /// reached.
        #[track_caller]
        pub fn query(
            $self: $receiver,
            sql: &str,
            params: &[crate::Param<'_>],
        ) -> impl Future<Output = Result<Rows>> + Send {
            let site = std::panic::Location::caller();
            $self.rows(site, sql, params)
        }

        /// Runs a statement and answers its only row.
        ///
        /// # Errors
        ///
        /// As [`query`](Self::query); `NotFound` when there is no row, `Rejected` when there are several.
        #[track_caller]
        pub fn query_one(
            $self: $receiver,
            sql: &str,
            params: &[crate::Param<'_>],
        ) -> impl Future<Output = Result<crate::Row>> + Send {
            let rows = $self.query(sql, params);
            async move { crate::database::queries::exactly_one("query_one", &rows.await?) }
        }

        /// Runs a statement and answers its only row, if there is one.
        ///
        /// # Errors
        ///
        /// As [`query`](Self::query); `Rejected` when there are several rows.
        #[track_caller]
        pub fn query_opt(
            $self: $receiver,
            sql: &str,
            params: &[crate::Param<'_>],
        ) -> impl Future<Output = Result<Option<crate::Row>>> + Send {
            let rows = $self.query(sql, params);
            async move { crate::database::queries::at_most_one("query_opt", &rows.await?) }
        }

        /// Runs a statement and answers its rows as values of `T`: a struct by column name, a tuple by position, a scalar
        /// from a single column.
        ///
        /// # Errors
        ///
        /// As [`query`](Self::query); `Decode` names the column and the types.
        #[track_caller]
        pub fn query_as<T: serde::de::DeserializeOwned>(
            $self: $receiver,
            sql: &str,
            params: &[crate::Param<'_>],
        ) -> impl Future<Output = Result<Vec<T>>> + Send {
            let rows = $self.query(sql, params);
            async move { rows.await?.decode() }
        }

        /// Runs a statement and answers its only row as a `T`.
        ///
        /// # Errors
        ///
        /// As [`query_one`](Self::query_one); `Decode` names the column and the types.
        #[track_caller]
        pub fn query_one_as<T: serde::de::DeserializeOwned>(
            $self: $receiver,
            sql: &str,
            params: &[crate::Param<'_>],
        ) -> impl Future<Output = Result<T>> + Send {
            let row = $self.query_one(sql, params);
            async move { row.await?.decode() }
        }

        /// Runs a statement and answers its only row as a `T`, if there is one.
        ///
        /// # Errors
        ///
        /// As [`query_opt`](Self::query_opt); `Decode` names the column and the types.
        #[track_caller]
        pub fn query_opt_as<T: serde::de::DeserializeOwned>(
            $self: $receiver,
            sql: &str,
            params: &[crate::Param<'_>],
        ) -> impl Future<Output = Result<Option<T>>> + Send {
            let row = $self.query_opt(sql, params);
            async move { row.await?.map(|row| row.decode()).transpose() }
        }
    };
}

pub(super) use query_methods;
