//! Terraform's files, parsed, and what they must say.

use serde_json::{Map, Value};

use super::Files;
use super::files::{at, number, words};

/// All files as one tree: `resource.aws_lb.resonant`.
pub(super) fn read(files: &Files) -> Value {
    let mut all = Value::Object(Map::new());
    for path in files.paths().filter(|path| path.ends_with(".tf")) {
        let tree: Value =
            hcl::from_str(files.text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        merge(&mut all, tree, path);
    }
    all
}

fn merge(all: &mut Value, one: Value, path: &str) {
    match (all, one) {
        (Value::Object(all), Value::Object(one)) => {
            for (key, value) in one {
                match all.get_mut(&key) {
                    Some(old) => merge(old, value, path),
                    None => drop(all.insert(key, value)),
                }
            }
        }
        (_, one) => panic!("{path} says again: {one}"),
    }
}

#[test]
fn the_balancer_and_the_group_are_the_guides() {
    let tree = read(&Files::load());
    let group = at(&tree, "resource.aws_lb_target_group.api");
    for (key, value) in [("path", "/health"), ("matcher", "200"), ("port", "traffic-port")] {
        assert_eq!(words(group, &format!("health_check.{key}")), value);
    }
    let numbers = [
        ("healthy_threshold", 2.0),
        ("interval", 30.0),
        ("timeout", 5.0),
        ("unhealthy_threshold", 3.0),
    ];
    for (key, value) in numbers {
        assert_eq!(number(group, &format!("health_check.{key}")), value, "{key}");
    }
    let balancer = at(&tree, "resource.aws_lb.resonant");
    assert_eq!(words(balancer, "name"), "resonant-alb");
    assert_eq!(balancer["enable_deletion_protection"], true);
    assert_eq!(balancer["internal"], false);
    // Agents and tasks are on every server alike.
    assert!(group["stickiness"].is_null());

    let policy = at(&tree, "resource.aws_autoscaling_policy.cpu");
    assert_eq!(words(policy, "policy_type"), "TargetTrackingScaling");
    let tracking = at(policy, "target_tracking_configuration");
    assert_eq!(number(tracking, "target_value"), 70.0);
    let metric = "predefined_metric_specification.predefined_metric_type";
    assert_eq!(words(tracking, metric), "ASGAverageCPUUtilization");
    let servers = at(&tree, "resource.aws_autoscaling_group.api");
    assert_eq!(words(servers, "name"), "resonant-api-asg");
    assert_eq!(words(servers, "health_check_type"), "EC2");
    let template = at(&tree, "resource.aws_launch_template.api");
    assert_eq!(words(template, "metadata_options.http_tokens"), "required");
}

/// Every `aws_….name`, `var.name` and `data.….name` that is spoken of.
#[test]
fn whatever_is_referred_to_is_there() {
    let files = Files::load();
    let tree = read(&files);
    let mut references = 0;
    for path in files.paths().filter(|path| path.ends_with(".tf")) {
        let text = files.text(path);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"._".contains(c));
        for word in words {
            let parts: Vec<&str> = word.split('.').collect();
            let place = match parts[..] {
                ["var", name, ..] => format!("variable.{name}"),
                ["data", kind, name, ..] => format!("data.{kind}.{name}"),
                [kind, name, _, ..] if kind.starts_with("aws_") => {
                    format!("resource.{kind}.{name}")
                }
                _ => continue,
            };
            references += 1;
            assert!(!at(&tree, &place).is_null(), "{path} refers to {word}, which is nowhere");
        }
    }
    assert!(references > 25, "{references}");
    // And no variable is asked for in vain.
    for variable in tree["variable"].as_object().unwrap().keys() {
        let spoken = format!("var.{variable}");
        let of_it = files.paths().filter(|path| files.text(path).contains(&spoken));
        assert!(of_it.count() > 0, "{variable} is not used");
    }
    let script = files.text("deploy/terraform/user_data.sh.tftpl");
    for name in ["image", "secret_arn", "settings_parameter"] {
        assert!(script.contains(&format!("${{{name}}}")), "{name}");
    }
}

#[test]
fn a_seeded_reference_to_nothing_is_no_tree() {
    let files = Files::load();
    let broken = files.with("deploy/terraform/alb.tf", "health_check {", "health_check = {");
    assert!(std::panic::catch_unwind(|| read(&broken)).is_ok(), "an attribute is a tree, too");
    let broken = files.with("deploy/terraform/alb.tf", "health_check {", "health_check {{");
    assert!(std::panic::catch_unwind(|| read(&broken)).is_err());
}

#[test]
#[ignore = "needs terraform: cargo test -p resonant-tests --test it -- --ignored terraform"]
fn terraform_would_write_it_the_same() {
    let folder = crate::telemetry::repository().join("deploy/terraform");
    let mut terraform = std::process::Command::new("terraform");
    let output =
        terraform.args(["fmt", "-check", "-diff"]).arg(folder).output().expect("terraform is here");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
