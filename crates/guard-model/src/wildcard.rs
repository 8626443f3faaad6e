//! The patterns of units and branches: `*` stands for any text, slashes among it, and nothing else for anything.

/// Does the text fit? Goes back to the last star only, so that it takes a time in proportion to the text in effect.
#[must_use]
pub fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if text.get(t) == Some(c) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    #[test]
    fn units_fit_whole_or_by_stars() {
        for (pattern, unit, fits) in [
            ("docker.service", "docker.service", true),
            ("docker.service", "docker.service2", false),
            ("docker.service", "x-docker.service", false),
            ("app@*.service", "app@1.service", true),
            ("app@*.service", "app@.service", true),
            ("app@*.service", "app@1.scope", false),
            ("a*a.service", "a.service", false),
            ("*.service", "x.service", true),
            ("a*b*c.scope", "a-b-b-c.scope", true),
            ("a*b*c.scope", "a-c.scope", false),
        ] {
            assert_eq!(super::fits(pattern.as_bytes(), unit.as_bytes()), fits, "{pattern} {unit}");
        }
    }
}
