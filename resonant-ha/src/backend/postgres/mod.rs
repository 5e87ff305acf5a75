//! PostgreSQL with streaming replication: regions, and voters. Needs PostgreSQL 13 or later; tested with 15.
//!
//! # What is created, and only by [`PostgresRegion::create_table`] and [`PostgresVoter::create_table`]
//!
//! - On the primary, and so on its standbys: the table `resonant_ha` with one row, the epoch row.
//! - On each voter's database: the table `resonant_ha_voter`.
//!
//! A region's pledge has to be kept where a standby can write: it is the server parameter `event_source`, set by
//! `ALTER SYSTEM`. It means something on Windows only, and the server never has to read it; it logs at each reload that
//! a restart would be needed.
//!
//! # Who logs in
//!
//! A superuser, or a role that may: `ALTER SYSTEM`, `pg_reload_conf`, `pg_promote`, `pg_terminate_backend`, `pg_stat_file`,
//! read `pg_file_settings`, all of `pg_stat_activity` and `pg_stat_wal_receiver`, and write the table. Connections must lead
//! to the server itself: a pooler between them would share the lock that an order holds.
//!
//! # Encryption
//!
//! `sslmode=verify-full` in a URL encrypts, and looks at the server's certificate and name; it needs the feature `tls`. The
//! authorities are those of the file `sslrootcert`, which a standby that gets the URL for its `primary_conninfo` has to have,
//! too, or the system's. A manager looks as closely where the URL says `require` or `verify-ca`. Without `sslmode`, and with
//! `disable`, `allow` and `prefer`, nothing is encrypted.
//!
//! # What a standby is weighed by
//!
//! By all it received, known to be all: it receives no more, replay has come to its end, and the server searches for more
//! in vain. Replay that is paused, delayed (`recovery_min_apply_delay`), held by readers (`max_standby_streaming_delay`) or
//! not through after a restart makes the standby [unable](crate::Unsettled) for as long as that lasts: it is neither
//! promoted nor taken for a proof. With a `restore_command` a standby may go on to replay what the old primary archived;
//! it acknowledges nothing by that.
//!
//! # How a standby hears the primary
//!
//! It receives, and the last word came within a probe interval or three quarters of `wal_receiver_timeout`, whichever is
//! longer: an idle primary says nothing for half of it. A primary that is killed is noticed at once; one that hangs while
//! standbys still count as hearing it only after that time, 45 s by default. Lower the parameter where that is too long.
//!
//! # Synchronous standbys
//!
//! `synchronous_standby_names` has to be set alike on every region, naming the others by
//! [`standby_name`](PostgresRegion::standby_name). A name of nobody, or `*`, may be answered for by somebody the manager
//! does not know, so it [counts against](crate::CommitsWaitFor::among) the regions. A client that lowers `synchronous_commit` for itself gets
//! acknowledgements that no standby stands for; such writes are outside every promise. Pause the manager while you
//! change the setting.

mod address;
mod agent;
mod client;
mod names;
mod pledge;
mod region;
mod sql;
mod standing;
#[cfg(feature = "tls")]
mod tls;
mod voter;

pub use self::agent::{CommandAgent, PostgresAgent};
pub use self::pledge::PledgeFile;
pub use self::region::PostgresRegion;
pub use self::voter::PostgresVoter;
