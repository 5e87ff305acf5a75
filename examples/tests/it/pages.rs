//! Each page is a program that checks itself: it must end well.

use crate::program::{printed, run};

macro_rules! pages {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let output = run(stringify!($name), [""; 0]);
                assert!(output.status.success(), "{}", printed(&output));
            }
        )*
    };
}

pages!(batch cache database growing health pool queue scaling sharding);

#[test]
fn failover_there_and_back() {
    let output = run("regions", [""; 0]);
    assert!(output.status.success(), "{}", printed(&output));
    let expected = "\
a lost region is left within 1.65s
writes go to us-east-1
us-east-1 is lost: writes go to us-west-2
us-east-1 is well again: writes go to us-east-1
";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", printed(&output));
}

/// The guide's page says what came of each of its snippets.
#[test]
fn the_guide_from_top_to_bottom() {
    let output = run("guide", [""; 0]);
    assert!(output.status.success(), "{}", printed(&output));
    let expected = "\
Read Replicas: [(7, \"Ada\")]
Database Sharding: Ada of org_123 lives on shard_3
Cache Configuration: Ada, and from now on without a load
Failover Configuration: a dead region is left within 35s
Queue Partitioning: agent_123 is in partition 13 of 16
Request Batching: 144
Async Processing: [2, 3, 4]
Custom Metrics Autoscaling: from 0 to 2 workers
Health Checks: database pass, cache pass, queue pass
GET /health: 200
GET /api/v1/health: 200
GET /api/v1/scaling/status: 200
POST /api/v1/scaling/scale: 202
GET /api/v1/metrics: 200
Metrics Collection: requests_total, request_duration_seconds, active_connections, queue_depth
";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", printed(&output));
}
