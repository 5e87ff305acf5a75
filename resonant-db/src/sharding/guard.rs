//! The guard: each shard remembers who it is, so that two shards swapped in a file of settings, or an old bucket map, are
//! refused before a row is read or written on the wrong one.
//!
//! It writes a table of its own into each shard, so it is off unless asked for.

use tokio::sync::OnceCell;

use crate::{Database, Error, ErrorKind, Result, params};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS resonant_shard (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    position BIGINT NOT NULL,
    shards BIGINT NOT NULL,
    shard_function TEXT NOT NULL,
    epoch BIGINT NOT NULL
)";
const REMEMBER: &str = "INSERT INTO resonant_shard (id, name, position, shards, shard_function, epoch) \
     VALUES (1, $1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING";
const RECALL: &str =
    "SELECT name, position, shards, shard_function, epoch FROM resonant_shard WHERE id = 1";
const ADVANCE: &str =
    "UPDATE resonant_shard SET position = $1, shards = $2, epoch = $3 WHERE id = 1 AND epoch < $3";

/// Shards may be added: their number says nothing.
pub(super) const ANY_NUMBER: i64 = 0;

/// Where a shard stands among its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) position: i64,
    pub(super) shards: i64,
    pub(super) shard_function: String,
    pub(super) epoch: i64,
}

/// Checks a shard once, before its first statement.
#[derive(Debug)]
pub(super) struct Guard {
    place: Place,
    checked: OnceCell<()>,
}

/// What follows from comparing what a shard remembers with what is declared.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fits,
    /// The buckets were dealt anew since: the shard is to remember the new place.
    Advance,
    Refuse(String),
}

impl Guard {
    pub(super) fn new(place: Place) -> Self {
        Self { place, checked: OnceCell::new() }
    }

    /// Checks the shard unless that was done before. A dropped check is done again by the next caller.
    pub(super) async fn check(&self, database: &Database) -> Result<()> {
        self.checked.get_or_try_init(|| self.compare(database)).await.map(drop)
    }

    async fn compare(&self, database: &Database) -> Result<()> {
        let Place { position, shards, epoch, .. } = &self.place;
        loop {
            let remembered = match recall(database).await {
                Ok(Some(place)) => place,
                Ok(None) => self.introduce(database).await?,
                // Asked for first, so that a shard that knows its place needs no right to create a table.
                Err(error) if error.kind() == ErrorKind::Rejected => {
                    self.introduce(database).await?
                }
                Err(error) => return Err(error),
            };
            match verdict(&remembered, &self.place) {
                Verdict::Fits => return Ok(()),
                // Read again afterwards: another process may have advanced it further. Epochs only rise, so this ends.
                Verdict::Advance => {
                    database.write().execute(ADVANCE, params![position, shards, epoch]).await?;
                }
                Verdict::Refuse(message) => {
                    return Err(Error::new(ErrorKind::Config, "connect", message));
                }
            }
        }
    }

    /// Tells a new shard its place, and answers what it remembers: the place another process told it first, if one did.
    async fn introduce(&self, database: &Database) -> Result<Place> {
        let Place { name, position, shards, shard_function, epoch } = &self.place;
        // Of two processes that create it at once, one may fail although the table is there then.
        let created = database.write().batch(CREATE).await;
        let declared = params![name, position, shards, shard_function, epoch];
        if let Err(error) = database.write().execute(REMEMBER, declared).await {
            return Err(created.err().unwrap_or(error));
        }
        database.write().query_one_as(RECALL, params![]).await
    }
}

async fn recall(database: &Database) -> Result<Option<Place>> {
    database.write().query_opt_as(RECALL, params![]).await
}

fn verdict(remembered: &Place, declared: &Place) -> Verdict {
    let name = &declared.name;
    if remembered.name != declared.name {
        let message =
            format!("{name} is declared where {} is: the URLs are swapped", remembered.name);
        return Verdict::Refuse(message);
    }
    if remembered.shard_function != declared.shard_function {
        return Verdict::Refuse(format!(
            "{name} was laid out by the shard function {} and {} is declared",
            remembered.shard_function, declared.shard_function
        ));
    }
    // A directory goes by the names of shards alone, and so do buckets whose owners the shards know.
    if declared.shard_function == "directory" || declared.shards == ANY_NUMBER {
        return Verdict::Fits;
    }
    let same = (remembered.position, remembered.shards) == (declared.position, declared.shards);
    match remembered.epoch.cmp(&declared.epoch) {
        std::cmp::Ordering::Less => Verdict::Advance,
        std::cmp::Ordering::Equal if same => Verdict::Fits,
        std::cmp::Ordering::Equal => Verdict::Refuse(format!(
            "{name} was number {} of {} shards and is declared as number {} of {}: to change the shards, plan the \
             move of their buckets and give the new bucket map",
            remembered.position + 1,
            remembered.shards,
            declared.position + 1,
            declared.shards
        )),
        std::cmp::Ordering::Greater => Verdict::Refuse(format!(
            "{name} has seen the bucket map of epoch {} and {} is given: this process has an old one",
            remembered.epoch, declared.epoch
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_refused_when_it_is_not_who_it_should_be() {
        let place = |name: &str, position, shards, function: &str, epoch| Place {
            name: name.into(),
            position,
            shards,
            shard_function: function.into(),
            epoch,
        };
        let was = place("a", 0, 4, "hash_mod", 1);
        assert_eq!(verdict(&was, &was), Verdict::Fits);
        assert_eq!(verdict(&was, &place("a", 0, 5, "hash_mod", 2)), Verdict::Advance);
        for (declared, reason) in [
            (place("b", 0, 4, "hash_mod", 1), "swapped"),
            (place("a", 0, 4, "postgres_hash", 1), "laid out"),
            (place("a", 0, 5, "hash_mod", 1), "plan the"),
            (place("a", 1, 4, "hash_mod", 1), "number 2"),
            (place("a", 0, 4, "hash_mod", 0), "an old one"),
        ] {
            match verdict(&was, &declared) {
                Verdict::Refuse(message) => assert!(message.contains(reason), "{message}"),
                other => panic!("{declared:?}: {other:?}"),
            }
        }
        assert_eq!(verdict(&was, &place("a", 2, ANY_NUMBER, "hash_mod", 0)), Verdict::Fits);
        let directory = |shards| place("a", 0, shards, "directory", 0);
        assert_eq!(verdict(&directory(2), &directory(3)), Verdict::Fits);
    }
}
