//! Checks file after file, gathers those whose parser takes many at once, and
//! makes one report of it.

use std::collections::BTreeSet;

use guard_model::RelPath;
use guard_model::path::escape;
use guard_model::policy::{PatternText, Policy};

use super::finding::{Report, Unchecked};
use super::interpreter::{Language, Parsed};
use super::kind::Kind;
use super::own::OwnValidator;
use super::{compose, dotenv, json, nginx, shell, toml_text, yaml};
use crate::contents::{Blob, Content};
use crate::secrets::allow::{self, AllowList};
use crate::secrets::{self, Leak, is_binary, search};
use crate::values::{Compare, Comparison};

/// Gathered files go to their parser when they are this many bytes.
const MOST_GATHERED: usize = 32 * 1024 * 1024;

/// What to check by.
pub struct Options<'a> {
    /// Validators of the user's.
    pub own: Vec<OwnValidator>,
    /// Known findings; read when the first one is looked up.
    pub allowed: &'a dyn Fn() -> AllowList,
    /// `YYYY-MM-DD`.
    pub today: String,
    /// A file of the same selection by its path, for the `.env` beside a compose file.
    pub beside: &'a dyn Fn(&[u8]) -> Option<Vec<u8>>,
    /// Who knows the values of the environment's sensitive files; `None` where no environment is meant.
    pub values: Option<&'a mut dyn Compare>,
}

/// A check under way.
pub struct Checker<'a> {
    options: Options<'a>,
    own: Vec<(Policy, OwnValidator)>,
    allowed: Option<AllowList>,
    values: Option<Comparison<'a>>,
    report: Report,
    gathered: [Gathered; 2],
}

/// Files for a parser that takes many at once: path and content.
struct Gathered {
    language: Language,
    files: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Gathered {
    fn new(language: Language) -> Self {
        Self { language, files: Vec::new(), bytes: 0 }
    }
}

impl<'a> Checker<'a> {
    /// Begins.
    #[must_use]
    pub fn new(mut options: Options<'a>) -> Self {
        let mut report = Report::default();
        let mut own = Vec::new();
        for validator in &options.own {
            let text = PatternText { protect: vec![validator.pattern.clone()], ..PatternText::default() };
            match Policy::new(text) {
                Ok(policy) => own.push((policy, validator.clone())),
                Err(_) => report.unchecked.push(Unchecked {
                    path: None,
                    what: "own validator".to_owned(),
                    why: format!("{:?} is no pattern", validator.pattern),
                }),
            }
        }
        let gathered = [Gathered::new(Language::Python), Gathered::new(Language::Node)];
        let values = options.values.take().map(Comparison::new);
        Self { options, own, allowed: None, values, report, gathered }
    }

    /// Checks one file.
    pub fn file(&mut self, blob: &Blob, content: Content<'_>, before: Content<'_>) {
        self.report.files += 1;
        let path = blob.path.as_slice();
        let bytes = match content {
            Content::Bytes(bytes) => bytes,
            Content::TooLong(length) => {
                return self.unchecked(path, "content", format!("it has {length} bytes"));
            }
            Content::Missing => {
                return self.unchecked(path, "content", "the repository does not have it".to_owned());
            }
        };
        let old = if let Content::Bytes(old) = before { Some(old) } else { None };
        if path == allow::NAME.as_bytes() {
            // What is wrong with it is told when it is brought in, used or not.
            self.read_allowed();
        }
        let values = &mut self.values;
        let leaks = search(path, bytes, old, |number, line| {
            if let Some(values) = values {
                values.line(path, number, line);
            }
        });
        for leak in leaks {
            self.leak(path, leak);
        }
        if !blob.stays || blob.mode == b"120000" {
            return;
        }
        if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
            return self.unchecked(path, "content", "it is kept by LFS; only a pointer is here".to_owned());
        }
        self.syntax(path, bytes);
        self.own_validators(path, bytes);
    }

    /// Looks at a file that is in the repository and that the commit leaves as it is.
    pub fn tracked(&mut self, path: &[u8], content: Content<'_>) {
        if let Content::Bytes(bytes) = content
            && let Some(leak) = secrets::tracked(path, bytes)
        {
            self.leak(path, leak);
        }
    }

    fn leak(&mut self, path: &[u8], leak: Leak) {
        let today = self.options.today.clone();
        let allowed = self.read_allowed().allows(leak.rule, path, leak.fingerprint.as_deref(), &today);
        if allowed == Ok(true) {
            return;
        }
        let mut finding = leak.finding(path);
        if let Err(ended) = allowed {
            finding.message.push_str(&format!(" (the allowance for it ended on {ended})"));
        }
        self.report.findings.push(finding);
    }

    /// The allow-list. It is looked for in a repository's whole index: only where it matters.
    fn read_allowed(&mut self) -> &AllowList {
        let (read, report) = (self.options.allowed, &mut self.report);
        self.allowed.get_or_insert_with(|| {
            let list = read();
            report.findings.extend_from_slice(&list.problems);
            list
        })
    }

    /// The values of sensitive files, as far as they could be compared.
    fn finish_values(&mut self) {
        const WHAT: &str = "values of sensitive files";
        let Some(mut values) = self.values.take() else { return };
        values.finish();
        for (place, found) in &values.found {
            self.leak(&place.path, secrets::sensitive_value(place.line, found));
        }
        if let Some(why) = &values.failed {
            self.could_not(WHAT, why);
        }
        for why in &values.last.unread {
            self.could_not(WHAT, why);
        }
        if values.last.left_out > 0 {
            let many = values.last.left_out;
            self.could_not(
                WHAT,
                &format!("{many} of them too short or too ordinary to be told from other text"),
            );
        }
    }

    fn syntax(&mut self, path: &[u8], bytes: &[u8]) {
        let remarks = match Kind::of(path, bytes) {
            Kind::Other => return,
            Kind::Unparsed(language) => {
                return self.unchecked(path, "syntax", format!("there is no parser for {language} here"));
            }
            Kind::Json => json::check(bytes),
            Kind::JsonWithComments => json::check_with_comments(bytes),
            Kind::JsonLines => json::check_lines(bytes),
            Kind::Yaml if is_template(bytes) => {
                return self.unchecked(path, "syntax", "it is a template, not yet YAML".to_owned());
            }
            Kind::Yaml => yaml::check(bytes),
            Kind::Compose => self.compose(path, bytes),
            Kind::Toml => toml_text::check(bytes),
            Kind::Dotenv => dotenv::check(bytes),
            Kind::Nginx => nginx::check(bytes),
            Kind::Python => return self.gather(0, path, bytes),
            Kind::JavaScript => return self.gather(1, path, bytes),
            Kind::Bash => return self.parsed(path, bytes, shell::check("bash", bytes)),
            Kind::Sh => return self.parsed(path, bytes, shell::check("sh", bytes)),
            Kind::Php => return self.parsed(path, bytes, shell::check_php(bytes)),
        };
        self.report.checked += 1;
        self.report.findings.extend(remarks.into_iter().map(|r| r.of(path, bytes)));
    }

    fn compose(&mut self, path: &[u8], bytes: &[u8]) -> Vec<super::finding::Remark> {
        let directory =
            path.iter().rposition(|&b| b == b'/').map_or(&[][..], |at| path.get(..=at).unwrap_or_default());
        let env = [directory, b".env"].concat();
        let known: Option<BTreeSet<String>> = (self.options.beside)(&env).map(|text| dotenv::names(&text));
        let checked = compose::check(bytes, known.as_ref());
        if !checked.variables_known {
            self.unchecked(path, "variables", "there is no .env beside it to compare them with".to_owned());
        }
        checked.remarks
    }

    fn own_validators(&mut self, path: &[u8], bytes: &[u8]) {
        let Ok(place) = RelPath::from_bytes(path) else { return };
        let ours: Vec<OwnValidator> = self
            .own
            .iter()
            .filter(|(policy, _)| policy.classify(&place, false).is_protected())
            .map(|(_, validator)| validator.clone())
            .collect();
        for validator in ours {
            self.parsed(path, bytes, validator.check(path, bytes));
        }
    }

    fn gather(&mut self, which: usize, path: &[u8], bytes: &[u8]) {
        if is_binary(bytes) {
            return self.unchecked(path, "syntax", "it is binary".to_owned());
        }
        let Some(gathered) = self.gathered.get_mut(which) else { return };
        gathered.files.push((path.to_vec(), bytes.to_vec()));
        gathered.bytes += bytes.len();
        if gathered.bytes >= MOST_GATHERED {
            self.parse_gathered(which);
        }
    }

    fn parse_gathered(&mut self, which: usize) {
        let Some(gathered) = self.gathered.get_mut(which) else { return };
        gathered.bytes = 0;
        let (language, files) = (gathered.language, std::mem::take(&mut gathered.files));
        if files.is_empty() {
            return;
        }
        let borrowed: Vec<(&[u8], &[u8])> = files.iter().map(|(p, c)| (p.as_slice(), c.as_slice())).collect();
        let answers = language.parse(&borrowed);
        for ((path, content), parsed) in files.iter().zip(answers) {
            self.parsed(path, content, parsed);
        }
    }

    fn parsed(&mut self, path: &[u8], bytes: &[u8], parsed: Parsed) {
        match parsed {
            Parsed::Good => self.report.checked += 1,
            Parsed::Bad(remark) => {
                self.report.checked += 1;
                self.report.findings.push(remark.of(path, bytes));
            }
            Parsed::Unchecked(why) => self.unchecked(path, "syntax", why),
        }
    }

    fn unchecked(&mut self, path: &[u8], what: &str, why: String) {
        self.report.unchecked.push(Unchecked {
            path: Some(escape(path)),
            what: what.to_owned(),
            why: escape(why.as_bytes()),
        });
    }

    /// Something that concerns no single file could not be checked.
    pub fn could_not(&mut self, what: &str, why: &str) {
        self.report.could_not(what, why);
    }

    /// Ends: what was gathered is parsed.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.parse_gathered(0);
        self.parse_gathered(1);
        self.finish_values();
        self.report.sort();
        self.report
    }
}

/// Helm, Jinja and Go templates.
fn is_template(content: &[u8]) -> bool {
    content.windows(2).any(|w| w == b"{{" || w == b"{%")
        && content
            .split(|&b| b == b'\n')
            .any(|l| l.trim_ascii_start().starts_with(b"{{") || l.trim_ascii_start().starts_with(b"{%"))
}
