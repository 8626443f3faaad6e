//! Languages whose own parser is installed: one process for many files, fed by
//! its standard input, in a clean environment, with a limit on time. They parse
//! and never execute.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::finding::Remark;
use crate::git::clean;

/// What one process may take, for all the files that it gets.
const LONGEST: Duration = Duration::from_secs(60);
/// Most output of a parser that is read.
const MOST_OUTPUT: u64 = 16 * 1024 * 1024;

/// Parses each file, prefixed by its length and kind, to a tree that is dropped.
const PYTHON: &str = r#"
import ast, json, sys
read = sys.stdin.buffer.read
while True:
    head = read(5)
    if len(head) < 5: break
    source = read(int.from_bytes(head[:4], "big"))
    try:
        compile(source, "<staged>", "exec", flags=ast.PyCF_ONLY_AST, dont_inherit=True)
        answer = {}
    except SyntaxError as e:
        answer = {"line": e.lineno, "column": e.offset, "message": e.msg}
    except ValueError as e:
        answer = {"line": 1, "message": str(e)}
    except (RecursionError, MemoryError):
        answer = {"unchecked": "it is nested too deeply for python3"}
    sys.stdout.write(json.dumps(answer) + "\n")
sys.stdout.flush()
"#;

/// Compiles each file to a function or module that is never called.
const NODE: &str = r#"
const vm = require('vm'), all = require('fs').readFileSync(0);
let at = 0; const out = [];
const place = e => {
    const lines = String(e.stack).split('\n'), found = /^F:(\d+)/.exec(lines[0]);
    const caret = (lines[2] || '').indexOf('^');
    return {line: found ? +found[1] : null, column: found && caret >= 0 ? caret + 1 : null, message: e.message};
};
while (at + 5 <= all.length) {
    const length = all.readUInt32BE(at), kind = all[at + 4];
    const source = all.toString('utf8', at + 5, at + 5 + length).replace(/^\uFEFF?#!.*/, '');
    at += 5 + length;
    let error = null;
    const script = () => { vm.compileFunction(source, ['exports', 'require', 'module', '__filename', '__dirname'], {filename: 'F'}); };
    const module = () => { new vm.SourceTextModule(source, {identifier: 'F'}); };
    const ways = kind === 1 ? [module] : kind === 2 ? [script] : /^\s*(import|export)\b/m.test(source) ? [module, script] : [script, module];
    for (const way of ways) {
        try { way(); error = null; break; } catch (e) { error = error || e; }
    }
    if (!error) out.push({});
    else if (!(error instanceof SyntaxError)) out.push({unchecked: String(error.message)});
    else if (/Unexpected token '<'/.test(error.message)) out.push({unchecked: 'it looks like JSX, which node does not parse'});
    else out.push(place(error));
}
process.stdout.write(out.map(o => JSON.stringify(o) + '\n').join(''));
"#;

/// A parser that takes many files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Node,
}

/// What became of one file.
#[derive(Debug)]
pub(super) enum Parsed {
    Good,
    Bad(Remark),
    Unchecked(String),
}

#[derive(Deserialize)]
struct Answer {
    line: Option<u64>,
    column: Option<u64>,
    message: Option<String>,
    unchecked: Option<String>,
}

impl Language {
    fn command(self) -> Command {
        match self {
            Self::Python => {
                let mut command = Command::new("python3");
                // Isolated, without site packages, without writing bytecode.
                command.args(["-I", "-S", "-B", "-W", "ignore", "-X", "utf8", "-c", PYTHON]);
                command
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.args(["--no-warnings", "--experimental-vm-modules", "-e", NODE]);
                command
            }
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "javascript",
        }
    }

    /// Parses files: for each its content and its kind of module by its name.
    pub(super) fn parse(self, files: &[(&[u8], &[u8])]) -> Vec<Parsed> {
        let mut input = Vec::new();
        for (path, content) in files {
            input.extend(u32::try_from(content.len()).unwrap_or(0).to_be_bytes());
            input.push(if path.ends_with(b".mjs") { 1 } else { u8::from(path.ends_with(b".cjs")) * 2 });
            input.extend_from_slice(content);
        }
        let output = match run(self.command(), &input) {
            Ok(ran) => ran.stdout,
            Err(why) => return files.iter().map(|_| Parsed::Unchecked(why.clone())).collect(),
        };
        let mut answers = output.split(|&b| b == b'\n').map(|l| serde_json::from_slice::<Answer>(l).ok());
        let one = |_| match answers.next().flatten() {
            None => Parsed::Unchecked("the parser ended before it".to_owned()),
            Some(Answer { unchecked: Some(why), .. }) => Parsed::Unchecked(why),
            Some(Answer { message: Some(what), line, column, .. }) => {
                Parsed::Bad(Remark::error(self.rule(), line, what).at_column(column.filter(|&c| c > 0)))
            }
            Some(_) => Parsed::Good,
        };
        files.iter().map(one).collect()
    }
}

/// What a program said.
pub(super) struct Ran {
    pub(super) good: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Runs a parser on `input`; why not, where it could not.
pub(super) fn run(mut command: Command, input: &[u8]) -> Result<Ran, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    clean(&mut command).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("{name} is not installed"),
        _ => format!("{name} cannot be run: {e}"),
    })?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (status, stdout, stderr) = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A parser that stops at the first mistake leaves the rest unread.
            stdin.map(|mut pipe| pipe.write_all(input)).transpose().ok();
        });
        let out = scope.spawn(move || read(stdout));
        let err = scope.spawn(move || read(stderr));
        (wait(&mut child), out.join().unwrap_or_default(), err.join().unwrap_or_default())
    });
    match status {
        Some(status) => Ok(Ran { good: status.success(), stdout, stderr }),
        None => Err(format!("{name} took longer than {} seconds", LONGEST.as_secs())),
    }
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What was read until an error is what there is.
        pipe.take(MOST_OUTPUT).read_to_end(&mut bytes).ok();
    }
    bytes
}

/// Waits to the end, or kills at the deadline.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + LONGEST;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().ok();
            child.wait().ok();
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
