//! `docs/configuration.md` and `packaging/guardd.toml` against the reader: each
//! key that is read is documented with its type and default, each documented
//! key is read, and every example loads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::parse::{SourceFile, known_keys, parse};

fn repository(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

fn loads(text: &str) -> crate::Config {
    let file = SourceFile::new(PathBuf::from("/etc/guardd/guardd.toml"), text.to_owned());
    parse(&[file]).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The words in backticks.
fn ticked(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Each documented key with the line that gives its type and default.
fn documented() -> BTreeMap<String, String> {
    let text = repository("docs/configuration.md");
    let mut out = BTreeMap::new();
    let mut table = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("## ") {
            table = ticked(line).first().map(|t| format!("{}.", t.trim_matches(['[', ']'])));
            if line == "## Top level" {
                table = Some(String::new());
            }
        } else if line.starts_with("### ") {
            let table = table.as_ref().unwrap_or_else(|| panic!("no table for {line}"));
            let about = lines.find(|l| !l.is_empty()).unwrap();
            for key in ticked(line) {
                assert_eq!(out.insert(format!("{table}{key}"), about.to_owned()), None, "{key} twice");
            }
        }
    }
    out
}

#[test]
fn every_key_is_documented_and_every_documented_key_is_read() {
    let documented = documented();
    let known = known_keys();
    assert_eq!(documented.keys().collect::<BTreeSet<_>>(), known.keys().collect::<BTreeSet<_>>());
    for (name, key) in known {
        let default = match key.default {
            "required" => "Required.".to_owned(),
            "none" => "No default.".to_owned(),
            default => format!("Default: `{default}`."),
        };
        assert_eq!(documented[&name], format!("Type: {}. {default}", key.kind), "{name}");
    }
}

#[test]
fn the_defaults_said_are_the_defaults_used() {
    let mut tables = BTreeMap::<String, Vec<String>>::new();
    for (name, key) in known_keys() {
        // What a table in a list leaves out is said by `a_table_in_a_list_has_its_defaults`.
        if !matches!(key.default, "required" | "none") && in_list(&name).is_none() {
            let (table, name) = name.rsplit_once('.').unwrap();
            tables.entry(table.replace("NAME", "e")).or_default().push(format!("{name} = {}", key.default));
        }
    }
    let deploy = "run_as = 'u'\nsteps = [{ name = 'a', run = 'b' }]\n";
    let bare = format!(
        "version = 1\n[environments.e]\nroot = '/srv/e'\n[environments.e.deploy]\n{deploy}\
         [environments.e.validate]\n[environments.e.compose]\n"
    );
    let mut full = "version = 1\n".to_owned();
    for (table, lines) in tables {
        let required = match table.as_str() {
            "environments.e" => "root = '/srv/e'\n",
            "environments.e.deploy" => deploy,
            _ => "",
        };
        full += &format!("[{table}]\n{required}{}\n", lines.join("\n"));
    }
    assert_eq!(format!("{:?}", loads(&bare)), format!("{:?}", loads(&full)));
}

#[test]
fn the_examples_that_messages_offer_are_good() {
    for (name, key) in known_keys() {
        if key.kind == "table" || name == "version" {
            continue;
        }
        let (table, last) = name.rsplit_once('.').unwrap();
        let line = format!("{last} = {}", key.example);
        let table = table.replace("NAME", "e");
        let root = if last == "root" { "" } else { "environments.e.root = '/srv/e'\n" };
        let text = match in_list(&name) {
            None => format!("version = 1\n{root}{}{table}.{line}\n", around(&table, last)),
            Some(list) => {
                let deploy = around("environments.e.deploy", list);
                format!("version = 1\n{root}{deploy}[[{table}]]\n{}{line}\n", beside(list, last))
            }
        };
        loads(&text);
    }
}

/// The list of tables that a key belongs to.
fn in_list(name: &str) -> Option<&str> {
    let table = name.rsplit_once('.')?.0.rsplit_once('.')?.1;
    ["steps", "rollback", "health", "probes"].contains(&table).then_some(table)
}

/// What `deploy` or `validate` must have beside the key `last`.
fn around(table: &str, last: &str) -> String {
    if (table, last) == ("environments.e.validate", "required") {
        return "environments.e.validate.env_files = ['.env']\n".to_owned();
    }
    if !table.starts_with("environments.e.deploy") {
        return String::new();
    }
    let run_as = if last == "run_as" { "" } else { "environments.e.deploy.run_as = 'u'\n" };
    let steps = "environments.e.deploy.steps = [{ name = 'a', run = 'b' }]\n";
    format!("{run_as}{}", if last == "steps" { "" } else { steps })
}

/// What a table of a list must have beside the key `last`.
fn beside(list: &str, last: &str) -> String {
    let keys: &[&str] = match (list, last) {
        ("health" | "probes", "expect" | "body") => &["http = 'http://h/'"],
        ("health" | "probes", _) => &[],
        (_, "name") => &["run = 'b'"],
        (_, "run") => &["name = 'c'"],
        (_, "undo") => &["name = 'c'", "run = 'b'", "undo_run = 'd'"],
        (_, "undo_run") => &["name = 'c'", "run = 'b'", "undo = 'reversible'"],
        _ => &["name = 'c'", "run = 'b'"],
    };
    keys.iter().flat_map(|key| [*key, "\n"]).collect()
}

#[test]
fn a_table_in_a_list_has_its_defaults() {
    let base = "version = 1\n[environments.e]\nroot = '/srv/e'\n[environments.e.deploy]\nrun_as = 'u'\n";
    let bare = format!("{base}steps = [{{ name = 'a', run = 'b' }}]\nhealth = [{{ http = 'http://h/' }}]\n");
    let full = format!(
        "{base}steps = [{{ name = 'a', run = 'b', undo = \"none\" }}]\nhealth = [{{ http = 'http://h/', expect = 200 }}]\n"
    );
    assert_eq!(format!("{:?}", loads(&bare)), format!("{:?}", loads(&full)));
}

#[test]
fn every_example_in_the_reference_loads() {
    let text = repository("docs/configuration.md");
    let blocks: Vec<&str> = text.split("```toml\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 5);
    for block in blocks {
        loads(block);
    }
}

#[test]
fn the_shipped_configuration_loads_and_so_does_all_it_comments_out() {
    let text = repository("packaging/guardd.toml");
    let shipped = loads(&text);
    assert!(shipped.environments.is_empty());
    assert_eq!(shipped.daemon, crate::Daemon::default());
    // A comment without a space after the hash is an example.
    let example: String = text
        .lines()
        .map(|l| {
            l.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#']) && !rest.is_empty()).unwrap_or(l)
        })
        .flat_map(|l| [l, "\n"])
        .collect();
    let all = loads(&example);
    assert_eq!(all.environments.len(), 1);
    assert_eq!(all.daemon.allow.len(), 2);
    let documented: BTreeSet<_> = documented().into_keys().collect();
    let without = ["environments.NAME.protect", "environments.NAME.backup.dir"];
    for key in documented.iter().filter(|k| !k.starts_with("daemon.allow.") && !without.contains(&k.as_str()))
    {
        let last = key.rsplit('.').next().unwrap();
        assert!(text.contains(last), "packaging/guardd.toml does not show {key}");
    }
}

#[test]
fn patterns_match_what_the_reference_says() {
    use guard_model::policy::{PatternText, Policy};
    // Pattern, what it covers, what it does not; a slash at the end for a directory.
    let rows: [(&str, &[&str], &[&str]); 11] = [
        ("config.py", &["config.py", "a/b/config.py"], &["config.pyc"]),
        ("*.pyc", &["a.pyc", "b/c.pyc"], &["pyc"]),
        ("backend/app", &["backend/app", "backend/app/x"], &["x/backend/app"]),
        ("/scripts", &["scripts", "scripts/x"], &["a/scripts"]),
        ("media/", &["media/", "a/media/x"], &["media"]),
        ("/media/", &["media/", "media/x"], &["a/media/x", "media"]),
        ("conf/*/site.toml", &["conf/a/site.toml"], &["conf/site.toml", "conf/a/b/site.toml"]),
        ("src/**/generated", &["src/generated/x", "src/a/b/generated"], &["a/src/generated"]),
        ("*.{pem,key}", &["a.pem", "b/c.key"], &["a.crt"]),
        ("file[0-9]", &["file7"], &["file", "file77"]),
        (r"odd\[name", &["odd[name"], &["oddn"]),
    ];
    let text = repository("docs/configuration.md");
    let table = text.split("| pattern | matches |").nth(1).unwrap();
    let told: Vec<_> =
        table.lines().filter(|l| l.starts_with("| ")).map(|l| ticked(l)[0].trim_matches('\'')).collect();
    assert_eq!(told, rows.map(|r| r.0));
    for (pattern, hits, misses) in rows {
        let patterns = PatternText { protect: vec![pattern.to_owned()], ..PatternText::default() };
        let policy = Policy::new(patterns).unwrap();
        let covers = |path: &str| {
            let rel = guard_model::RelPath::from_text(path.trim_end_matches('/')).unwrap();
            policy.classify(&rel, path.ends_with('/')).is_protected()
        };
        for path in hits {
            assert!(covers(path), "{pattern} {path}");
        }
        for path in misses {
            assert!(!covers(path), "{pattern} {path}");
        }
    }
}
