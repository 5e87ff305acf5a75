//! What must not be seen in logs.

use resonant_ha::backend::ServiceRegion;
use resonant_ha::backend::postgres::{CommandAgent, PostgresRegion, PostgresVoter};
use resonant_ha::observe::{DnsSource, PatroniSource, Sighting};
use resonant_ha::voter::Quorum;
use resonant_ha::{Command, CommandHook, FailoverManager, MultiRegion, Node, RegionTarget};

#[test]
fn no_debug_shows_a_password() {
    let url = "postgresql://app:s3cret@host:5432/app";
    let agent = CommandAgent::new().stop_with(Command::new(["stop", "s3cret"]).env("A", "s3cret"));
    let region = PostgresRegion::new(url).client_url(url).replication_url(url).standby_name("east");
    let region = region.agent(agent);
    let service = ServiceRegion::http("http://u:s3cret@host/", "http://u:s3cret@host/health");
    let settings: MultiRegion = toml::from_str(&format!(
        "[regions.a]\nregion = \"east\"\ndatabase = \"primary\"\nurl = \"{url}\"\n"
    ))
    .unwrap();
    let target = RegionTarget {
        region: "east".into(),
        url: url.to_owned(),
        replication_url: url.to_owned(),
    };
    let nodes = vec![Node { name: "n".to_owned(), url: url.to_owned() }];
    let sighting = Sighting { primary: Some("n".to_owned()), nodes, generation: None };
    let patroni = PatroniSource::new(
        ["http://u:s3cret@host:8008"],
        "postgresql://app:s3cret@{host}:{port}/app",
    )
    .unwrap();
    let dns = DnsSource::new(url).unwrap().reader(url).unwrap();
    let voter = PostgresVoter::new(url);
    let hook = CommandHook::new(Command::new(["page", "--token=s3cret"]));
    let mut shown = vec![
        format!("{region:?}"),
        format!("{service:?}"),
        format!("{settings:?}"),
        format!("{target:?}"),
        format!("{sighting:?}"),
        format!("{patroni:?}"),
        format!("{dns:?}"),
        format!("{hook:?}"),
        format!("{:?}", Quorum::of(voter)),
    ];
    let builder = FailoverManager::builder()
        .primary_region("east")
        .secondary_regions(["west"])
        .region("east", region)
        .region("west", service);
    shown.push(format!("{builder:?}"));
    shown.push(format!("{:?}", builder.build().unwrap()));
    for text in shown {
        assert!(!text.contains("s3cret"), "{text}");
    }
}
