//! The page, the dashboard and the alerts name what there is, all of it, and nothing else.

use std::collections::BTreeSet;

use crinkle_core::telemetry::metric_names;

const PAGE: &str = include_str!("../../docs/observability.md");
const DASHBOARD: &str = include_str!("../../docs/observability/dashboard.json");
const ALERTS: &str = include_str!("../../docs/observability/alerts.yml");
const RUNBOOK: &str = include_str!("../../docs/production.md");
const EVENTS: &str = include_str!("../../crates/core/src/events/mod.rs");

/// Every metric that a text names; a histogram's series as their histogram.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !word(c)).filter(|word| word.starts_with("crinkle_"));
    let whole = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        let series = parts.iter().find_map(|part| word.strip_suffix(part));
        series.unwrap_or(word).to_owned()
    };
    words.map(whole).collect()
}

fn in_code() -> BTreeSet<String> {
    metric_names().map(str::to_owned).collect()
}

#[test]
fn the_page_has_a_row_for_every_metric_and_no_other() {
    let rows: String = PAGE.lines().filter(|l| l.starts_with("| `crinkle_")).collect();
    assert_eq!(named(&rows), in_code());
    assert_eq!(named(PAGE), in_code());
}

#[test]
fn the_alerts_name_only_metrics_that_exist() {
    let named = named(ALERTS);
    assert!(named.len() > 10, "{named:?}");
    assert_eq!(named.difference(&in_code()).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_runbook_has_a_section_for_every_alert_and_names_only_what_exists() {
    let alerts = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let sections = RUNBOOK.lines().filter_map(|line| line.strip_prefix("### "));
    let sections = sections.filter(|section| section.starts_with("Crinkle"));
    assert_eq!(sections.collect::<Vec<_>>(), alerts.collect::<Vec<_>>());
    assert!(named(RUNBOOK).is_subset(&in_code()), "{:?}", named(RUNBOOK));
}

/// The rules of the file, each as its lines.
fn rules() -> Vec<(&'static str, &'static str)> {
    let rules = ALERTS.split("      - alert: ").skip(1);
    rules.map(|rule| rule.split_once('\n').expect("a name, then the rest")).collect()
}

#[test]
fn every_alert_says_where_its_runbook_entry_is() {
    for (name, rule) in rules() {
        let wanted = format!("runbook_url: docs/production.md#{}\n", name.to_lowercase());
        assert!(rule.contains(&wanted), "{name}: {rule}");
        assert!(rule.contains("summary:") && rule.contains("description:"), "{name}");
    }
}

/// One outage is one page: what follows from it does not page as well.
#[test]
fn an_outage_of_l2_fires_one_critical_alert() {
    let state = ["crinkle_l2_up", "crinkle_coherent", "crinkle_subscribed", "crinkle_ledger_lag"];
    let excused = "unless on (cache, instance) crinkle_l2_up == 0";
    for (name, rule) in rules().into_iter().filter(|(name, _)| *name != "CrinkleL2Down") {
        let is_of_state = state.iter().any(|metric| rule.contains(metric));
        assert!(!is_of_state || rule.contains(excused), "{name} fires beside CrinkleL2Down");
    }
    let down = rules()[0];
    assert_eq!(down.0, "CrinkleL2Down");
    assert!(down.1.contains(
        r#"unless on (cache, instance) increase(crinkle_l2_errors_total{kind="denied"}"#
    ));
}

#[test]
fn alerts_about_one_node_name_it() {
    for (name, rule) in rules() {
        let expr = rule.split("labels: {").next().expect("the expression");
        let by = expr.split("sum by (").skip(1).map(|by| by.split(')').next().expect("its end"));
        let of_all = ["CrinkleFactoryFailures", "CrinkleStaleAnswers"].contains(&name);
        assert!(of_all || by.into_iter().all(|by| by.contains("instance")), "{name}");
        assert!(of_all || rule.contains("{{ $labels.instance }}"), "{name}");
    }
    for kind in ["denied", "full", "other"] {
        assert!(
            ALERTS.contains(&format!("expr: increase(crinkle_l2_errors_total{{kind=\"{kind}\"}}"))
        );
    }
    assert!(ALERTS.contains(r#"crinkle_misses_total{reason="unreachable"}"#));
}

#[test]
fn the_dashboard_is_json_and_shows_every_metric_but_the_polls() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("it is JSON");
    assert_eq!(dashboard["title"], "Crinkle");
    let mut shown = named(DASHBOARD);
    assert!(shown.is_subset(&in_code()), "{:?}", shown.difference(&in_code()));
    shown.extend(["crinkle_syncs_total".to_owned(), "crinkle_recovery_queued_total".to_owned()]);
    assert_eq!(shown, in_code());
}

#[test]
fn the_page_has_a_row_for_every_event() {
    let body = EVENTS.split("pub enum Event {").nth(1).expect("the enum");
    let body = body.split("\n}").next().expect("its end");
    let variants = body.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?.split([' ', ',', '(']).next()?;
        name.starts_with(|c: char| c.is_ascii_uppercase()).then_some(name)
    });
    let variants: Vec<_> = variants.collect();
    assert!(variants.len() > 25, "{variants:?}");
    let rows: String = PAGE.lines().filter(|line| line.starts_with("| `")).collect();
    for name in variants {
        assert!(rows.contains(&format!("`{name}`")), "{name} has no row");
    }
}
