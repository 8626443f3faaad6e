//! nginx's configuration by its grammar alone: words, `;`, braces, quotes.
//!
//! `nginx -t` is not run on staged text: it loads modules, opens logs and
//! certificates, and asks for host names, all of which is more than parsing.

use super::finding::Remark;

const RULE: &str = "nginx";

/// Checks a whole file or one that is included: the first mistake.
pub(super) fn check(content: &[u8]) -> Vec<Remark> {
    first(content).err().into_iter().collect()
}

fn first(content: &[u8]) -> Result<(), Remark> {
    let mut open: Vec<u64> = Vec::new();
    let mut words: Option<u64> = None;
    let (mut line, mut at) = (1, 0);
    while let Some(&byte) = content.get(at) {
        match byte {
            b'\n' => line += 1,
            b'#' if words.is_none()
                || content.get(at.wrapping_sub(1)).is_some_and(u8::is_ascii_whitespace) =>
            {
                while content.get(at + 1).is_some_and(|&b| b != b'\n') {
                    at += 1;
                }
            }
            b'"' | b'\''
                if words.is_none()
                    || content.get(at.wrapping_sub(1)).is_some_and(u8::is_ascii_whitespace) =>
            {
                let begun = line;
                words = words.or(Some(line));
                loop {
                    at += 1;
                    match content.get(at) {
                        Some(b'\\') => at += 1,
                        Some(b'\n') => line += 1,
                        Some(&b) if b == byte => break,
                        Some(_) => {}
                        None => {
                            let what = "the quote that begins here is never closed";
                            return Err(Remark::error(RULE, begun, what)
                                .expected(format!("a closing {}", char::from(byte))));
                        }
                    }
                }
            }
            b'\\' => {
                at += 1;
                words = words.or(Some(line));
            }
            // `${name}` is a word.
            b'$' if content.get(at + 1) == Some(&b'{') => {
                words = words.or(Some(line));
                while content.get(at).is_some_and(|&b| b != b'}' && b != b'\n') {
                    at += 1;
                }
            }
            b';' if words.take().is_none() => {
                return Err(Remark::error(RULE, line, "`;` with nothing before it"));
            }
            b';' => {}
            b'{' => match words.take() {
                Some(begun) => open.push(begun),
                None => {
                    return Err(Remark::error(RULE, line, "`{` with nothing before it")
                        .expected("the name of a block"));
                }
            },
            b'}' => {
                if let Some(begun) = words {
                    return Err(Remark::error(RULE, begun, "the directive is not ended")
                        .expected("`;` before the closing brace"));
                }
                if open.pop().is_none() {
                    return Err(Remark::error(RULE, line, "`}` without a block that it could close"));
                }
            }
            b if b.is_ascii_whitespace() => {}
            _ => words = words.or(Some(line)),
        }
        at += 1;
    }
    if let Some(begun) = words {
        return Err(Remark::error(RULE, begun, "the file ends within a directive").expected("`;`"));
    }
    match open.pop() {
        Some(begun) => Err(Remark::error(RULE, begun, "the block is never closed").expected("`}`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let good = b"# c\nhttp {\n  log_format m '$a \"$b\"; }';\n  server { listen 80; location ~ \\.php$ { return 301 https://${host}$uri#x; } }\n}\n";
        assert_eq!(check(good), []);
        let rows: [(&str, u64); 7] = [
            ("http {\n server {\n }\n", 1),
            ("a b\n}\n", 1),
            ("a b;\n}\n", 2),
            ("server {\n listen 80\n}\n", 2),
            ("a 'b;\n", 1),
            ("a b;\n;", 2),
            ("listen 80", 1),
        ];
        for (text, line) in rows {
            assert_eq!(check(text.as_bytes()).first().and_then(|r| r.line), Some(line), "{text}");
        }
    }
}
