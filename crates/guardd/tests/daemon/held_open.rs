//! Who goes on with the old inode after a restore is named: open writers, and containers with a file mounted by itself.

use std::fs;
use std::process::Command;

use guard_api::method::Restore;

use crate::stage::{PLAIN, Stage, text_of};
use crate::tree::chmod;
use crate::writers::Holder;

fn restore(stage: &Stage, path: &str) -> Vec<(String, String)> {
    let asked = Restore { environment: None, paths: vec![path.to_owned()], from: None, plan: None };
    let done = stage.call(&asked).result.unwrap();
    assert!(done.skipped.is_empty(), "{done:?}");
    done.remarks.into_iter().map(|s| (s.path, s.why)).collect()
}

#[test]
fn a_writer_of_the_old_inode_is_named() {
    let stage = Stage::locked(PLAIN);
    let original = fs::read(stage.at("compose.yml")).unwrap();
    fs::write(stage.at("compose.yml"), "tampered").unwrap();
    let holder = Holder::appends(&stage, "compose.yml");
    stage.finding("compose.yml");
    let said = stage.guardctl(["restore", crate::stage::ENV, "compose.yml"]);
    let text = text_of(&said);
    let by = format!("by sh (pid {})", holder.pid());
    assert!(text.contains("compose.yml") && text.contains("still open for writing"), "{text}");
    assert!(text.contains(&by), "{text}");
    assert_eq!(fs::read(stage.at("compose.yml")).unwrap(), original);
}

/// An inode that stays is no old one: nobody is named for attributes.
#[test]
fn a_writer_of_an_inode_that_stays_is_not_named() {
    let stage = Stage::locked(PLAIN);
    let _holder = Holder::appends(&stage, "compose.yml");
    chmod(&stage.at("compose.yml"), 0o600);
    stage.finding("compose.yml");
    assert_eq!(restore(&stage, "compose.yml"), []);
}

#[test]
fn a_container_with_the_file_mounted_by_itself_is_named() {
    let stage = Stage::locked(PLAIN);
    let original = fs::read(stage.at("compose.yml")).unwrap();
    fs::write(stage.at("compose.yml"), "tampered").unwrap();
    fs::write(stage.path("inside"), "").unwrap();
    let mut container = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        container.args(["--user", "--map-root-user"]);
    }
    let script = "mount --bind \"$0\" \"$1\" && echo ready && read -r _ && cat \"$1\"";
    container.args(["--mount", "--propagation=private", "sh", "-c", script]);
    let Some(holder) = Holder::or_not(container.arg(stage.at("compose.yml")).arg(stage.path("inside")))
    else {
        return eprintln!("skipped: no mount namespaces for this user");
    };
    stage.finding("compose.yml");
    let remarks = restore(&stage, "compose.yml");
    assert_eq!(fs::read(stage.at("compose.yml")).unwrap(), original);
    let [(path, why)] = remarks.as_slice() else { panic!("{remarks:?}") };
    assert_eq!(path, "compose.yml");
    assert!(
        why.contains(&format!("sh (pid {})", holder.pid())) && why.contains("recreate that container"),
        "{why}"
    );
}
