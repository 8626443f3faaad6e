use super::*;

/// What the readers make of `V`: compose, python-dotenv, docker run, shell, systemd; `None` is unset, `Some("?")` unclear,
/// `Some("!")` a file that is refused.
type Row = (&'static str, [Option<&'static str>; 5]);

/// As measured with docker compose v5, python-dotenv 1.2.4, docker 20.10, bash 5 and systemd 252.
const ROWS: [Row; 26] = [
    ("V=a", [Some("a"), Some("a"), Some("a"), Some("a"), Some("a")]),
    ("V=", [Some(""), Some(""), Some(""), Some(""), Some("")]),
    ("V=\"a b\"", [Some("a b"), Some("a b"), Some("\"a b\""), Some("a b"), Some("a b")]),
    ("V='a$X'", [Some("a$X"), Some("a$X"), Some("'a$X'"), Some("a$X"), Some("a$X")]),
    ("V=a b", [Some("a b"), Some("a b"), Some("a b"), Some("?"), Some("a b")]),
    ("V=a #c", [Some("a"), Some("a"), Some("a #c"), Some("a"), Some("a #c")]),
    ("V=a\t#c", [Some("a\t#c"), Some("a"), Some("a\t#c"), Some("a"), Some("a\t#c")]),
    ("V=\"a\" # c", [Some("a"), Some("a"), Some("\"a\" # c"), Some("a"), Some("a# c")]),
    ("V=\"a\"b", [Some("a"), None, Some("\"a\"b"), Some("ab"), Some("ab")]),
    ("X=1\nV=a$X", [Some("a1"), Some("a$X"), Some("a$X"), Some("a1"), Some("a$X")]),
    ("V=a${X}b", [Some("?"), Some("?"), Some("a${X}b"), Some("?"), Some("a${X}b")]),
    ("V=a$$b", [Some("a$b"), Some("a$$b"), Some("a$$b"), Some("?"), Some("a$$b")]),
    ("V=\"a\\$b\"", [Some("a$b"), Some("a\\$b"), Some("\"a\\$b\""), Some("a$b"), Some("a$b")]),
    ("V=$(id)", [Some("?"), Some("$(id)"), Some("$(id)"), Some("?"), Some("$(id)")]),
    ("V=\"a\\nb\"", [Some("a\nb"), Some("a\nb"), Some("\"a\\nb\""), Some("a\\nb"), Some("a\\nb")]),
    ("V='a\\'b'", [Some("a'b"), Some("a'b"), Some("'a\\'b'"), Some("?"), Some("a\\b'")]),
    ("V='a\nb'", [Some("a\nb"), Some("a\nb"), Some("'a"), Some("a\nb"), Some("a\nb")]),
    ("V=a\\\nb", [Some("a\\"), Some("a\\"), Some("a\\"), Some("ab"), Some("ab")]),
    ("export V=a", [Some("a"), Some("a"), Some("!"), Some("a"), None]),
    ("V = a", [Some("a"), Some("a"), Some("!"), None, Some("a")]),
    ("V: a", [Some("a"), None, Some("!"), None, None]),
    ("V", [Some("?"), None, Some("?"), None, None]),
    (";c\nV=a", [Some("!"), Some("a"), Some("a"), None, Some("a")]),
    ("V=a\r", [Some("a"), Some("a"), Some("a"), Some("a\r"), Some("a")]),
    ("V=a  ", [Some("a"), Some("a"), Some("a  "), Some("a"), Some("a")]),
    ("V=1\nV=2", [Some("2"), Some("2"), Some("2"), Some("2"), Some("2")]),
];

fn told(text: &str, dialect: Dialect) -> Option<String> {
    match read(text.as_bytes(), dialect) {
        Err(_) => Some("!".to_owned()),
        Ok(found) => found.get("V").map(|said| match said {
            Said::Value(v) => v.clone(),
            Said::Unclear(_) => "?".to_owned(),
        }),
    }
}

#[test]
fn each_family_reads_as_it_was_measured() {
    let mut wrong = Vec::new();
    for (text, expected) in ROWS {
        // A file ends in a newline.
        let text = format!("{text}\n");
        for (dialect, expected) in Dialect::ALL.into_iter().zip(expected) {
            let found = told(&text, dialect);
            if found.as_deref() != expected {
                wrong.push(format!("{dialect} {text:?}: {found:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_key_that_compose_cuts_in_silence() {
    let text = b"V=django-insecure-)k#0&$x!(@z\n";
    let value = |dialect| read(text, dialect).unwrap().get("V").cloned();
    let whole = Some(Said::Value("django-insecure-)k#0&$x!(@z".to_owned()));
    assert_eq!(value(Dialect::PythonDotenv), whole);
    assert_eq!(value(Dialect::Systemd), whole);
    assert_ne!(value(Dialect::Compose), whole);
    assert_ne!(value(Dialect::Shell), whole);
}

#[test]
fn marks_and_odd_bytes() {
    let marked = "\u{feff}V=a\nW=b\n".as_bytes();
    for dialect in [Dialect::Compose, Dialect::PythonDotenv, Dialect::DockerRun] {
        assert!(read(marked, dialect).unwrap().contains_key("V"), "{dialect}");
    }
    for dialect in [Dialect::Shell, Dialect::Systemd] {
        let found = read(marked, dialect).unwrap();
        assert!(!found.contains_key("V") && found.contains_key("W"), "{dialect}");
    }
    assert_eq!(read(b"A=1\nB=\xff\n", Dialect::Systemd).unwrap_err().line, 2);
    assert!(matches!(read(b"B=\xff\n", Dialect::Compose).unwrap().get("B"), Some(Said::Unclear(_))));
}

#[test]
fn a_value_is_in_no_debug_output() {
    assert!(!format!("{:?}", Said::Value("hunter2".to_owned())).contains("hunter2"));
}

proptest::proptest! {
    #[test]
    fn plain_values_are_read_alike(key in "[A-Z_][A-Z0-9_]{0,8}", value in "[A-Za-z0-9_.,:/@%+-]{1,30}") {
        let text = format!("{key}={value}\n");
        for dialect in Dialect::ALL {
            let found = read(text.as_bytes(), dialect).unwrap();
            proptest::prop_assert_eq!(found.get(&key), Some(&Said::Value(value.clone())));
        }
    }

    #[test]
    fn nothing_makes_a_reader_fall_over(content in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        for dialect in Dialect::ALL {
            drop(read(&content, dialect));
        }
    }

    #[test]
    fn odd_text_neither(content in "[A-Z=\"'\\\\ $#{};:\n\r\t-]{0,60}") {
        for dialect in Dialect::ALL {
            drop(read(content.as_bytes(), dialect));
        }
    }
}
