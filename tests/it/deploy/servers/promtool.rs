//! The queries by which the workers are scaled, as promtool reads them and as they count.

use std::fs;
use std::process::Command;

use crate::deploy::Files;
use crate::deploy::files::words;

#[test]
fn three_processes_that_say_the_same_depth_are_counted_once() {
    let files = Files::load();
    let values = files.yaml("deploy/kubernetes/hpa/prometheus-adapter-values.yaml").remove(0);
    let adapter = words(&values, "rules.external.0.metricsQuery");
    let adapter = adapter.replace("<<.Series>>", "queue_depth");
    let selected = "queue=\"session-tasks\",namespace=\"resonant\"";
    let adapter = adapter.replace("<<.LabelMatchers>>", selected);
    let keda = files.yaml("deploy/kubernetes/keda/scaledobject.yaml").remove(0);
    let keda = words(&keda, "spec.triggers.0.metadata.query");

    let series = |pod: &str| {
        format!(
            "      - series: 'queue_depth{{queue=\"session-tasks\",namespace=\"resonant\",pod=\"{pod}\"}}'\n        values: 120x10\n"
        )
    };
    let input = [series("a"), series("b"), series("c")].concat();
    let test = format!(
        "evaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n{input}    promql_expr_test:\n\
         \x20     - expr: '{adapter}'\n        eval_time: 5m\n        exp_samples: [{{labels: '{{queue=\"session-tasks\"}}', value: 120}}]\n\
         \x20     - expr: '{keda}'\n        eval_time: 5m\n        exp_samples: [{{labels: '{{}}', value: 120}}]\n"
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("test.yaml"), &test).unwrap();
    let mut promtool = Command::new("promtool");
    let ran = promtool.args(["test", "rules", "test.yaml"]).current_dir(folder.path()).output();
    let output = ran.expect("promtool comes with Debian's package prometheus; run scripts/setup");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}{test}");
}
