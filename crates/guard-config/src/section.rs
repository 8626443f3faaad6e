//! Reads the tables of one TOML file key by key, remembering where each value
//! stands and which keys were asked for, so that what nobody asked for is an
//! unknown key. A wrong value is reported and read as absent: the configuration
//! is refused in any case, and reading on finds the other mistakes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::duration;
use crate::problem::{Problem, quoted};
use crate::suggest;

/// A key of the configuration file. The reference in `docs/configuration.md`
/// is tested against these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The type in words: `path`, `choice`, `duration`, `number`, `list of text`, `table`.
    pub(crate) kind: &'static str,
    /// As TOML; `required`, or `none` where absence has a meaning of its own.
    #[cfg_attr(not(test), expect(dead_code, reason = "the reference in docs is tested against it"))]
    pub(crate) default: &'static str,
    /// A value as TOML, for messages that say what to write.
    pub(crate) example: &'static str,
}

/// Where a value stands.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) file: Rc<Path>,
    pub(crate) line: Option<u32>,
    pub(crate) key: String,
}

impl Place {
    pub(crate) fn problem(&self, what: impl Into<String>, fix: impl Into<String>) -> Problem {
        Problem {
            file: PathBuf::from(&*self.file),
            line: self.line,
            key: self.key.clone(),
            what: what.into(),
            fix: fix.into(),
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// What reading finds out besides the values.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: RefCell<Vec<Problem>>,
    /// Unknown keys: where, and the section's pattern (`environments.NAME`).
    unknown: RefCell<Vec<Unknown>>,
    /// Every key that was asked for, by its pattern (`environments.NAME.root`).
    asked: RefCell<BTreeMap<String, Key>>,
}

#[derive(Debug)]
struct Unknown {
    place: Place,
    name: String,
    section: String,
}

impl Report {
    pub(crate) fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(crate) fn asked(&self) -> BTreeMap<String, Key> {
        self.asked.borrow().clone()
    }

    /// All problems; unknown keys are explained by the keys known anywhere.
    pub(crate) fn finish(self, known: impl FnOnce() -> BTreeMap<String, Key>) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        let unknown = self.unknown.into_inner();
        if !unknown.is_empty() {
            let known = known();
            for u in unknown {
                let fix = suggest::for_key(&u.section, &u.name, &known);
                problems.push(u.place.problem(format!("unknown key {}", quoted(&u.name)), fix));
            }
        }
        problems
    }
}

/// A file by its name and the positions of its lines.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) file: Rc<Path>,
    /// Where each line but the first begins.
    lines: Vec<usize>,
}

impl Source {
    pub(crate) fn new(file: &Path, text: &str) -> Self {
        let lines = text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(at, _)| at + 1).collect();
        Self { file: Rc::from(file), lines }
    }

    /// The line of a position, counted from 1.
    pub(crate) fn line(&self, span: &Range<usize>) -> u32 {
        let before = self.lines.partition_point(|&begins| begins <= span.start);
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// A table being read.
pub(crate) struct Section<'a> {
    source: &'a Source,
    report: &'a Report,
    /// `None` where the table is not there: every key is then absent.
    table: Option<&'a DeTable<'a>>,
    /// As the user wrote it (`environments.production`), for messages.
    path: String,
    /// As the reference calls it (`environments.NAME`).
    pattern: String,
    line: Option<u32>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(crate) fn root(source: &'a Source, report: &'a Report, table: &'a DeTable<'a>) -> Self {
        Self {
            source,
            report,
            table: Some(table),
            path: String::new(),
            pattern: String::new(),
            line: None,
            asked: RefCell::default(),
        }
    }

    /// Where the section begins.
    pub(crate) fn place(&self) -> Place {
        Place { file: self.source.file.clone(), line: self.line, key: self.path.clone() }
    }

    /// Where a key of it would stand.
    pub(crate) fn place_of(&self, name: &str) -> Place {
        Place { key: dotted(&self.path, name), ..self.place() }
    }

    pub(crate) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Is the key written, whatever its value?
    pub(crate) fn has(&self, key: Key) -> bool {
        self.table.is_some_and(|t| t.contains_key(key.name))
    }

    pub(crate) fn report(&self) -> &'a Report {
        self.report
    }

    /// The table `key`, or one in which every key is absent.
    pub(crate) fn table(&self, key: Key) -> Section<'a> {
        let found = self.get(key);
        let line = found.map(|(name, _)| self.source.line(&name.span()));
        let table = found.and_then(|(name, value)| match value.get_ref() {
            DeValue::Table(t) => Some(t),
            other => self.wrong_type(key, name.span(), other, "a table"),
        });
        Section {
            source: self.source,
            report: self.report,
            table,
            path: dotted(&self.path, key.name),
            pattern: dotted(&self.pattern, key.name),
            line: line.or(self.line),
            asked: RefCell::default(),
        }
    }

    /// The tables in this one, whose names are the user's to choose.
    pub(crate) fn named_tables(&self, wildcard: &'static str) -> Vec<(String, Section<'a>)> {
        let mut out = Vec::new();
        for (name, value) in self.table.into_iter().flatten() {
            let text = name.get_ref().as_ref();
            let path = dotted(&self.path, text);
            let line = Some(self.source.line(&name.span()));
            let DeValue::Table(table) = value.get_ref() else {
                let place = Place { file: self.source.file.clone(), line, key: path };
                let what = format!("{} is {}, not a table", quoted(text), type_name(value.get_ref()));
                self.report.push(place.problem(what, format!("begin a table with `[{}.NAME]`", self.path)));
                continue;
            };
            let section = Section {
                source: self.source,
                report: self.report,
                table: Some(table),
                path,
                pattern: dotted(&self.pattern, wildcard),
                line,
                asked: RefCell::default(),
            };
            out.push((text.to_owned(), section));
        }
        out
    }

    /// The lists in this table, whose names are the user's to choose; `kind` describes each.
    pub(crate) fn named_texts(&self, kind: Key) -> Vec<(String, Vec<At<String>>)> {
        self.report.asked.borrow_mut().insert(dotted(&self.pattern, kind.name), kind);
        let mut out = Vec::new();
        for (name, value) in self.table.into_iter().flatten() {
            let key = name.get_ref().as_ref();
            let at = |span: Range<usize>| Place {
                file: self.source.file.clone(),
                line: Some(self.source.line(&span)),
                key: dotted(&self.path, key),
            };
            let texts: Option<Vec<At<String>>> = match value.get_ref() {
                DeValue::Array(list) => list
                    .iter()
                    .map(|item| match item.get_ref() {
                        DeValue::String(s) => {
                            Some(At { value: s.clone().into_owned(), place: at(item.span()) })
                        }
                        _ => None,
                    })
                    .collect(),
                _ => None,
            };
            match texts {
                Some(texts) => out.push((key.to_owned(), texts)),
                None => {
                    let fix = format!("write it like `{} = {}`", toml_text(key), kind.example);
                    self.report.push(at(name.span()).problem("this is not a list of text", fix));
                }
            }
        }
        out
    }

    /// What `read` makes of each table in the list `key`. Where there is none `read` sees a table in which every key is
    /// absent, and what it makes of that is dropped: so that every key is asked for.
    pub(crate) fn tables<T>(&self, key: Key, read: impl Fn(Section<'a>) -> T) -> Vec<T> {
        let section = |table, line, index: Option<usize>| Section {
            source: self.source,
            report: self.report,
            table,
            path: format!(
                "{}{}",
                dotted(&self.path, key.name),
                index.map(|i| format!("[{i}]")).unwrap_or_default()
            ),
            pattern: dotted(&self.pattern, key.name),
            line,
            asked: RefCell::default(),
        };
        read(section(None, self.line, None));
        let Some((name, value)) = self.get(key) else { return Vec::new() };
        let DeValue::Array(list) = value.get_ref() else {
            self.wrong_type::<()>(key, name.span(), value.get_ref(), "a list of tables");
            return Vec::new();
        };
        let mut out = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            let line = Some(self.source.line(&item.span()));
            match item.get_ref() {
                DeValue::Table(table) => out.push(read(section(Some(table), line, Some(index)))),
                other => {
                    let place = section(None, line, Some(index)).place();
                    let what = format!("this is {}, not a table", type_name(other));
                    self.report.push(place.problem(what, written(key)));
                }
            }
        }
        out
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: Key) -> Option<bool> {
        let (name, value) = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(b) => Some(*b),
            other => self.wrong_type(key, name.span(), other, "true or false"),
        }
    }

    /// The texts in this table, whose names are the user's to choose; `kind` describes each.
    pub(crate) fn named_text(&self, kind: Key) -> Vec<(String, At<String>)> {
        self.report.asked.borrow_mut().insert(dotted(&self.pattern, kind.name), kind);
        let mut out = Vec::new();
        for (name, value) in self.table.into_iter().flatten() {
            let key = name.get_ref().as_ref();
            let line = Some(self.source.line(&value.span()));
            let place = Place { file: self.source.file.clone(), line, key: dotted(&self.path, key) };
            match value.get_ref() {
                DeValue::String(s) => out.push((key.to_owned(), At { value: s.clone().into_owned(), place })),
                other => {
                    let what = format!("this is {}, not text in quotes", type_name(other));
                    let fix = format!("write it like `{} = {}`", toml_text(key), kind.example);
                    self.report.push(place.problem(what, fix));
                }
            }
        }
        out
    }

    /// Reports every key that was not asked for.
    pub(crate) fn finish(self) {
        let asked = self.asked.into_inner();
        for (name, _) in self.table.into_iter().flatten() {
            let text = name.get_ref().as_ref();
            if !asked.contains(&text) {
                self.report.unknown.borrow_mut().push(Unknown {
                    place: Place {
                        file: self.source.file.clone(),
                        line: Some(self.source.line(&name.span())),
                        key: dotted(&self.path, text),
                    },
                    name: text.to_owned(),
                    section: self.pattern.clone(),
                });
            }
        }
    }

    pub(crate) fn text(&self, key: Key) -> Option<At<String>> {
        let (name, value) = self.get(key)?;
        match value.get_ref() {
            DeValue::String(s) => Some(self.at(key, value.span(), s.clone().into_owned())),
            other => self.wrong_type(key, name.span(), other, "text in quotes"),
        }
    }

    pub(crate) fn texts(&self, key: Key) -> Option<Vec<At<String>>> {
        let (name, value) = self.get(key)?;
        let list = match value.get_ref() {
            DeValue::Array(list) => list,
            DeValue::String(s) => {
                let place = self.at(key, name.span(), ()).place;
                let fix = format!("write `{} = [{}]`", key.name, toml_text(s));
                self.report.push(place.problem("this is text, not a list", fix));
                return None;
            }
            other => return self.wrong_type(key, name.span(), other, "a list of text"),
        };
        let mut out = Vec::with_capacity(list.len());
        for (i, item) in list.iter().enumerate() {
            let mut at = self.at(key, item.span(), ());
            at.place.key = format!("{}[{i}]", at.place.key);
            match item.get_ref() {
                DeValue::String(s) => {
                    out.push(At { value: s.clone().into_owned(), place: at.place });
                }
                other => {
                    let what = format!("this is {}, not text in quotes", type_name(other));
                    self.report.push(at.place.problem(what, written(key)));
                }
            }
        }
        Some(out)
    }

    pub(crate) fn number(&self, key: Key, allowed: std::ops::RangeInclusive<u32>) -> Option<At<u32>> {
        let (name, value) = self.get(key)?;
        let DeValue::Integer(n) = value.get_ref() else {
            return self.wrong_type(key, name.span(), value.get_ref(), "a whole number");
        };
        let at = self.at(key, value.span(), ());
        match i64::from_str_radix(n.as_str(), n.radix()).ok().and_then(|n| u32::try_from(n).ok()) {
            Some(n) if allowed.contains(&n) => Some(At { value: n, place: at.place }),
            _ => {
                let fix = match *allowed.end() {
                    u32::MAX => written(key),
                    end => format!("write a number from {} to {end}", allowed.start()),
                };
                self.report.push(at.place.problem(format!("{} is out of range", quoted(n.as_str())), fix));
                None
            }
        }
    }

    pub(crate) fn duration(
        &self,
        key: Key,
        allowed: std::ops::RangeInclusive<Duration>,
    ) -> Option<At<Duration>> {
        let (name, value) = self.get(key)?;
        let text = match value.get_ref() {
            DeValue::String(s) => s,
            DeValue::Integer(n) => {
                let place = self.at(key, name.span(), ()).place;
                let fix = format!("write a unit too, as in `{} = \"{}s\"`", key.name, n.as_str());
                self.report.push(place.problem("this is a number, and a duration has a unit", fix));
                return None;
            }
            other => return self.wrong_type(key, name.span(), other, "a duration in quotes"),
        };
        let at = self.at(key, value.span(), ());
        match duration::parse(text, &allowed) {
            Ok(d) => Some(At { value: d, place: at.place }),
            Err(bad) => {
                self.report.push(at.place.problem(format!("{} {}", quoted(text), bad.what), bad.fix));
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Clone>(&self, key: Key, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(value.clone());
        }
        let words: Vec<&str> = choices.iter().map(|(w, _)| *w).collect();
        let what = format!("{} is not known here", quoted(&text.value));
        self.report.push(text.place.problem(what, suggest::for_value(&text.value, &words)));
        None
    }

    fn get(&self, key: Key) -> Option<(&'a Spanned<toml::de::DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        self.asked.borrow_mut().push(key.name);
        self.report.asked.borrow_mut().insert(dotted(&self.pattern, key.name), key);
        self.table?.iter().find(|(name, _)| name.get_ref() == key.name)
    }

    fn at<T>(&self, key: Key, span: Range<usize>, value: T) -> At<T> {
        let line = Some(self.source.line(&span));
        At { value, place: Place { file: self.source.file.clone(), line, key: dotted(&self.path, key.name) } }
    }

    fn wrong_type<T>(&self, key: Key, span: Range<usize>, found: &DeValue<'_>, wanted: &str) -> Option<T> {
        let what = format!("this is {}, not {wanted}", type_name(found));
        self.report.push(self.at(key, span, ()).place.problem(what, written(key)));
        None
    }
}

fn written(key: Key) -> String {
    if key.kind == "table" {
        format!("write {}", key.example)
    } else {
        format!("write it like `{} = {}`", key.name, key.example)
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A text as TOML writes it.
pub(crate) fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// `path.name`, the name in quotes where TOML would need them.
fn dotted(path: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let name =
        if bare { name.to_owned() } else { format!("\"{}\"", guard_model::path::escape(name.as_bytes())) };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}
