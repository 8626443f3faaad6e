//! Every subcommand has its page and is known to every shell.

use std::collections::BTreeSet;
use std::fs;

use clap::Command;
use guard_docgen::{SHELLS, completion, page_name, pages, programs, write_all};

/// Every visible command of the tree, with its full name (`guardctl-alerts-ack`).
fn commands(root: &Command) -> Vec<Command> {
    let mut root = root.clone().disable_help_subcommand(true);
    root.build();
    let mut todo = vec![root];
    let mut found = Vec::new();
    while let Some(command) = todo.pop() {
        if !command.is_hide_set() {
            todo.extend(command.get_subcommands().cloned());
            found.push(command);
        }
    }
    found
}

#[test]
fn every_subcommand_has_a_page_and_nothing_else_has() {
    for program in programs() {
        let expected: BTreeSet<_> = commands(&program.command).iter().map(page_name).collect();
        let made: BTreeSet<_> = pages(&program).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(made, expected);
        assert!(made.len() > 3, "{made:?}");
    }
}

#[test]
fn every_command_and_argument_says_what_it_does() {
    for program in programs() {
        for command in commands(&program.command) {
            let name = page_name(&command);
            assert!(command.get_about().is_some(), "{name} has no description");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{name}: {} has no help", argument.get_id());
            }
        }
    }
}

#[test]
fn every_subcommand_is_completed_in_every_shell() {
    for program in programs() {
        for shell in SHELLS {
            let script = String::from_utf8(completion(&program, shell)).unwrap();
            for command in commands(&program.command) {
                assert!(
                    script.contains(command.get_name()),
                    "{shell}: nothing about {}",
                    page_name(&command)
                );
            }
        }
    }
}

#[test]
fn the_files_are_where_the_package_looks_for_them() {
    let target = tempfile::tempdir().unwrap();
    let written = write_all(target.path()).unwrap();
    for name in
        ["man/man8/guardd.8", "man/man1/guardctl.1", "bash/guardctl", "zsh/_guardctl", "fish/guardd.fish"]
    {
        let path = target.path().join(name);
        assert!(written.contains(&path), "{name} is missing in {written:?}");
        assert!(!fs::read(&path).unwrap().is_empty());
    }
}
