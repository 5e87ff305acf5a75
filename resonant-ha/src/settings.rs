//! Settings of a whole deployment, in the guide's multi-region shape.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::FailoverConfig;
use crate::error::{Result, config as broken};
use crate::manager::{FailoverBuilder, FailoverManager};

/// What a region's database is when all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DatabaseRole {
    /// It takes the writes.
    Primary,
    /// It follows the primary.
    Replica,
}

/// One region of the deployment. Its URL may hold a password: `Debug` shows only whether there is one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionSettings {
    /// Its name, such as `us-east-1`.
    pub region: String,
    /// How many instances of the API run there. Not read here; kept for those who deploy from the same file.
    #[serde(default)]
    pub api_replicas: u32,
    /// How many workers run there. Not read here.
    #[serde(default)]
    pub worker_replicas: u32,
    /// What its database is when all is well.
    pub database: DatabaseRole,
    /// Where its database is reached, `postgresql://user:password@host:5432/database`.
    #[serde(default)]
    pub url: Option<String>,
    /// The name its server has in the others' `synchronous_standby_names`. Default: the region's name.
    #[serde(default)]
    pub standby_name: Option<String>,
}

impl fmt::Debug for RegionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionSettings")
            .field("region", &self.region)
            .field("database", &self.database)
            .field("url", &self.url.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

/// A deployment across regions, as in the scaling guide, and how it fails over.
///
/// ```
/// use resonant_ha::MultiRegion;
///
/// let settings: MultiRegion = toml::from_str(r#"
///     [regions.primary]
///     region = "us-east-1"
///     api_replicas = 5
///     worker_replicas = 10
///     database = "primary"
///     url = "postgresql://app@east:5432/app"
///
///     [regions.secondary]
///     region = "us-west-2"
///     api_replicas = 3
///     worker_replicas = 5
///     database = "replica"
///     url = "postgresql://app@west:5432/app"
///
///     [failover]
///     health_check_interval = "10s"
///     failover_threshold = 3
///     auto_failback = true
///     failback_delay = 300
/// "#)?;
/// let failover = settings.builder()?.build()?;
/// assert_eq!(failover.status().regions[0].region, "us-east-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiRegion {
    /// The cluster's name. Default `resonant`.
    #[serde(default)]
    pub name: Option<String>,
    /// The regions by what they are called here. Replicas are preferred in the order of these names: `secondary` comes
    /// before `tertiary`.
    pub regions: BTreeMap<String, RegionSettings>,
    /// How it fails over.
    #[serde(default)]
    pub failover: FailoverConfig,
}

impl MultiRegion {
    /// A builder with these regions; those with a URL are PostgreSQL servers where the feature `postgres` is on.
    /// What files cannot say is added to it: voters, agents, hooks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the law that is broken.
    pub fn builder(&self) -> Result<FailoverBuilder> {
        self.failover.validate()?;
        let role = |wanted| self.regions.values().filter(move |region| region.database == wanted);
        let mut primaries = role(DatabaseRole::Primary);
        let (Some(primary), None) = (primaries.next(), primaries.next()) else {
            return Err(broken("exactly one of the regions must have database = \"primary\""));
        };
        let mut builder = FailoverManager::builder()
            .config(self.failover.clone())
            .primary_region(primary.region.as_str())
            .secondary_regions(role(DatabaseRole::Replica).map(|region| region.region.as_str()));
        if let Some(name) = &self.name {
            builder = builder.name(name);
        }
        #[cfg(feature = "postgres")]
        for region in self.regions.values() {
            if let Some(url) = &region.url {
                let name = region.standby_name.as_ref().unwrap_or(&region.region);
                let server = crate::backend::postgres::PostgresRegion::new(url).standby_name(name);
                builder = builder.region(region.region.as_str(), server);
            }
        }
        Ok(builder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_primaries_in_the_file_are_refused() {
        let region = |name: &str, database| RegionSettings {
            region: name.to_owned(),
            api_replicas: 0,
            worker_replicas: 0,
            database,
            url: None,
            standby_name: None,
        };
        let mut settings = MultiRegion {
            name: None,
            regions: BTreeMap::from([
                ("a".to_owned(), region("east", DatabaseRole::Primary)),
                ("b".to_owned(), region("west", DatabaseRole::Primary)),
            ]),
            failover: FailoverConfig::default(),
        };
        assert!(settings.builder().unwrap_err().to_string().contains("exactly one"));
        settings.regions.insert("b".to_owned(), region("west", DatabaseRole::Replica));
        settings.failover.failover_threshold = 0;
        assert!(settings.builder().unwrap_err().to_string().contains("failover_threshold"));
        settings.failover.failover_threshold = 3;
        let error = settings.builder().unwrap().build().unwrap_err().to_string();
        assert!(error.contains("nothing is behind it"), "{error}");
    }
}
