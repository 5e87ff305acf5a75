//! The example, run as a user would run it.

use std::process::{Command, Stdio};

#[test]
fn the_example_loses_its_primary_and_no_acknowledged_order() {
    let test = std::env::current_exe().expect("a running test has a path");
    // Cargo builds examples beside the tests, in a folder of the same profile.
    let profile = test.ancestors().nth(2).expect("tests lie in <profile>/deps");
    let program =
        profile.join("examples").join(format!("failover{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.exists(),
        "{} is not built; cargo test -p resonant-ha without --test builds it, as does --examples",
        program.display()
    );
    let output = Command::new(program).stdin(Stdio::null()).output().expect("the example starts");
    let printed = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    println!("{printed}");
    assert!(output.status.success(), "{printed}");
}
