//! Private keys and the token formats of well-known services: a prefix that
//! nobody writes by chance, then so many characters of an alphabet.

/// A token in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) rule: &'static str,
    pub(super) what: &'static str,
    pub(super) at: usize,
    pub(super) text: &'a [u8],
}

#[derive(Clone, Copy)]
enum Alphabet {
    Upper,
    Alnum,
    Word,
    Hex,
    Base64,
    Dotted,
}

impl Alphabet {
    fn has(self, b: u8) -> bool {
        match self {
            Self::Upper => b.is_ascii_uppercase() || b.is_ascii_digit(),
            Self::Alnum => b.is_ascii_alphanumeric(),
            Self::Word => b.is_ascii_alphanumeric() || b == b'_' || b == b'-',
            Self::Hex => b.is_ascii_hexdigit(),
            Self::Base64 => b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='),
            Self::Dotted => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'),
        }
    }
}

/// Prefix, alphabet of the rest, its least length, what it is.
const FORMATS: [(&str, Alphabet, usize, &str); 43] = [
    ("AKIA", Alphabet::Upper, 16, "an AWS access key id"),
    ("ASIA", Alphabet::Upper, 16, "an AWS session key id"),
    ("ghp_", Alphabet::Alnum, 36, "a GitHub token"),
    ("gho_", Alphabet::Alnum, 36, "a GitHub token"),
    ("ghu_", Alphabet::Alnum, 36, "a GitHub token"),
    ("ghs_", Alphabet::Alnum, 36, "a GitHub token"),
    ("ghr_", Alphabet::Alnum, 36, "a GitHub token"),
    ("github_pat_", Alphabet::Word, 60, "a GitHub token"),
    ("glpat-", Alphabet::Word, 20, "a GitLab token"),
    ("gldt-", Alphabet::Word, 20, "a GitLab deploy token"),
    ("glrt-", Alphabet::Word, 20, "a GitLab runner token"),
    ("xoxb-", Alphabet::Word, 20, "a Slack token"),
    ("xoxp-", Alphabet::Word, 20, "a Slack token"),
    ("xoxa-", Alphabet::Word, 20, "a Slack token"),
    ("xoxr-", Alphabet::Word, 20, "a Slack token"),
    ("xoxs-", Alphabet::Word, 20, "a Slack token"),
    ("xapp-", Alphabet::Word, 30, "a Slack token"),
    ("hooks.slack.com/services/", Alphabet::Base64, 30, "the address of a Slack webhook"),
    ("sk_live_", Alphabet::Alnum, 20, "a Stripe key"),
    ("rk_live_", Alphabet::Alnum, 20, "a Stripe key"),
    ("whsec_", Alphabet::Base64, 24, "a webhook's signing secret"),
    ("AIza", Alphabet::Word, 35, "a Google API key"),
    ("GOCSPX-", Alphabet::Word, 28, "a Google client secret"),
    ("ya29.", Alphabet::Word, 30, "a Google access token"),
    ("SG.", Alphabet::Dotted, 60, "a SendGrid key"),
    ("npm_", Alphabet::Alnum, 36, "an npm token"),
    ("pypi-AgE", Alphabet::Word, 50, "a PyPI token"),
    ("sk-proj-", Alphabet::Word, 40, "an OpenAI key"),
    ("sk-ant-", Alphabet::Word, 40, "an Anthropic key"),
    ("hf_", Alphabet::Alnum, 34, "a Hugging Face token"),
    ("dop_v1_", Alphabet::Hex, 64, "a DigitalOcean token"),
    ("doo_v1_", Alphabet::Hex, 64, "a DigitalOcean token"),
    ("hvs.", Alphabet::Word, 24, "a Vault token"),
    ("AccountKey=", Alphabet::Base64, 80, "an Azure storage key"),
    ("dckr_pat_", Alphabet::Word, 27, "a Docker Hub token"),
    ("shpat_", Alphabet::Hex, 32, "a Shopify token"),
    ("shpss_", Alphabet::Hex, 32, "a Shopify secret"),
    ("sntrys_", Alphabet::Base64, 40, "a Sentry token"),
    ("lin_api_", Alphabet::Alnum, 40, "a Linear key"),
    ("glsa_", Alphabet::Word, 32, "a Grafana token"),
    ("glc_", Alphabet::Base64, 40, "a Grafana token"),
    ("dapi", Alphabet::Hex, 32, "a Databricks token"),
    ("AGE-SECRET-KEY-1", Alphabet::Upper, 50, "an age private key"),
];

/// Every token of a line.
pub(super) fn find(line: &[u8]) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for at in 0..line.len() {
        // A token begins where no word goes on; and one comparison rules most places out.
        let before = at.checked_sub(1).and_then(|i| line.get(i));
        if before.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            continue;
        }
        let rest = line.get(at..).unwrap_or_default();
        if rest.first() == Some(&b'-') {
            found.extend(private_key(rest, at));
            continue;
        }
        found.extend(token_at(rest, at));
    }
    found
}

fn token_at(rest: &[u8], at: usize) -> Option<Token<'_>> {
    let first = *rest.first()?;
    for (prefix, alphabet, least, what) in FORMATS {
        if prefix.as_bytes().first() != Some(&first) {
            continue;
        }
        let Some(tail) = rest.strip_prefix(prefix.as_bytes()) else { continue };
        let length = tail.iter().take_while(|&&b| alphabet.has(b)).count();
        let text = rest.get(..prefix.len() + length).unwrap_or_default();
        let body = tail.get(..length).unwrap_or_default();
        if length >= least && !is_placeholder(body) {
            return Some(Token { rule: "token", what, at, text });
        }
    }
    None
}

/// `-----BEGIN … PRIVATE KEY-----`
fn private_key(rest: &[u8], at: usize) -> Option<Token<'_>> {
    let tail = rest.strip_prefix(b"-----BEGIN ")?;
    let kind =
        tail.iter().take_while(|&&b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ').count();
    let ends = tail.get(kind..)?.starts_with(b"-----");
    let name = tail.get(..kind)?;
    let is_key = name.ends_with(b"PRIVATE KEY") || name.ends_with(b"PRIVATE KEY BLOCK");
    (ends && is_key).then(|| Token {
        rule: "private-key",
        what: "the beginning of a private key",
        at,
        text: rest.get(..11 + kind + 5).unwrap_or(rest),
    })
}

/// `xxxxxxxx`, `EXAMPLE`: what documentation writes.
fn is_placeholder(body: &[u8]) -> bool {
    let different: std::collections::HashSet<u8> = body.iter().copied().collect();
    different.len() < 5 || body.windows(7).any(|w| w.eq_ignore_ascii_case(b"example"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_found() {
        let body = "A1b2C3d4E5f6".repeat(8);
        for (prefix, alphabet, least, what) in FORMATS {
            let body: String = match alphabet {
                Alphabet::Upper => body.to_uppercase(),
                Alphabet::Hex => body.to_lowercase().replace(['g', 'h'], "a"),
                _ => body.clone(),
            };
            let line = format!("x = \"{prefix}{}\"", &body[..least]);
            let found = find(line.as_bytes());
            assert!(found.len() == 1 && found[0].what == what, "{line}: {found:?}");
            let short = format!("x = \"{prefix}{}\"", &body[..least - 1]);
            assert_eq!(find(short.as_bytes()), [], "{short}");
        }
    }

    #[test]
    fn private_keys() {
        for kind in ["RSA ", "", "OPENSSH ", "EC ", "ENCRYPTED "] {
            let line = format!("-----BEGIN {kind}{}-----", "PRIVATE KEY");
            assert_eq!(find(line.as_bytes()).first().map(|t| t.rule), Some("private-key"), "{line}");
        }
        assert_eq!(find(b"-----BEGIN PUBLIC KEY-----"), []);
        assert_eq!(find(b"-----BEGIN CERTIFICATE-----"), []);
    }

    #[test]
    fn what_documentation_writes_is_none() {
        for line in
            ["AKIAIOSFODNN7EXAMPLE", "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "myAKIAABCDEFGHIJKLMNOP"]
        {
            assert_eq!(find(line.as_bytes()), [], "{line}");
        }
    }
}
