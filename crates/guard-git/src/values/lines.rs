//! New lines of a commit on their way to whoever knows the values: gathered into
//! parts, sent, and every answer brought back to its file and line.

/// Bytes of lines in one question.
pub const PART: usize = 512 * 1024;
/// A longer line goes in pieces, which overlap by this much so that no value is cut.
const OVERLAP: usize = 1024;

/// Whoever knows the values: the daemon.
pub trait Compare {
    /// Which of these lines, separated by newlines, hold a value.
    ///
    /// # Errors
    /// Why it cannot be told, for people: nothing counts as compared then.
    fn compare(&mut self, lines: &[u8]) -> Result<Found, String>;
}

/// What was found in one part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of the lines.
    pub matches: Vec<Match>,
    /// Values that were looked for.
    pub values: u64,
    /// Values of keys that name a secret, too short or too ordinary to be looked for.
    pub left_out: u64,
    /// Sensitive files whose values could not be read, each with the reason.
    pub unread: Vec<String>,
}

/// A line that holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The line, from 1.
    pub line: u64,
    /// Where in it the value begins, bytes from 1.
    pub column: u64,
    /// The sensitive file, escaped.
    pub file: String,
    /// The key in it.
    pub key: String,
}

/// Where a line came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: Vec<u8>,
    pub(crate) line: u64,
    /// Bytes of the line before this piece of it.
    before: u64,
}

/// A comparison under way.
pub(crate) struct Comparison<'a> {
    with: &'a mut dyn Compare,
    part: Vec<u8>,
    places: Vec<Place>,
    /// Why it ended early.
    pub(crate) failed: Option<String>,
    /// What was found, and where.
    pub(crate) found: Vec<(Place, Match)>,
    /// Of the last answer.
    pub(crate) last: Found,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(with: &'a mut dyn Compare) -> Self {
        Self {
            with,
            part: Vec::new(),
            places: Vec::new(),
            failed: None,
            found: Vec::new(),
            last: Found::default(),
        }
    }

    /// Takes a new line of a file.
    pub(crate) fn line(&mut self, path: &[u8], number: u64, line: &[u8]) {
        let mut at = 0;
        while self.failed.is_none() {
            let rest = line.get(at..).unwrap_or_default();
            if rest.len() < super::SHORTEST {
                return;
            }
            let room = PART.saturating_sub(self.part.len() + 1);
            if rest.len() > room && room < PART / 2 {
                self.ask();
                continue;
            }
            let piece = rest.get(..room).unwrap_or(rest);
            self.part.extend_from_slice(piece);
            self.part.push(b'\n');
            self.places.push(Place { path: path.to_vec(), line: number, before: at as u64 });
            if piece.len() == rest.len() {
                return;
            }
            at += piece.len() - OVERLAP;
        }
    }

    /// Asks for what is left.
    pub(crate) fn finish(&mut self) {
        if self.failed.is_none() && !self.part.is_empty() {
            self.ask();
        }
    }

    fn ask(&mut self) {
        let (part, places) = (std::mem::take(&mut self.part), std::mem::take(&mut self.places));
        match self.with.compare(&part) {
            Ok(mut answer) => {
                for found in std::mem::take(&mut answer.matches) {
                    let place = usize::try_from(found.line).ok().and_then(|n| places.get(n.checked_sub(1)?));
                    let Some(place) = place else { continue };
                    let again = |(p, m): &(Place, Match)| {
                        (&p.path, p.line, &m.file, &m.key)
                            == (&place.path, place.line, &found.file, &found.key)
                    };
                    if !self.found.iter().any(again) {
                        let column = found.column + place.before;
                        self.found.push((place.clone(), Match { column, ..found }));
                    }
                }
                self.last = answer;
            }
            Err(why) => self.failed = Some(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the word `needle!!`.
    struct Needle {
        asked: usize,
        fails_after: usize,
    }

    impl Compare for Needle {
        fn compare(&mut self, lines: &[u8]) -> Result<Found, String> {
            assert!(lines.len() <= PART);
            self.asked += 1;
            if self.asked > self.fails_after {
                return Err("enough".to_owned());
            }
            let mut matches = Vec::new();
            for (line, number) in lines.split(|&b| b == b'\n').zip(1..) {
                if let Some(at) = line.windows(8).position(|w| w == b"needle!!") {
                    let (file, key) = ("f".to_owned(), "k".to_owned());
                    matches.push(Match { line: number, column: at as u64 + 1, file, key });
                }
            }
            Ok(Found { matches, ..Found::default() })
        }
    }

    #[test]
    fn every_answer_comes_back_to_its_line() {
        let mut needle = Needle { asked: 0, fails_after: 99 };
        let mut c = Comparison::new(&mut needle);
        for number in 1..=40_000 {
            let line = if number % 10_000 == 0 { "here: needle!!" } else { "some other line, long enough" };
            c.line(b"a", number, line.as_bytes());
        }
        c.line(b"b", 7, b"needle!!");
        c.line(b"b", 8, b"short");
        c.finish();
        let places: Vec<_> = c.found.iter().map(|(p, m)| (p.path.clone(), p.line, m.column)).collect();
        let a = |n| (b"a".to_vec(), n, 7);
        assert_eq!(places, [a(10_000), a(20_000), a(30_000), a(40_000), (b"b".to_vec(), 7, 1)]);
        assert!(needle.asked >= 3);
    }

    #[test]
    fn a_line_longer_than_a_part_is_not_cut_where_a_value_is() {
        for at in [0, PART - 12, PART - 4, PART + 5, 2 * PART - 2000, 3 * PART - 8] {
            let mut line = vec![b'x'; 3 * PART];
            line[at..at + 8].copy_from_slice(b"needle!!");
            let mut needle = Needle { asked: 0, fails_after: 99 };
            let mut c = Comparison::new(&mut needle);
            c.line(b"a", 3, &line);
            c.finish();
            assert_eq!(c.found.len(), 1, "{at}");
            assert_eq!((c.found[0].0.line, c.found[0].1.column), (3, at as u64 + 1));
        }
    }

    #[test]
    fn a_refusal_ends_it() {
        let mut needle = Needle { asked: 0, fails_after: 1 };
        let mut c = Comparison::new(&mut needle);
        for number in 0..200_000 {
            c.line(b"a", number, b"some other line, long enough");
        }
        c.finish();
        assert_eq!(c.failed.as_deref(), Some("enough"));
        assert_eq!(needle.asked, 2, "nobody is asked again");
    }
}
