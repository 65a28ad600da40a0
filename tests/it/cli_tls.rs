//! Commands with a TLS target: its certificate and its reachability.

use rcgen::CertificateParams;

use crate::cli_home::Home;
use crate::support::tls::{Authority, Identity, usual};
use crate::support::{Launch, Origin, Reply, tells_who_listens};

const MODELS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"data\":[]}";

fn listing_models(config: crate::support::tls::Config) -> Origin {
    Origin::answering_in_tls(config, |_, _| Reply::Bytes(MODELS.into()))
}

#[test]
fn doctor_reports_the_fault_of_a_certificate() {
    #[track_caller]
    fn check(identity: &Identity, says: &str, way_out: &str) {
        let origin = listing_models(identity.server());
        let ca = Authority::known().file.to_string_lossy();
        let home = Home::new().with("SSL_CERT_FILE", &*ca);
        let ran = home.ic(["doctor", "--target", &origin.url()]);
        assert_eq!(ran.exit, Some(1), "{ran:?}");
        let wrong: Vec<&str> = ran
            .out
            .lines()
            .filter(|line| line.starts_with('⚠'))
            .collect();
        assert_eq!(wrong.len(), 1, "{ran:?}");
        assert!(wrong[0].starts_with("⚠ TLS "), "{ran:?}");
        assert!(
            wrong[0].contains(says) && wrong[0].contains(way_out),
            "{ran:?}"
        );
    }
    let known = Authority::known();
    let late = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 2, 3);
    };
    check(
        &known.issue(&["127.0.0.1"], late),
        "expired on 2021-02-03",
        "renew it",
    );
    check(
        &known.issue(&["llm.example.com"], |_| {}),
        "is not for that name but for llm.example.com",
        "use one of its names",
    );
}

#[test]
fn doctor_accepts_a_certificate_that_the_interceptor_trusts() {
    let origin = listing_models(usual());
    let home = Home::new();
    let shop = home.path("shop");
    let ic = Launch::before(&origin).in_folder(shop.clone()).start();
    let home = home.with_mappings(&[(&shop, ic.port)], 8888);
    let ran = home.ic(["doctor"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let finding = format!(
        "✓ TLS        {} has a certificate that is trusted\n",
        origin.url()
    );
    assert!(ran.out.contains(&finding), "{ran:?}");
}

#[test]
fn doctor_health_and_status_show_an_unverified_certificate() {
    let origin = listing_models(
        Authority::known()
            .issue(&["elsewhere.example"], |_| {})
            .server(),
    );
    let home = Home::new();
    let shop = home.path("shop");
    let launch = Launch::before(&origin).args(["--insecure"]);
    let ic = launch.in_folder(shop.clone()).start();
    let home = home.with_mappings(&[(&shop, ic.port)], 8888);
    let doctor = home.ic(["doctor"]);
    assert_eq!(doctor.exit, Some(0), "{doctor:?}");
    assert!(
        doctor.out.contains("\n- TLS        the certificate of "),
        "{doctor:?}"
    );
    if tells_who_listens() {
        let status = home.ic(["status"]).result(0);
        let note = "  the target's certificate is not verified: --insecure\n";
        assert!(status.contains(&format!("{}{note}", ic.port)), "{status}");
        let line = format!("{} ⚠ ", ic.port);
        let words = status.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&line), "{status}");
        let status = home.ic(["status", "--json"]).json(0);
        let entries = status["interceptors"].as_array().expect("a list");
        let entry = entries.iter().find(|entry| entry["port"] == ic.port);
        assert_eq!(entry.expect("it runs")["insecure"], true, "{status}");
    }
    let health = home.ic(["health", "--ready"]);
    assert_eq!(health.exit, Some(0), "{health:?}");
    assert!(
        health
            .out
            .contains("(certificate not verified: --insecure)"),
        "{health:?}"
    );
}

#[test]
fn a_tls_target_is_reachable_if_it_accepts_connections() {
    let origin = listing_models(usual());
    let home = Home::new();
    let shop = home.path("shop");
    let ic = Launch::before(&origin).in_folder(shop.clone()).start();
    let home = home.with_mappings(&[(&shop, ic.port)], 8888);
    let ready = home.ic(["health", "--ready"]);
    assert_eq!(ready.exit, Some(0), "{ready:?}");
    drop(origin);
    let ready = home.ic(["health", "--ready"]);
    assert_eq!(ready.exit, Some(1), "{ready:?}");
    assert!(ready.err.contains("refuses connections"), "{ready:?}");
}
