//! The cases of voters.

use std::time::Duration;

use futures::future::join_all;

use super::scene::VoterBench;
use crate::voter::{Ballot, Stored};

const LONG: Duration = Duration::from_secs(600);

pub(super) async fn a_name_that_nobody_asked_about_is_free(bench: VoterBench) {
    let vote = bench.cast(Ballot::Read).await;
    assert!(vote.done, "reading is always done");
    assert_eq!((vote.term, vote.remaining, vote.record), (0, Duration::ZERO, None));
    assert!(!bench.renew(0, "", LONG).await.done, "nobody's lease was renewed");
    assert!(!bench.release(0, "").await.done, "nobody's lease was released");
    assert!(!bench.write(0, 1, "").await.done, "nobody wrote a record");
}

pub(super) async fn a_live_lease_is_granted_to_nobody(bench: VoterBench) {
    let vote = bench.grant(5, "a", LONG).await;
    assert!(vote.done && vote.term == 5 && vote.owner == "a", "{vote:?}");
    assert!(!vote.remaining.is_zero() && vote.remaining <= LONG, "{vote:?}");
    for owner in ["b", "a"] {
        let vote = bench.grant(6, owner, LONG).await;
        assert!(!vote.done, "a live lease was granted to {owner}");
        assert_eq!((vote.term, vote.owner.as_str()), (5, "a"), "the answer says whose it is");
    }
}

pub(super) async fn a_term_is_granted_once(bench: VoterBench) {
    assert!(bench.grant(5, "a", LONG).await.done);
    assert!(bench.release(5, "a").await.done);
    for term in [5, 4, 1] {
        assert!(!bench.grant(term, "b", LONG).await.done, "term {term} was granted after 5");
    }
    assert_eq!(bench.cast(Ballot::Read).await.term, 5, "a term does not fall by a release");
    let vote = bench.grant(9, "b", bench.short).await;
    assert!(vote.done && vote.term == 9, "terms may be left out: {vote:?}");
    bench.pass().await;
    assert_eq!(bench.cast(Ballot::Read).await.term, 9, "a term does not fall by its end");
    assert!(!bench.grant(9, "a", LONG).await.done, "a term was granted again after its end");
}

pub(super) async fn a_lease_ends_with_its_time(bench: VoterBench) {
    assert!(bench.grant(1, "a", bench.short).await.done);
    assert!(!bench.grant(2, "b", LONG).await.done, "it has not ended yet");
    bench.pass().await;
    assert!(bench.cast(Ballot::Read).await.remaining.is_zero(), "its time has passed");
    assert!(!bench.renew(1, "a", LONG).await.done, "one that has ended was renewed");
    assert!(!bench.write(1, 1, "a").await.done, "a record was written after the end");
    assert!(bench.grant(2, "b", LONG).await.done, "nobody else gets it");
}

pub(super) async fn a_renewal_extends(bench: VoterBench) {
    assert!(bench.grant(1, "a", bench.short).await.done);
    let vote = bench.renew(1, "a", LONG).await;
    assert!(vote.done && vote.remaining > bench.short * 2, "{vote:?}");
    bench.pass().await;
    assert!(!bench.cast(Ballot::Read).await.remaining.is_zero(), "a renewed lease lives on");
    assert!(!bench.grant(2, "b", LONG).await.done, "a renewed lease was given away");
    // To less, too: from now on.
    assert!(bench.renew(1, "a", bench.short).await.done);
    bench.pass().await;
    assert!(bench.grant(2, "b", LONG).await.done, "the last renewal counts");
}

pub(super) async fn only_the_holder_renews_and_releases(bench: VoterBench) {
    assert!(bench.grant(3, "a", LONG).await.done);
    for (term, owner) in [(3, "b"), (2, "a"), (4, "a")] {
        assert!(!bench.renew(term, owner, LONG).await.done, "{owner} renewed term {term}");
        assert!(!bench.release(term, owner).await.done, "{owner} released term {term}");
    }
    let vote = bench.cast(Ballot::Read).await;
    assert!(!vote.remaining.is_zero() && vote.owner == "a", "{vote:?}");
}

pub(super) async fn a_released_lease_is_free_at_once(bench: VoterBench) {
    assert!(bench.grant(1, "a", LONG).await.done);
    let vote = bench.release(1, "a").await;
    assert!(vote.done && vote.remaining.is_zero(), "{vote:?}");
    assert!(!bench.renew(1, "a", LONG).await.done, "a released lease was renewed");
    assert!(!bench.write(1, 1, "a").await.done, "a record was written after the release");
    assert!(bench.grant(2, "b", LONG).await.done, "a released lease is not free");
}

pub(super) async fn a_record_is_written_at_the_live_term_only(bench: VoterBench) {
    assert!(bench.grant(3, "a", LONG).await.done);
    for (term, owner) in [(2, "a"), (4, "a"), (3, "b")] {
        assert!(!bench.write(term, 1, owner).await.done, "{owner} wrote at term {term}");
    }
    let vote = bench.write(3, 1, "a").await;
    let written = Stored { term: 3, version: 1, value: "3.1 of a".into() };
    assert!(vote.done && vote.record == Some(written), "{vote:?}");
    assert!(bench.release(3, "a").await.done && bench.grant(4, "b", LONG).await.done);
    assert!(!bench.write(3, 2, "a").await.done, "somebody who was replaced wrote");
}

pub(super) async fn records_never_go_back(bench: VoterBench) {
    assert!(bench.grant(3, "a", LONG).await.done);
    assert!(bench.write(3, 2, "a").await.done);
    assert!(bench.write(3, 2, "a").await.done, "the first answer may have been lost");
    assert!(!bench.write(3, 1, "a").await.done, "an older one came late and was taken");
    assert!(bench.write(3, 7, "a").await.done);
    let record = bench.cast(Ballot::Read).await.record;
    assert_eq!(record.map(|record| record.stamp()), Some((3, 7)));
}

pub(super) async fn a_record_outlives_its_term(bench: VoterBench) {
    assert!(bench.grant(1, "a", bench.short).await.done);
    assert!(bench.write(1, 5, "a").await.done);
    bench.pass().await;
    let vote = bench.grant(2, "b", LONG).await;
    let stamp = vote.record.as_ref().map(Stored::stamp);
    assert_eq!(stamp, Some((1, 5)), "a new holder does not hear of the record: {vote:?}");
    // A higher term makes it newer, whatever its version.
    assert!(bench.write(2, 1, "b").await.done);
    let record = bench.cast(Ballot::Read).await.record;
    assert_eq!(record.map(|record| record.stamp()), Some((2, 1)));
}

pub(super) async fn what_is_refused_changes_nothing(bench: VoterBench) {
    assert!(bench.grant(3, "a", LONG).await.done && bench.write(3, 3, "a").await.done);
    let before = bench.cast(Ballot::Read).await;
    for vote in [
        bench.grant(3, "b", LONG).await,
        bench.grant(9, "b", LONG).await,
        bench.renew(4, "a", LONG * 2).await,
        bench.release(3, "b").await,
        bench.write(9, 9, "b").await,
        bench.write(3, 1, "a").await,
    ] {
        assert!(!vote.done, "{vote:?}");
        let same = (vote.term, &vote.owner, &vote.record);
        assert_eq!(same, (before.term, &before.owner, &before.record), "it changed something");
        assert!(vote.remaining <= before.remaining && !vote.remaining.is_zero(), "{vote:?}");
    }
}

pub(super) async fn names_are_apart(bench: VoterBench) {
    assert!(bench.grant(8, "a", LONG).await.done && bench.write(8, 1, "a").await.done);
    let (voter, other) = (bench.voter(), format!("{}-x", bench.name()));
    let grant = Ballot::Grant { term: 1, owner: "b".to_owned(), ttl: LONG };
    match voter.cast(&other, grant).await {
        Ok(vote) => {
            let free = vote.done && vote.term == 1 && vote.owner == "b" && vote.record.is_none();
            assert!(free, "another name's lease was in the way: {vote:?}");
        }
        Err(error) => panic!("another name: {error}"),
    }
    let vote = bench.cast(Ballot::Read).await;
    assert_eq!((vote.term, vote.owner.as_str()), (8, "a"), "another name's lease replaced it");
}

pub(super) async fn of_many_who_ask_for_a_term_one_gets_it(bench: VoterBench) {
    for term in 1..4 {
        let votes = join_all((0..16).map(|number| {
            let (voter, name) = (bench.voter(), bench.name().to_owned());
            let (owner, ttl) = (format!("owner-{number}"), LONG);
            async move { voter.cast(&name, Ballot::Grant { term, owner, ttl }).await }
        }));
        let votes = votes.await;
        let got = votes.iter().filter(|vote| vote.as_ref().is_ok_and(|vote| vote.done)).count();
        assert_eq!(got, 1, "of sixteen who asked for term {term}");
        let owner = bench.cast(Ballot::Read).await.owner;
        assert!(bench.release(term, &owner).await.done, "the one who got it is not the holder");
    }
}

pub(super) async fn another_handle_sees_the_same(bench: VoterBench) {
    assert!(bench.grant(2, "a", LONG).await.done && bench.write(2, 1, "a").await.done);
    let vote = bench.cast_beside(Ballot::Read).await;
    assert_eq!((vote.term, vote.owner.as_str()), (2, "a"));
    assert_eq!(vote.record.as_ref().map(Stored::stamp), Some((2, 1)));
    assert!(!vote.remaining.is_zero(), "{vote:?}");
    let grant = |term| Ballot::Grant { term, owner: "b".to_owned(), ttl: LONG };
    assert!(!bench.cast_beside(grant(3)).await.done, "granted beside a live one");
    assert!(bench.release(2, "a").await.done);
    assert!(bench.cast_beside(grant(3)).await.done, "a release is seen by the other");
    assert!(!bench.write(2, 2, "a").await.done, "written after another handle's grant");
    assert!(!bench.renew(2, "a", LONG).await.done, "renewed after another handle's grant");
}

pub(super) async fn a_long_record_is_kept_whole(bench: VoterBench) {
    assert!(bench.grant(1, "a", LONG).await.done);
    let value: String = "{\"wörter\": \"'\\n\u{1F409}\"}".chars().cycle().take(30_000).collect();
    let record = Stored { term: 1, version: 1, value: value.into() };
    let ballot = Ballot::Write { owner: "a".to_owned(), record: record.clone() };
    assert!(bench.cast(ballot).await.done);
    assert!(bench.cast(Ballot::Read).await.record == Some(record), "it came back another one");
}
