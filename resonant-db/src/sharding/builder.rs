//! Building a sharded database.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures::future::select_ok;
use resonant_common::telemetry::{Counter, names};

use super::catalogue::{self, Catalogue};
use super::config::ShardedConfig;
#[cfg(feature = "postgres")]
use super::database::Origin;
use super::database::{Inner, ShardedDatabase};
use super::function::{BucketMap, Bucketed, Pinned, ShardBy, ShardFunction};
use super::guard::{ANY_NUMBER, Guard, Place};
use super::inspect::{Declared, Inspection, State};
use super::key::{KeyType, OwnedKey};
use super::live::Live;
use super::meters::{Meters, ShardMeters};
use super::route::Access;
use super::router::ShardRouter;
use super::schema::{Engine, Schema};
use super::shard::Shard;
use super::{ShardConfig, TableConfig};
use crate::backend::target::scheme_of;
use crate::{Database, Error, ErrorKind, PoolConfig, Result};

const ROUTE_CACHE_BYTES: usize = 16 << 20;

/// Builds a [`ShardedDatabase`]; made by [`ShardedDatabase::builder`].
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until it is told to connect"]
pub struct ShardedDatabaseBuilder {
    name: Option<String>,
    shards: Vec<(String, ShardConfig)>,
    shard_key: String,
    function: ShardFunction,
    tables: Vec<(String, Option<String>, KeyType)>,
    references: Vec<String>,
    functions: Vec<String>,
    pins: Vec<(OwnedKey, String)>,
    bucket_map: Option<BucketMap>,
    route_cache_bytes: Option<usize>,
    pool: Option<PoolConfig>,
    guard: bool,
    live_map: bool,
    learn: bool,
    merge_rows: Option<usize>,
    statement_timeout: Option<Option<Duration>>,
}

impl ShardedDatabaseBuilder {
    pub(super) fn from_config(config: ShardedConfig) -> Self {
        let shards = config
            .ordered()
            .into_iter()
            .map(|(name, shard)| (name.to_owned(), shard.clone()))
            .collect();
        let tables = config.tables.into_iter().map(|(table, declared)| match declared {
            TableConfig::Type(key_type) => (table, None, key_type),
            TableConfig::Key { key, key_type } => (table, Some(key), key_type),
        });
        Self {
            name: None,
            shards,
            shard_key: config.shard_key,
            function: config.shard_function.into(),
            tables: tables.collect(),
            references: config.references,
            functions: config.functions,
            pins: config
                .pins
                .into_iter()
                .map(|(key, shard)| (OwnedKey::Text(key.into()), shard))
                .collect(),
            bucket_map: config.bucket_map,
            route_cache_bytes: config.route_cache_bytes,
            pool: None,
            guard: config.guard,
            live_map: config.live_map,
            learn: config.learn,
            merge_rows: config.merge_rows,
            statement_timeout: None,
        }
    }

    /// The name in logs and metrics. Default `"sharded"`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a shard with its URL. The order of the calls decides which is which: keep it.
    pub fn shard(mut self, name: impl Into<String>, url: impl Into<String>) -> Self {
        self.shards.push((name.into(), ShardConfig::Url(url.into())));
        self
    }

    /// Adds a shard with replicas.
    pub fn shard_with_replicas<U: Into<String>>(
        mut self,
        name: impl Into<String>,
        primary: impl Into<String>,
        replicas: impl IntoIterator<Item = U>,
    ) -> Self {
        let replicas = replicas.into_iter().map(Into::into).collect();
        self.shards.push((name.into(), ShardConfig::Nodes { primary: primary.into(), replicas }));
        self
    }

    /// The column that holds the key in tables declared without one.
    pub fn shard_key(mut self, column: impl Into<String>) -> Self {
        self.shard_key = column.into();
        self
    }

    /// How a key finds its shard. Default [`ShardFunction::HashMod`].
    pub fn shard_function(mut self, function: ShardFunction) -> Self {
        self.function = function;
        self
    }

    /// Declares a table that carries the key, its column and type. Tables that are not declared are refused.
    pub fn table(
        mut self,
        table: impl Into<String>,
        key: impl Into<String>,
        key_type: KeyType,
    ) -> Self {
        self.tables.push((table.into(), Some(key.into()), key_type));
        self
    }

    /// Declares a table of which every shard holds all rows.
    pub fn reference(mut self, table: impl Into<String>) -> Self {
        self.references.push(table.into());
        self
    }

    /// Vouches for a function of your own whose result depends on its arguments alone.
    pub fn function(mut self, name: impl Into<String>) -> Self {
        self.functions.push(name.into());
        self
    }

    /// Puts a text key on a named shard whatever the function says: how one large tenant gets a shard of its own.
    pub fn pin(mut self, key: impl Into<String>, shard: impl Into<String>) -> Self {
        self.pins.push((OwnedKey::Text(key.into().into()), shard.into()));
        self
    }

    /// Puts a whole-number key on a named shard whatever the function says.
    pub fn pin_int(mut self, key: i64, shard: impl Into<String>) -> Self {
        self.pins.push((OwnedKey::Int(key), shard.into()));
        self
    }

    /// The owners of the buckets, for a database that has changed its shards. Default: dealt evenly.
    pub fn bucket_map(mut self, map: BucketMap) -> Self {
        self.bucket_map = Some(map);
        self
    }

    /// The bytes of compiled routes that are kept. Default 16 MiB.
    pub fn route_cache_bytes(mut self, bytes: usize) -> Self {
        self.route_cache_bytes = Some(bytes);
        self
    }

    /// The most rows of an answer that is made of several shards, and the most that is held of each of them meanwhile; a
    /// statement that needs more is refused once that shows, and no shard is asked for more. Default 1,000,000.
    pub fn merge_rows(mut self, most: usize) -> Self {
        self.merge_rows = Some(most);
        self
    }

    /// The pool of each node of each shard. Default: what the engine does best with.
    pub fn pool(mut self, config: PoolConfig) -> Self {
        self.pool = Some(config);
        self
    }

    /// How long one statement may run on a shard before it is stopped; `None` is for ever. Default 30 s.
    pub fn statement_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.statement_timeout = Some(limit.into());
        self
    }

    /// Whether each shard remembers its name and place and the shard function, in a table `resonant_shard` that is created
    /// for that, and is refused when they do not fit what is declared: shards swapped in the settings, another number of
    /// shards, an old bucket map. Default `false`: nothing is created in a database unless asked.
    pub fn guard(mut self, guard: bool) -> Self {
        self.guard = guard;
        self
    }

    /// Whether the shards themselves say which buckets have moved, in a schema `resonant` that is created for that, so that
    /// buckets can be moved by a [`Mover`](super::Mover) while this program runs. Every program that uses the shards must
    /// have it on before the first bucket moves: one that has not keeps the map it was given, and while its writes to
    /// buckets that have gone are refused by the shard, its reads do not find their rows. Default `false`: nothing is created
    /// in a database unless asked. PostgreSQL and the two bucketed functions only.
    ///
    /// A shard is asked at most once a second, by the statement that needs it. With it on, [`guard`](Self::guard) goes by
    /// the shards' names and lets their number grow.
    pub fn live_map(mut self, live: bool) -> Self {
        self.live_map = live;
        self
    }

    /// Whether [`connect`](ShardedDatabaseBuilder::connect) reads the catalogue of a shard for the tables that have the
    /// column of [`shard_key`](ShardedDatabaseBuilder::shard_key), with its type. What is declared stays as it is; tables
    /// without that column still have to be declared. Default `false`. PostgreSQL only.
    ///
    /// The first shard that answers is believed; each other one is refused, with the reason, if it turns out to differ.
    pub fn learn(mut self, learn: bool) -> Self {
        self.learn = learn;
        self
    }

    /// The router alone, without any connection: for checking the statements of a program in its own tests.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] that names the broken rule.
    pub fn router(&self) -> Result<ShardRouter> {
        Ok(self.router_over(self.schema()?)?.0)
    }

    /// What is declared.
    fn schema(&self) -> Result<Schema> {
        if self.shards.is_empty() {
            return Err(refused(
                "no shard is declared; add at least one with shard(name, url)".into(),
            ));
        }
        let names = || self.shards.iter().map(|(name, _)| name);
        if let Some((at, name)) =
            names().enumerate().find(|(at, name)| names().take(*at).any(|other| other == *name))
        {
            return Err(refused(format!(
                "shard {} has the name {name:?} of an earlier one",
                at + 1
            )));
        }
        let mut schema = Schema::default();
        for (table, key, key_type) in &self.tables {
            let key = key.as_deref().unwrap_or(&self.shard_key);
            schema.add_table(table, key, *key_type).map_err(refused)?;
        }
        for table in &self.references {
            schema.add_reference(table).map_err(refused)?;
        }
        for function in &self.functions {
            schema.add_function(function).map_err(refused)?;
        }
        if let Some(most) = self.merge_rows {
            schema.set_merge_rows(most);
        }
        Ok(schema)
    }

    fn router_over(&self, schema: Schema) -> Result<(ShardRouter, Option<Arc<Bucketed>>)> {
        let names: Vec<String> = self.shards.iter().map(|(name, _)| name.clone()).collect();
        let buckets = self.function.buckets(&names, self.bucket_map.as_ref()).map_err(refused)?;
        let function: Arc<dyn ShardBy> = match &buckets {
            Some(buckets) => Arc::<Bucketed>::clone(buckets),
            None => self.function.bind(&names, self.bucket_map.as_ref()).map_err(refused)?,
        };
        let function =
            Pinned::over(function, &self.pins, &schema.key_types(), &names).map_err(refused)?;
        let bytes = self.route_cache_bytes.unwrap_or(ROUTE_CACHE_BYTES);
        let router = ShardRouter::new(schema, function, names, self.engine()?, bytes)?;
        Ok(match buckets {
            Some(buckets) if self.live_map => (router.moving(Arc::clone(&buckets)), Some(buckets)),
            buckets => (router, buckets),
        })
    }

    /// What the shards say of their buckets, where they are to be asked.
    fn live(&self, engine: Engine, buckets: Option<Arc<Bucketed>>) -> Result<Option<Live>> {
        if !self.live_map {
            return Ok(None);
        }
        if engine != Engine::Postgres {
            let message = "only PostgreSQL shards keep a live_map";
            return Err(Error::new(ErrorKind::Unsupported, "connect", message));
        }
        let Some(buckets) = buckets else {
            let message = "a live_map needs the shard function hash_mod or postgres_hash";
            return Err(refused(message.into()));
        };
        let names = self.shards.iter();
        let names = names.map(|(name, config)| (name.clone(), !config.urls().1.is_empty()));
        Ok(Some(Live::new(buckets, names.collect())))
    }

    #[cfg(feature = "postgres")]
    /// The buckets of keys that are pinned: they say nothing of where those are.
    fn pinned(&self, schema: &Schema, buckets: &Bucketed) -> Vec<u32> {
        let pins = self.pins.iter().flat_map(|(key, _)| {
            schema.key_types().into_iter().filter_map(move |key_type| {
                let key = key_type.key(key.as_param()).ok()?;
                Some(buckets.bucket(&key))
            })
        });
        pins.collect()
    }

    /// The engine of the shards, which has to be one.
    fn engine(&self) -> Result<Engine> {
        let mut engines = self.shards.iter().map(|(_, config)| match scheme_of(config.urls().0) {
            "postgresql" | "postgres" => Engine::Postgres,
            _ => Engine::Sqlite,
        });
        let first = engines.next().unwrap_or(Engine::Sqlite);
        if engines.any(|engine| engine != first) {
            return Err(refused(
                "the shards are of several engines; they have to be of one".into(),
            ));
        }
        Ok(first)
    }

    /// Makes the database. Shards are connected to when they are first used, so one that is down does not stop the start.
    ///
    /// On PostgreSQL each shard's catalogue is compared with what is declared before its first statement, and again after
    /// [`on_all`](ShardedDatabase::on_all); a shard that contradicts it is refused as [`ErrorKind::Config`] with the reason.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] that names the broken rule; [`ErrorKind::Unsupported`] for a URL whose engine is not compiled
    /// in. With [`learn`](ShardedDatabaseBuilder::learn) also the first shard's error when none answers.
    pub async fn connect(self) -> Result<ShardedDatabase> {
        let schema = self.schema()?;
        let engine = self.engine()?;
        let mut databases = Vec::with_capacity(self.shards.len());
        for (name, config) in &self.shards {
            let (primary, replicas) = config.urls();
            let mut builder =
                Database::builder().name(name.clone()).primary(primary).replicas(replicas);
            if let Some(pool) = &self.pool {
                builder = builder.pool(pool.clone());
            }
            if let Some(limit) = self.statement_timeout {
                builder = builder.statement_timeout(limit);
            }
            databases.push(builder.connect_lazy()?);
        }
        let schema =
            if self.learn { self.learned(schema, engine, &databases).await? } else { schema };
        let own = self.name.as_deref().unwrap_or("sharded");
        let compilations = Counter::new(&names::DB_SHARD_COMPILED, &[("database", own)]);
        let (router, buckets) = self.router_over(schema)?;
        #[cfg(feature = "postgres")]
        let pinned = buckets.as_ref().map(|buckets| self.pinned(router.schema(), buckets));
        let live = self.live(engine, buckets.clone())?;
        let router = router.counting(compilations);
        let shared = Arc::new(Catalogue::default());
        let mut shards = Vec::with_capacity(databases.len());
        for (position, ((name, _), database)) in (0_u32..).zip(self.shards.iter().zip(databases)) {
            let guard = self.guard.then(|| {
                Guard::new(Place {
                    name: name.clone(),
                    position: i64::from(position),
                    shards: if self.live_map { ANY_NUMBER } else { self.shards.len() as i64 },
                    shard_function: router.function_name().to_owned(),
                    epoch: self.bucket_map.as_ref().map_or(0, |map| map.epoch() as i64),
                })
            });
            let catalogue = (engine == Engine::Postgres).then(|| Declared {
                shard: position,
                name: name.clone(),
                schema: Arc::clone(router.schema()),
                shared: Arc::clone(&shared),
                hashes: router.function_name() == "postgres_hash",
            });
            let inspection = Inspection { guard, catalogue, state: State::default() };
            let meters = ShardMeters::new(own, name);
            shards.push(Shard::new(name.clone(), database, inspection, meters));
        }
        Ok(ShardedDatabase {
            inner: Arc::new(Inner {
                router,
                shards,
                catalogue: shared,
                meters: Meters::new(own),
                turn: AtomicU32::new(0),
                live,
                buckets,
                #[cfg(feature = "postgres")]
                origin: Origin {
                    urls: self
                        .shards
                        .iter()
                        .map(|(_, config)| config.urls().0.to_owned())
                        .collect(),
                    pinned: pinned.unwrap_or_default(),
                },
            }),
        })
    }

    /// What is declared, and what the catalogue of the first shard to answer adds.
    async fn learned(
        &self,
        mut schema: Schema,
        engine: Engine,
        databases: &[Database],
    ) -> Result<Schema> {
        if engine != Engine::Postgres {
            let message = "only PostgreSQL shards are learned from; declare the tables";
            return Err(Error::new(ErrorKind::Unsupported, "connect", message));
        }
        if self.shard_key.is_empty() {
            return Err(refused("to learn the tables, name the column with shard_key".into()));
        }
        let key = self.shard_key.as_str();
        let asked = databases
            .iter()
            .map(|database| Box::pin(catalogue::read(database, &schema, Some(key))));
        let (snapshot, _) = select_ok(asked).await?;
        for (table, found) in snapshot.keyed(key) {
            schema.learn(table, key, found);
        }
        Ok(schema)
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Config, "connect", message)
}

/// Whether reads of a statement may go to replicas.
pub(super) fn reads(access: Access) -> bool {
    access == Access::Read
}
