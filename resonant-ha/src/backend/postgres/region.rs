//! A region that is a PostgreSQL server with streaming replication.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::address::Address;
use super::agent::PostgresAgent;
use super::client::{Link, Session, connect, is, row, row_with, run, run_at_once, told};
use super::standing::{settle, shows};
use super::{names, sql};
use crate::error::{Error, ErrorKind, Result};
use crate::region::{
    Frozen, Observation, Pledge, PledgedTo, Proof, Reach, RegionBackend, RegionTarget, Role,
};

/// How long a re-pointed standby may take to receive before it counts as parted from the primary.
const STREAMS: Duration = Duration::from_secs(4);
/// How long transactions may end by themselves when a primary is demoted.
const GRACE: Duration = Duration::from_millis(500);
/// How long the connection of an order may serve the next one: less than the server's limit for idle ones.
const KEPT: Duration = Duration::from_secs(3);
/// Between two looks at a server.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the session of an order says that it lives while the agent works.
const ALIVE: Duration = Duration::from_secs(1);

/// A PostgreSQL server. See [the module](crate::backend::postgres) for what it needs.
///
/// Its URLs hold passwords: `Debug` shows none.
pub struct PostgresRegion {
    link: Link,
    orders: Link,
    client_url: Option<String>,
    replication_url: Option<String>,
    standby_name: String,
    agent: Option<Arc<dyn PostgresAgent>>,
}

impl PostgresRegion {
    /// A server, by the URL the manager uses, `postgresql://user:password@host:5432/database`. Clients get the same,
    /// unless [`client_url`](PostgresRegion::client_url) says otherwise.
    pub fn new(url: impl Into<String>) -> Self {
        let url = url.into();
        Self {
            link: Link::new(url.clone()),
            orders: Link::with_first(url, sql::ORDER),
            client_url: None,
            replication_url: None,
            standby_name: "resonant".to_owned(),
            agent: None,
        }
    }

    /// The URL that topologies give to clients.
    #[must_use]
    pub fn client_url(mut self, url: impl Into<String>) -> Self {
        self.client_url = Some(url.into());
        self
    }

    /// The URL standbys use to receive from this server. It is written into their `primary_conninfo`, password included.
    #[must_use]
    pub fn replication_url(mut self, url: impl Into<String>) -> Self {
        self.replication_url = Some(url.into());
        self
    }

    /// The name this server has in the others' `synchronous_standby_names`. Default `resonant`.
    #[must_use]
    pub fn standby_name(mut self, name: impl Into<String>) -> Self {
        self.standby_name = name.into();
        self
    }

    /// Power over the host: without it a primary that does not answer cannot be fenced by itself, and one whose history
    /// has parted cannot come back.
    #[must_use]
    pub fn agent(mut self, agent: impl PostgresAgent) -> Self {
        self.agent = Some(Arc::new(agent));
        self
    }

    /// Creates the table `resonant_ha` where it is missing; call it on the primary, once.
    ///
    /// # Errors
    ///
    /// `Unavailable`; `Failed` when the role may not, or the server is a standby.
    pub async fn create_table(&self) -> Result<()> {
        let mut client = connect(self.link.address(), "create_table").await?;
        run(&client, "create_table", &[sql::CREATE]).await?;
        client.answered();
        Ok(())
    }

    async fn observe(&self, client: &Client, recent: Duration) -> Result<Observation> {
        let recent = recent.as_secs_f64();
        let seen = row_with(client, "probe", sql::OBSERVE, &[(&recent, Type::FLOAT8)]).await?;
        let pledge = row(client, "probe", sql::PLEDGE).await?;
        let system: String = seen.get(1);
        let offset: String = seen.get(2);
        let role = if seen.get(0) { Role::Standby } else { Role::Primary };
        let read_only = role == Role::Primary && seen.get(6);
        let sick = match role {
            // One that was told to end its writes has ended, and what it wrote now would part it from its heir.
            Role::Primary if !read_only => heartbeat(client).await?,
            _ => None,
        };
        let (names, commit): (String, String) = (seen.get(4), seen.get(5));
        Ok(Observation {
            role,
            sick,
            read_only,
            system: system.parse().unwrap_or(0),
            reach: Reach {
                lineage: lineage(client).await?,
                // A standby knows its own only as of its last restart point; the epoch row tells branches apart.
                timeline: 0,
                offset: offset.parse().unwrap_or(0),
            },
            pledge: sql::read_pledge(pledge.get(0)),
            started: u64::try_from(seen.get::<_, i64>(7)).unwrap_or(0),
            hears_primary: role == Role::Standby && seen.get(3),
            commits: names::commits(&names, &commit),
        })
    }

    /// A connection that holds the server's lock and has taken the order's pledge. The lock ends with the connection.
    async fn obey(&self, operation: &'static str, order: &Pledge) -> Result<Session> {
        let (client, pledged) = self.orders.ask(KEPT, operation, &[sql::LOCK, sql::PLEDGE]).await?;
        let pledged = sql::read_pledge(&pledged);
        if !pledged.admits(order) {
            return Err(PledgedTo(pledged).refuse(operation));
        }
        if pledged != *order {
            run(&client, operation, &[&sql::pledge(order)]).await?;
        }
        Ok(client)
    }

    /// Lets the server's lock go and keeps the connection for the next order, which comes soon.
    async fn obeyed(&self, client: Session) {
        // One that does not unlock ends, and its lock with it.
        if client.batch_execute(sql::UNLOCK).await.is_ok() {
            self.orders.keep(client);
        }
    }

    /// Receives from `primary`; whether it does within a while.
    async fn receive_from(
        &self,
        client: &Client,
        operation: &'static str,
        primary: &RegionTarget,
    ) -> Result<bool> {
        let slot: String =
            row(client, operation, "SELECT current_setting('primary_slot_name')").await?.get(0);
        if !slot.is_empty() {
            let mut primary = connect(&Address::new(&primary.replication_url), operation).await?;
            let make = "SELECT pg_create_physical_replication_slot($1, true) \
                        WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)";
            primary.query(make, &[&slot]).await.map_err(|error| told(operation, error))?;
            primary.answered();
        }
        let conninfo = sql::conninfo(&primary.replication_url, &self.standby_name);
        let set = format!("ALTER SYSTEM SET primary_conninfo = {}", sql::quote(&conninfo));
        run_at_once(client, operation, &[&set, "SELECT pg_reload_conf()"]).await?;
        let began = Instant::now();
        while began.elapsed() < STREAMS {
            let streams = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') \
                           AND current_setting('primary_conninfo') = $1";
            if row_with(client, operation, streams, &[(&conninfo, Type::TEXT)]).await?.get(0) {
                return Ok(true);
            }
            sleep(PAUSE).await;
        }
        Ok(false)
    }

    /// Lets no session begin to write by itself from here on: before a promotion, so that the epoch row is the first write,
    /// and when a primary is demoted.
    async fn close(&self, client: &Client, operation: &'static str) -> Result<()> {
        let close =
            ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"];
        run_at_once(client, operation, &close).await?;
        // A session that is let in with it shows that all others have been told.
        while !shows(self.link.address(), operation, "default_transaction_read_only", "on").await? {
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Waits until as many standbys as commits wait for have what was committed last.
    async fn acknowledged(&self, client: &Client) -> Result<()> {
        let setting = "SELECT current_setting('synchronous_standby_names'), \
                       pg_current_wal_flush_lsn()::text";
        let seen = row(client, "confirm", setting).await?;
        let (list, end): (String, String) = (seen.get(0), seen.get(1));
        let count = i64::from(names::commits(&list, "on").count);
        loop {
            let standbys =
                row_with(client, "confirm", sql::ACKNOWLEDGED, &[(&end, Type::TEXT)]).await?;
            if standbys.get::<_, i64>(0) >= count {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }
}

impl fmt::Debug for PostgresRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresRegion")
            .field("standby_name", &self.standby_name)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RegionBackend for PostgresRegion {
    fn url(&self) -> String {
        self.client_url.clone().unwrap_or_else(|| self.link.url().to_owned())
    }

    fn replication_url(&self) -> String {
        self.replication_url.clone().unwrap_or_else(|| self.link.url().to_owned())
    }

    fn standby_name(&self) -> Option<&str> {
        Some(&self.standby_name)
    }

    fn can_fence(&self) -> bool {
        self.agent.is_some()
    }

    async fn probe(&self, recent: Duration) -> Result<Observation> {
        if let Some(kept) = self.link.kept(Duration::MAX) {
            match self.observe(&kept, recent).await {
                // It died while it was kept, which says nothing about the region.
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                seen => {
                    let seen = seen?;
                    self.link.keep(kept);
                    return Ok(seen);
                }
            }
        }
        let client = self.link.open("probe").await?;
        let seen = self.observe(&client, recent).await?;
        self.link.keep(client);
        Ok(seen)
    }

    async fn fence(&self, order: &Pledge) -> Result<Proof> {
        match &self.agent {
            Some(agent) => {
                let by = agent.stop(order).await?;
                // The manager knows the name.
                Ok(Proof::Stopped { region: self.standby_name.as_str().into(), by })
            }
            None => Err(Error::new(
                ErrorKind::Unsupported,
                "fence",
                "a server cannot be fenced by SQL: give the region an agent()",
            )),
        }
    }

    async fn freeze(&self, order: &Pledge) -> Result<Frozen> {
        let client = self.obey("freeze", order).await?;
        let seen = self.observe(&client, Duration::ZERO).await?;
        let Observation { role, sick, system, mut reach, .. } = seen;
        if role == Role::Standby {
            reach.offset = settle(&client, self.link.address()).await?;
            reach.lineage = lineage(&client).await?;
        }
        self.obeyed(client).await;
        Ok(Frozen { role, sick, system, reach })
    }

    async fn demote(
        &self,
        order: &Pledge,
        heir: &dyn RegionBackend,
    ) -> Result<(Reach, Option<Proof>)> {
        let client = self.obey("demote", order).await?;
        let recovers: bool = row(&client, "demote", "SELECT pg_is_in_recovery()").await?.get(0);
        if recovers {
            return Err(Error::new(ErrorKind::Failed, "demote", "the server is a standby"));
        }
        self.close(&client, "demote").await?;
        let began = Instant::now();
        // Sessions take the setting at their next statement; those in a transaction may end it, for a moment.
        while began.elapsed() < GRACE {
            let busy = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL)";
            if !row(&client, "demote", busy).await?.get::<_, bool>(0) {
                break;
            }
            sleep(PAUSE).await;
        }
        let rest = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
                    AND (backend_xid IS NOT NULL OR xact_start IS NOT NULL)";
        run(&client, "demote", &[rest]).await?;
        // Its commit writes everything before it, up to the end of a record.
        heartbeat(&client).await?;
        let reach = self.observe(&client, Duration::ZERO).await?.reach;
        loop {
            let theirs = heir.probe(Duration::from_secs(1)).await?.reach;
            if theirs.offset >= reach.offset {
                self.obeyed(client).await;
                return Ok((reach, None));
            }
            sleep(PAUSE).await;
        }
    }

    async fn promote(&self, order: &Pledge) -> Result<u32> {
        let mut client = self.obey("promote", order).await?;
        let recovers: bool = row(&client, "promote", "SELECT pg_is_in_recovery()").await?.get(0);
        if recovers {
            self.close(&client, "promote").await?;
            // A promotion that was asked for cannot be taken back: the lock is kept until it has ended.
            client.answered();
            let promoted: bool = row(&client, "promote", sql::PROMOTE).await?.get(0);
            if !promoted {
                let message = "the promotion did not end within 25 s";
                return Err(
                    Error::new(ErrorKind::TimedOut, "promote", message).with_may_have_applied()
                );
            }
        }
        run(&client, "promote", &[sql::END_WAITING, &sql::epoch_row(order)]).await?;
        let open = [
            "ALTER SYSTEM RESET primary_conninfo",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        ];
        run_at_once(&client, "promote", &open).await?;
        let timeline: i32 = row(&client, "promote", sql::TIMELINE).await?.get(0);
        self.obeyed(client).await;
        Ok(u32::try_from(timeline).unwrap_or(0))
    }

    async fn repoint(&self, order: &Pledge, primary: &RegionTarget) -> Result<()> {
        let client = self.obey("repoint", order).await?;
        let receives = self.receive_from(&client, "repoint", primary).await?;
        self.obeyed(client).await;
        match receives {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Failed,
                "repoint",
                "the standby does not receive from the new primary; its history may have parted",
            )),
        }
    }

    async fn confirm(&self, order: &Pledge) -> Result<()> {
        let client = self.obey("confirm", order).await?;
        // The commit may wait for standbys that are only coming, so the lock is let go before it, but not before the row is
        // written: an order that comes late must find the newer one there, and leaves it as it is.
        run(&client, "confirm", &[&sql::confirm(order)]).await?;
        // A wait that somebody cancels ends as if all were well.
        self.acknowledged(&client).await?;
        self.obeyed(client).await;
        Ok(())
    }

    async fn rejoin(&self, order: &Pledge, primary: &RegionTarget) -> Result<Option<u64>> {
        if primary.replication_url == self.replication_url() {
            let message = "a server cannot follow itself";
            return Err(Error::new(ErrorKind::Failed, "rejoin", message));
        }
        // One that hangs is as good as down here: the agent decides.
        let hangs = || Error::new(ErrorKind::Unavailable, "rejoin", "the server does not answer");
        let obeyed = timeout(STREAMS, self.obey("rejoin", order)).await;
        let held = match obeyed.unwrap_or_else(|_| Err(hangs())) {
            Ok(mut client) => {
                let seen = self.observe(&client, Duration::ZERO).await?;
                if seen.role == Role::Standby
                    && self.receive_from(&client, "rejoin", primary).await?
                {
                    client.answered();
                    return Ok(Some(0));
                }
                Some((client, seen.reach.offset))
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => None,
            Err(error) => return Err(error),
        };
        let Some(agent) = &self.agent else {
            let message =
                "the server's history has parted from the primary's: give the region an agent()";
            return Err(Error::new(ErrorKind::Unsupported, "rejoin", message));
        };
        let mut source = connect(&Address::new(&primary.replication_url), "rejoin").await?;
        // Until this is written a rewind finds nothing to do; it takes as long as it takes.
        run(&source, "rejoin", &["SET statement_timeout = 0", "CHECKPOINT"]).await?;
        let fork = fork(&source).await?;
        source.answered();
        // The lock is held until the server stops, so nobody pledges it between the look at its pledge and its end; from
        // then on the agent looks.
        let alive = async {
            match &held {
                Some((client, _)) => keep_alive(client).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            rejoined = agent.rejoin(order, primary) => rejoined?,
            () = alive => {}
        }
        let before = held.map(|(mut client, before)| {
            client.answered();
            before
        });
        let mut client = self.obey("rejoin", order).await?;
        run(&client, "rejoin", &["ALTER SYSTEM RESET default_transaction_read_only"]).await?;
        self.receive_from(&client, "rejoin", primary).await?;
        client.answered();
        Ok(before.zip(fork).map(|(before, fork)| before.saturating_sub(fork)))
    }
}

/// Keeps an idle session from being ended; never returns.
async fn keep_alive(client: &Client) {
    loop {
        sleep(ALIVE).await;
        if client.batch_execute("").await.is_err() {
            // The server has stopped, as it should.
            std::future::pending::<()>().await;
        }
    }
}

/// Writes on a primary; what keeps it from it.
async fn heartbeat(client: &Client) -> Result<Option<String>> {
    match client.batch_execute(sql::HEARTBEAT).await {
        Ok(()) => Ok(None),
        Err(error) => {
            let Some(said) = error.as_db_error() else { return Err(told("probe", error)) };
            let why = format!("it cannot write: {} {}", said.code().code(), said.message());
            // The row is locked by an epoch that waits for its standbys: something writes.
            let none =
                is(&error, &SqlState::UNDEFINED_TABLE) || is(&error, &SqlState::LOCK_NOT_AVAILABLE);
            client.batch_execute("ROLLBACK").await.map_err(|error| told("probe", error))?;
            // And where nobody asked for the table, writing is not tried.
            Ok((!none).then_some(why))
        }
    }
}

async fn lineage(client: &Client) -> Result<u64> {
    match client.query_typed_opt(sql::LINEAGE, &[]).await {
        Ok(row) => Ok(row.map_or(0, |row| u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))),
        Err(error) if is(&error, &SqlState::UNDEFINED_TABLE) => Ok(0),
        Err(error) => Err(told("probe", error)),
    }
}

/// Where the primary's timeline began.
async fn fork(primary: &Client) -> Result<Option<u64>> {
    let sql = "SELECT pg_read_file('pg_wal/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '.history', 0, 1000000, true)";
    let history: Option<String> = row(primary, "rejoin", sql).await?.get(0);
    let last = history.as_deref().and_then(|text| {
        let line = text.lines().rfind(|line| !line.trim().is_empty())?;
        let (high, low) = line.split('\t').nth(1)?.split_once('/')?;
        let part = |text: &str| u64::from_str_radix(text.trim(), 16).ok();
        Some((part(high)? << 32) + part(low)?)
    });
    Ok(last)
}
