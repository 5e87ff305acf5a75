//! What the peers do.

use resonant_db::params;
use sqlx::Row;
use tokio::runtime::Runtime;

use super::peers::{KEYS, Lenders, Readers};
use super::tap::Wire;
use crate::harness::{Dice, storm};

/// Until the weather ends; each answer is looked at.
macro_rules! reads {
    ($runtime:ident, $tasks:ident, $handle:expr, $handle_name:ident, $key:ident => $read:expr) => {
        storm($runtime, $tasks, |task, weather| {
            let $handle_name = $handle(task);
            async move {
                let (mut dice, mut done) = (Dice::new(task), 0_u64);
                while weather.lasts() {
                    let $key = dice.below(KEYS) as i64;
                    let found: Option<i64> = $read;
                    done += u64::from(found == Some($key));
                }
                done
            }
        })
    };
}

impl Readers {
    pub(super) fn ours(&self, runtime: &Runtime, tasks: usize) -> f64 {
        let sql = self.sql;
        reads!(runtime, tasks, |_| self.ours.clone(), db, key => {
            let row = db.read().query_one(sql, params![key]).await;
            row.ok().and_then(|row| row.get::<i64>(0).ok())
        })
    }

    pub(super) fn raw(&self, runtime: &Runtime, tasks: usize, connections: usize) -> f64 {
        reads!(runtime, tasks, |task: usize| self.raw[task % connections].clone(), raw, key => {
            let row = raw.0.query_one(&raw.1, &[&key]).await;
            row.ok().and_then(|row| row.try_get(0).ok())
        })
    }

    pub(super) fn deadpool(&self, runtime: &Runtime, tasks: usize) -> f64 {
        let sql = self.sql;
        reads!(runtime, tasks, |_| self.deadpool.clone(), pool, key => {
            let read = async {
                let client = pool.get().await.ok()?;
                let statement = client.prepare_cached(sql).await.ok()?;
                client.query_one(&statement, &[&key]).await.ok()?.try_get(0).ok()
            };
            read.await
        })
    }

    pub(super) fn bb8(&self, runtime: &Runtime, tasks: usize) -> f64 {
        let sql = self.sql;
        reads!(runtime, tasks, |_| self.bb8.clone(), pool, key => {
            let read = async {
                let client = pool.get().await.ok()?;
                let declared = tokio_postgres::types::Type::INT8;
                let rows = client.query_typed(sql, &[(&key, declared)]).await.ok()?;
                rows.first()?.try_get(0).ok()
            };
            read.await
        })
    }

    pub(super) fn sqlx(&self, runtime: &Runtime, tasks: usize) -> f64 {
        let sql = self.sql;
        reads!(runtime, tasks, |_| self.sqlx.clone(), pool, key => {
            let row = sqlx::query(sql).bind(key).fetch_one(&pool).await;
            row.ok().and_then(|row| row.try_get::<i64, _>(0).ok())
        })
    }
}

pub(super) fn on_wire(runtime: &Runtime, tasks: usize, wire: &Wire) -> f64 {
    reads!(runtime, tasks, |_| wire.clone(), wire, key => {
        let row = wire.0.query_one(&wire.1, &[&key]).await;
        row.ok().and_then(|row| row.try_get(0).ok())
    })
}

/// Lends and gives back until the weather ends.
macro_rules! lends {
    ($runtime:ident, $tasks:ident, $pool:expr) => {
        storm($runtime, $tasks, |_, weather| {
            let pool = $pool.clone();
            async move {
                let mut done = 0_u64;
                while weather.lasts() {
                    let Ok(connection) = pool.get().await else { continue };
                    std::hint::black_box(&*connection);
                    drop(connection);
                    done += 1;
                    // Nobody keeps a worker thread to himself.
                    if done % 64 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                done
            }
        })
    };
}

impl Lenders {
    pub(super) fn ours(&self, runtime: &Runtime, tasks: usize) -> f64 {
        lends!(runtime, tasks, self.ours)
    }

    pub(super) fn deadpool(&self, runtime: &Runtime, tasks: usize) -> f64 {
        lends!(runtime, tasks, self.deadpool)
    }

    pub(super) fn bb8(&self, runtime: &Runtime, tasks: usize) -> f64 {
        lends!(runtime, tasks, self.bb8)
    }
}
