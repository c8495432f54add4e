//! Manifests as people write them, each with one fault, and our own.

use super::*;

const TOTAL: Duration = Duration::from_secs(8);

/// A Deployment of a gateway without a fault; `{…}` are the places where one is put.
const GOOD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: edge }
spec:
  replicas: 4
  strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } }
  template:
    spec:
      terminationGracePeriodSeconds: 14
      enableServiceLinks: false
      containers:
        - name: beside
          image: registry.example/sluice-sidecar:1
        - name: gateway
          image: registry.example:5000/sluice-gateway@sha256:00
          lifecycle: { preStop: { sleep: { seconds: 5 } } }
          readinessProbe: { httpGet: { path: /readyz, port: 8081 } }
          livenessProbe: { httpGet: { path: /livez, port: 8081 } }
";

fn said(text: &str) -> Vec<String> {
    findings(text, |_| TOTAL).unwrap().iter().map(ToString::to_string).collect()
}

/// With one part in the place of another.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replace(from, to)
}

fn only(text: &str) -> String {
    let all = said(text);
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

#[test]
fn the_kill_timer_begins_with_the_hook() {
    assert_eq!(said(GOOD), Vec::<String>::new());
    assert_eq!(
        only(&with("Seconds: 14", "Seconds: 13")),
        "Deployment edge: terminationGracePeriodSeconds is 13, but preStop takes 5s, a stop of gateway 8s, and its watchdog \
         250ms more: set it to 14 or more, or lower shutdown.total_ms"
    );
    let default = with("      terminationGracePeriodSeconds: 14\n", "");
    assert_eq!(said(&default), Vec::<String>::new(), "30 s are enough");
    let long = default.replace("seconds: 5", "seconds: 25");
    assert!(only(&long).contains("is 30, but preStop takes 25s"), "{long}");
}

#[test]
fn a_total_of_its_own_comes_from_the_environment_or_the_config_map() {
    let environment = with(
        "          lifecycle:",
        "          env: [{ name: SLUICE_SHUTDOWN__TOTAL_MS, value: \"9000\" }]\n          lifecycle:",
    );
    assert!(only(&environment).contains("a stop of gateway 9s"));
    let map = "---\nkind: ConfigMap\nmetadata: { name: edge-7 }\ndata:\n  gateway.toml: |\n    [shutdown]\n    total_ms = 10_000\n";
    let volume = "      volumes: [{ name: config, configMap: { name: edge-7 } }]\n";
    assert!(only(&format!("{GOOD}{volume}{map}")).contains("a stop of gateway 10s"));
    assert!(
        only(&format!("{environment}{volume}{map}")).contains("a stop of gateway 9s"),
        "the environment wins"
    );
    assert_eq!(said(&format!("{GOOD}{map}")), Vec::<String>::new(), "the map of somebody else");
    let broken = format!("{GOOD}{volume}{}", map.replace("10_000", "ten"));
    assert!(findings(&broken, |_| TOTAL).unwrap_err().starts_with("ConfigMap edge-7, gateway.toml: "));
}

#[test]
fn what_the_service_is_told_of_the_timer_is_true() {
    let told = |ms: &str| {
        with(
            "          lifecycle:",
            &format!(
                "          env:\n            - {{ name: SLUICE_SHUTDOWN__KILL_AFTER_MS, value: \"{ms}\" }}\n          lifecycle:"
            ),
        )
    };
    assert_eq!(said(&told("9000")), Vec::<String>::new());
    assert!(only(&told("14000")).contains("only 9000 ms are left after preStop"));
}

#[test]
fn a_gateway_needs_a_hook_that_its_image_can_run() {
    let hook = "          lifecycle: { preStop: { sleep: { seconds: 5 } } }\n";
    assert!(only(&with(hook, "")).contains("there is no preStop"));
    let accepts = "          env: [{ name: SLUICE_DRAIN__ACCEPT_GRACE_MS, value: \"3000\" }]\n";
    assert_eq!(said(&with(hook, accepts)), Vec::<String>::new(), "it accepts for longer instead");
    let logic = with(hook, "").replace("sluice-gateway", "sluice-logic");
    assert_eq!(said(&logic), Vec::<String>::new(), "nobody is sent to a logic");
    for command in ["[sleep, \"5\"]", "[sh, -c, sleep 5]", "[/bin/sleep, \"5\"]"] {
        let text = with("sleep: { seconds: 5 }", &format!("exec: {{ command: {command} }}"));
        assert!(only(&text).contains("which our images do not have"), "{command}");
    }
    let drain = "exec: { command: [/usr/local/bin/sluice, drain, --wait-s, \"20\"] }";
    assert!(only(&with("sleep: { seconds: 5 }", drain)).contains("preStop takes 20s"));
}

#[test]
fn probes_ask_what_they_are_for() {
    let ready = "          readinessProbe: { httpGet: { path: /readyz, port: 8081 } }\n";
    assert!(only(&with(ready, "")).contains("there is no readinessProbe"));
    assert!(only(&with("path: /readyz", "path: /livez")).contains("its readinessProbe asks for /livez"));
    assert!(only(&with("path: /livez", "path: /readyz")).contains("its livenessProbe asks for /readyz"));
    let own = ready.replace("httpGet: { path: /readyz, port: 8081 }", "exec: { command: [sluice, health] }");
    assert_eq!(said(&with(ready, &own)), Vec::<String>::new());
}

#[test]
fn a_roll_takes_nobody_away_first() {
    let strategy = "  strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } }\n";
    assert!(only(&with(strategy, "")).contains("takes 1 of 4 away"), "a quarter is the default");
    let two = with(strategy, "").replace("replicas: 4", "replicas: 2");
    assert_eq!(said(&two), Vec::<String>::new(), "a quarter of two is none");
    assert!(only(&with("maxUnavailable: 0", "maxUnavailable: 50%")).contains("takes 2 of 4 away"));
    assert!(only(&with(strategy, "  strategy: { type: Recreate }\n")).contains("Recreate"));
    let set = only(&with("kind: Deployment", "kind: StatefulSet"));
    assert!(set.starts_with("warning: StatefulSet edge: "), "{set}");
}

#[test]
fn what_can_be_meant_is_a_warning() {
    let links = only(&with("      enableServiceLinks: false\n", ""));
    assert!(links.starts_with("warning: ") && links.contains("SLUICE_…"), "{links}");
    let logic = GOOD.replace("sluice-gateway", "sluice-logic").replace("name: edge", "name: core");
    let logic = logic.replace("seconds: 5", "seconds: 1");
    let order = only(&format!("{GOOD}---{logic}"));
    assert!(
        order.starts_with("warning: Deployment core: its preStop takes 1s and that of gateways 5s"),
        "{order}"
    );
}

#[test]
fn lists_are_read_and_what_holds_no_service_is_refused() {
    let indented = GOOD.replace('\n', "\n    ");
    let list =
        format!("kind: List\nitems:\n  -{}", indented.trim_start_matches('\n').replacen("    ", " ", 1));
    assert_eq!(said(&list), Vec::<String>::new());
    assert!(only(&list.replace("Seconds: 14", "Seconds: 13")).contains("is 13"));
    for (text, says) in [
        ("kind: Service\n", "no Deployment"),
        ("", "no Deployment"),
        ("kind: Deployment\nspec: {{ .Values.x }}\n", "helm template"),
        ("a: [", "no YAML"),
    ] {
        let error = findings(text, |_| TOTAL).unwrap_err();
        assert!(error.contains(says), "{text:?}: {error}");
    }
}

/// As they are; what overlays and the chart make of them is tested where they can be rendered.
#[test]
fn our_own_manifests_leave_time_for_a_stop() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes/base");
    let files = Service::SERVICES
        .map(|service| std::fs::read_to_string(folder.join(format!("{service}.yaml"))).unwrap());
    assert_eq!(said(&files.join("\n---\n")), Vec::<String>::new());
}
