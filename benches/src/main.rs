//! `cargo run --release -p resonant-benches -- [AREA…]`: figures and ratios, peers in the same run.

mod harness;

fn main() {
    harness::figure("clock.now_ns", {
        let started = harness::now();
        for _ in 0..1_000_000 {
            std::hint::black_box(harness::now());
        }
        started.elapsed().as_secs_f64() * 1e3
    });
}
