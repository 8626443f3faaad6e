//! The ledger: shown, followed, exported, verified by the daemon and without it.

use std::fs;
use std::path::PathBuf;

use guard_api::Known;
use guard_api::method::{ExportLog, ExportLogReply, Log, VerifyLog, Watch};
use serde_json::Value;

use crate::raw::Raw;
use crate::stage::{ENV, PLAIN, Stage, text_of};
use crate::tree::chmod;
use crate::wait;

/// A stage with a ledger of some records, stopped.
fn written() -> Stage {
    let mut stage = Stage::locked(PLAIN);
    for n in 0..3 {
        chmod(&stage.at("compose.yml"), 0o600 + n);
        stage.wait_for_findings(1 + n as usize);
    }
    stage.acknowledge(stage.all_alerts()[0].id);
    stage.stop();
    stage
}

/// The ledger's files, oldest first.
fn files(stage: &Stage) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(stage.state("ledger"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    all.sort();
    all
}

fn lines(stage: &Stage) -> Vec<String> {
    files(stage)
        .iter()
        .flat_map(|f| fs::read_to_string(f).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn rewrite(stage: &Stage, lines: &[String]) {
    let all = files(stage);
    assert_eq!(all.len(), 1);
    fs::write(&all[0], lines.iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
}

/// `guardd verify --offline --json`: the exit code and the ledger's verdict.
fn verify(stage: &Stage) -> (Option<i32>, Value) {
    let done = stage.offline(["verify", "--offline", "--json"]);
    let said: Value =
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", text_of(&done)));
    (done.status.code(), said["checks"][0].clone())
}

#[test]
fn a_whole_ledger_verifies_with_and_without_the_daemon() {
    let mut stage = written();
    let (code, ledger) = verify(&stage);
    assert_eq!((code, &ledger["ok"]), (Some(0), &Value::Bool(true)), "{ledger}");
    let text = text_of(&stage.offline(["verify", "--offline"]));
    assert!(text.contains("good    ledger: ") && text.contains("good    baseline 1 of site"), "{text}");
    stage.start();
    let result = stage.call(&VerifyLog {}).result.unwrap();
    assert!(result.ok && result.broken.is_none() && result.truncated.is_none(), "{result:?}");
    assert!(result.checkpoints > 0, "an ordered stop signs the head");
    assert_eq!(stage.guardctl(["log", "verify"]).status.code(), Some(0));
    // Offline beside a running daemon as well: it only reads.
    assert_eq!(verify(&stage).0, Some(0));
}

#[test]
fn every_tampering_is_found_and_told_where() {
    let stage = written();
    let good = lines(&stage);
    let at = good.iter().position(|l| l.contains("alert_opened")).unwrap();
    let tampered: [(&str, Vec<String>); 7] = [
        ("edited", {
            let mut l = good.clone();
            l[at] = l[at].replace("compose.yml", "harmless.yml");
            l
        }),
        ("removed", {
            let mut l = good.clone();
            l.remove(at);
            l
        }),
        ("reordered", {
            let mut l = good.clone();
            l.swap(at, at + 1);
            l
        }),
        ("doubled", {
            let mut l = good.clone();
            l.insert(at, good[at].clone());
            l
        }),
        ("cut at its end", good[..at].to_vec()),
        ("cut at its beginning", good[2..].to_vec()),
        ("garbage", {
            let mut l = good.clone();
            l[at] = "\u{1}\u{2} no json".into();
            l
        }),
    ];
    for (how, lines) in tampered {
        rewrite(&stage, &lines);
        let (code, ledger) = verify(&stage);
        assert_eq!((code, &ledger["ok"]), (Some(1), &Value::Bool(false)), "{how}: {ledger}");
        assert!(ledger["error"].as_str().is_some_and(|e| e.contains("ledger/")), "{how}: {ledger}");
    }
    rewrite(&stage, &good);
    assert_eq!(verify(&stage).0, Some(0));
    for file in files(&stage) {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(verify(&stage).0, Some(1), "an empty ledger beside a lock file that remembers more");
}

#[test]
fn a_start_on_a_tampered_ledger_goes_on_and_raises_a_critical_alert() {
    for how in ["edited", "cut", "gone"] {
        let mut stage = written();
        let mut all = lines(&stage);
        match how {
            "edited" => {
                let at = all.iter().position(|l| l.contains("alert_opened")).unwrap();
                all[at] = all[at].replace("compose.yml", "harmless.yml");
                rewrite(&stage, &all);
            }
            "cut" => {
                let at = all.iter().position(|l| l.contains("\"locked\"")).unwrap();
                rewrite(&stage, &all[..=at]);
            }
            _ => files(&stage).iter().for_each(|f| fs::remove_file(f).unwrap()),
        }
        stage.start();
        let alerts = stage.own_alerts();
        assert!(
            alerts
                .iter()
                .any(|a| a.title.contains("ledger") && a.severity == guard_api::wire::Severity::Critical),
            "{how}: {:?}",
            alerts.iter().map(|a| &a.title).collect::<Vec<_>>()
        );
        stage.log_line("security-alerts.log", |l| l.contains("critical") && l.contains("ledger"));
        // It still knows what is locked, and guards it.
        let site = stage.site();
        assert_eq!(site.state, guard_api::wire::State::Locked, "{how}");
        fs::write(stage.at("scripts/deploy.sh"), "x").unwrap();
        stage.finding("scripts/deploy.sh");
        let result = stage.call(&VerifyLog {}).result.unwrap();
        // What was broken stays broken: a new chain does not make the old one whole.
        assert!(!result.ok, "{how}: {result:?}");
    }
}

#[test]
fn a_torn_last_line_is_recovery_and_no_alarm() {
    let mut stage = Stage::locked(PLAIN);
    stage.kill();
    let file = files(&stage).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(b"{\"seq\":99,\"at\":\"2026-");
    fs::write(&file, &bytes).unwrap();
    stage.start();
    assert_eq!(stage.own_alerts().len(), 0);
    let recovered = stage.events("recovered").remove(0);
    assert_eq!(recovered.fields["operation"], "ledger");
    assert!(stage.call(&VerifyLog {}).result.unwrap().ok);
    assert_eq!(stage.all_alerts(), []);
}

#[test]
fn tampering_while_it_runs_is_found_too() {
    let stage = Stage::locked(PLAIN);
    let file = files(&stage).pop().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("daemon_started", "daemon_stopped", 1)).unwrap();
    let result = stage.call(&VerifyLog {}).result.unwrap();
    assert!(!result.ok && result.broken.is_some(), "{result:?}");
    assert_eq!(stage.guardctl(["log", "verify"]).status.code(), Some(1));
    // And it goes on guarding.
    fs::write(stage.at("compose.yml"), "x").unwrap();
    stage.finding("compose.yml");
}

#[test]
fn a_head_kept_elsewhere_finds_a_tail_cut_off_with_everything_that_remembers_it() {
    let mut stage = Stage::locked(PLAIN);
    chmod(&stage.at("compose.yml"), 0o600);
    stage.finding("compose.yml");
    let exported = stage.guardctl(["log", "export"]);
    fs::write(stage.path("ledger.jsonl"), &exported.stdout).unwrap();
    let head = String::from_utf8(stage.guardctl(["log", "export", "--head"]).stdout).unwrap();
    let signed = String::from_utf8(stage.guardctl(["log", "export", "--head", "--json"]).stdout).unwrap();
    // A file of heads, as the operations guide says: the last one counts.
    let heads = stage.path("heads");
    fs::write(&heads, format!("1 {}\n{signed}\n", "0".repeat(64))).unwrap();
    fs::write(stage.path("forged"), signed.replacen("\"seq\":", "\"seq\":1", 1)).unwrap();
    fs::copy(stage.state("public/host.pub"), stage.path("host.pub")).unwrap();
    stage.stop();

    let verify_with = |file: &str, head: &str| {
        let done = stage.guardctl([
            "log",
            "verify",
            "--file",
            stage.path(file).to_str().unwrap(),
            "--key",
            stage.path("host.pub").to_str().unwrap(),
            "--head",
            head,
        ]);
        (done.status.code(), text_of(&done))
    };
    let verify = |file: &str| verify_with(file, head.trim());
    assert_eq!(verify("ledger.jsonl").0, Some(0), "{}", verify("ledger.jsonl").1);
    let text = String::from_utf8(exported.stdout).unwrap();
    let cut: Vec<&str> = text.lines().collect();
    fs::write(stage.path("cut.jsonl"), cut[..cut.len() - 2].join("\n") + "\n").unwrap();
    let (code, said) = verify("cut.jsonl");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cut off"), "{said}");
    // The same of a signed head, as text and in a file; its signature counts.
    let heads = heads.to_str().unwrap();
    for head in [signed.trim(), heads] {
        assert_eq!(verify_with("ledger.jsonl", head).0, Some(0), "{}", verify_with("ledger.jsonl", head).1);
        assert_eq!(verify_with("cut.jsonl", head).0, Some(1), "{}", verify_with("cut.jsonl", head).1);
    }
    let (code, said) = verify_with("ledger.jsonl", stage.path("forged").to_str().unwrap());
    assert!(code == Some(1) && said.contains("signature"), "{code:?} {said}");
    for nonsense in ["42", "x", "", "/nowhere/head", stage.path("ledger.jsonl").to_str().unwrap()] {
        assert_eq!(verify_with("ledger.jsonl", nonsense).0, Some(2), "{nonsense}");
    }
}

#[test]
fn export_is_the_very_bytes_and_a_signed_head() {
    let stage = Stage::locked(PLAIN);
    let mut client = stage.client();
    let replies: Vec<ExportLogReply> =
        client.call_more(&ExportLog::default()).unwrap().map(Result::unwrap).collect();
    let head = replies.last().unwrap().head.clone().unwrap();
    let exported: Vec<String> = replies.into_iter().flat_map(|r| r.lines).collect();
    assert_eq!(exported, lines(&stage)[..exported.len()]);
    assert_eq!(head.seq, exported.len() as u64);
    // ssh-keygen verifies it as the documentation says.
    fs::write(stage.path("sig"), &head.signature).unwrap();
    let done = crate::stage::run_with_input(
        std::process::Command::new("ssh-keygen")
            .args(["-Y", "verify", "-I", "guardd", "-n", "guardd-ledger", "-f"])
            .arg(stage.state("public/allowed_signers"))
            .arg("-s")
            .arg(stage.path("sig")),
        format!("{} {}\n", head.seq, head.hash).as_bytes(),
    );
    assert!(done.status.success(), "{}", text_of(&done));
    assert_eq!(stage.refused(&ExportLog::default()), Known::ExpectedMore {});
    assert!(stage.call(&ExportLog { head_only: Some(true) }).head.is_some());
}

#[test]
fn the_log_is_shown_filtered_limited_and_followed() {
    let stage = Stage::locked(PLAIN);
    let last = stage.call(&Log { limit: Some(2), ..Log::default() }).records;
    let all = stage.records();
    assert_eq!(last, all[all.len() - 2..]);
    assert!(all.windows(2).all(|w| w[0].seq + 1 == w[1].seq));
    let of_site = stage.call(&Log { environment: Some(ENV.into()), ..Log::default() }).records;
    assert!(!of_site.is_empty() && of_site.iter().all(|r| r.environment.as_deref() == Some(ENV)));
    assert!(matches!(
        stage.refused(&Log { environment: Some("no".into()), ..Log::default() }),
        Known::UnknownEnvironment { .. }
    ));
    assert_eq!(stage.call(&Log { limit: Some(0), ..Log::default() }).records, []);
    assert_eq!(stage.refused(&Log { follow: Some(true), ..Log::default() }), Known::ExpectedMore {});
    assert_eq!(stage.refused(&Watch::default()), Known::ExpectedMore {});

    let mut client = stage.client();
    let mut replies =
        client.call_more(&Log { follow: Some(true), limit: Some(1), ..Log::default() }).unwrap();
    let first = replies.next().unwrap().unwrap();
    assert_eq!(first.records.len(), 1);
    fs::write(stage.at("compose.yml"), "x").unwrap();
    let told = replies.map(Result::unwrap).flat_map(|r| r.records).find(|r| r.event == "alert_opened");
    assert_eq!(told.unwrap().fields["findings"][0]["path"], "compose.yml");
}

#[test]
fn calls_are_in_the_ledger_before_they_are_answered_and_if_nobody_waits_for_the_answer() {
    let stage = Stage::locked(PLAIN);
    let last_call = |stage: &Stage| stage.events("call").pop().unwrap().fields["method"].clone();
    assert_eq!(last_call(&stage), "org.guardd.Control.Lock");
    stage.unlock();
    assert_eq!(last_call(&stage), "org.guardd.Control.Unlock");
    // Hangs up at once, with and without having asked for progress.
    for more in ["true", "false"] {
        let before = stage.events("call").len();
        let mut raw = Raw::connect(&stage.socket());
        raw.say(format!("{{\"method\":\"org.guardd.Control.Lock\",\"parameters\":{{}},\"more\":{more}}}"));
        drop(raw);
        wait::until_true("the call in the ledger", || stage.events("call").len() > before);
        assert_eq!(stage.events("call").pop().unwrap().fields["outcome"], "done");
    }
    assert_eq!(stage.site().generation, Some(2));
}
