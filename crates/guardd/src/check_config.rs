//! `guardd check-config`: every mistake at once.

use guard_api::Exit;
use guard_config::{Problem, default_config_path, load};
use serde_json::json;

use crate::Failure;
use crate::cli::CheckConfig;

/// Checks the configuration.
#[expect(clippy::print_stdout, reason = "the answer is the program's output")]
pub(crate) fn run(asked: &CheckConfig) -> Result<Exit, Failure> {
    let path = asked.config.clone().unwrap_or_else(default_config_path);
    let list = |problems: &[Problem]| -> Vec<serde_json::Value> {
        problems
            .iter()
            .map(|p| json!({"file": p.file.to_string_lossy(), "line": p.line, "key": p.key, "what": p.what, "fix": p.fix}))
            .collect()
    };
    match load(&path) {
        Ok(loaded) => {
            if asked.json {
                let names: Vec<&str> = loaded.config.environments.iter().map(|e| e.name.as_str()).collect();
                println!(
                    "{}",
                    json!({"ok": true, "environments": names, "sha256": loaded.sha256, "problems": [], "notices": list(&loaded.notices)})
                );
            } else {
                for e in &loaded.config.environments {
                    println!(
                        "{}: {}",
                        e.name,
                        guard_model::path::escape(std::os::unix::ffi::OsStrExt::as_bytes(e.root.as_os_str()))
                    );
                }
                let files = loaded.files.len();
                println!("the configuration is good ({files} {})", if files == 1 { "file" } else { "files" });
                if loaded.config.environments.is_empty() {
                    println!("nothing is guarded: it names no environment; `guardctl init DIR` proposes one");
                }
                for notice in &loaded.notices {
                    println!("\nnotice: {notice}");
                }
            }
            Ok(Exit::Done)
        }
        Err(problems) if asked.json => {
            println!("{}", json!({"ok": false, "problems": list(problems.as_slice())}));
            Ok(Exit::Usage)
        }
        Err(problems) => Err(Failure::of(Exit::Usage, &problems)),
    }
}
