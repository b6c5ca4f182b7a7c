//! The web page: one document without external resources, put together from the files in `page`.

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::response::{self, ApiResponse, set_header};
use crate::planted::{Planted, planted};

/// A style sheet or script: its hash in the policy is of exactly this text.
macro_rules! joined {
    ($($file:literal),+ $(,)?) => {
        concat!($(include_str!(concat!("page/", $file))),+)
    };
}

const STYLE: &str = joined!("style.css");

/// One strict script. Those that run something at once come after what they use.
const SCRIPT: &str = joined!(
    "text.js",
    "json.js",
    "api.js",
    "dialogs.js",
    "address.js",
    "session.js",
    "namespaces.js",
    "keys.js",
    "search.js",
    "selection.js",
    "kinds.js",
    "value.js",
    "copy.js",
    "editor.js",
    "conflict.js",
    "export.js",
    "import.js",
    "statistics.js",
    "segments.js",
    "keyboard.js",
);

struct Page {
    document: Bytes,
    policy: Vec<u8>,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let (head, markup) = (joined!("head.html"), joined!("markup.html"));
    let document =
        format!("{head}<style>{STYLE}</style>\n</head>\n<body>\n{markup}<script>{SCRIPT}</script>\n</body>\n</html>\n");
    Page {
        document: document.into(),
        policy: policy().into_bytes(),
    }
});

/// Only this style sheet and this script may be used, and only content from this server shown; the
/// page must not be framed.
fn policy() -> String {
    let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)));
    let script = match planted(Planted::AnyScript) {
        true => "'unsafe-inline'".to_owned(),
        false => hash(SCRIPT),
    };
    format!(
        "default-src 'none'; style-src {}; script-src {script}; connect-src 'self'; img-src blob: data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
    )
}

pub(super) fn response() -> ApiResponse {
    let mut response = response::response(200, Some("text/html; charset=utf-8"), PAGE.document.clone());
    set_header(&mut response, "content-security-policy", &PAGE.policy);
    set_header(&mut response, "x-content-type-options", b"nosniff");
    set_header(&mut response, "referrer-policy", b"no-referrer");
    set_header(&mut response, "cache-control", b"no-cache");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> &'static str {
        std::str::from_utf8(&PAGE.document).unwrap()
    }

    /// What is between the only such tags of the document.
    fn element(name: &str) -> &'static str {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        assert_eq!(document().matches(&open).count(), 1, "{open}");
        assert_eq!(document().matches(&close).count(), 1, "{close}");
        let (_, rest) = document().split_once(&open).unwrap();
        rest.split_once(&close).unwrap().0
    }

    /// The tags of the markup.
    fn tags() -> Vec<&'static str> {
        let (before, rest) = document().split_once("<style>").unwrap();
        let (_, rest) = rest.split_once("</style>").unwrap();
        let (markup, _) = rest.split_once("<script>").unwrap();
        let tags = |text: &'static str| text.split('<').skip(1).map(|tag| tag.split('>').next().unwrap());
        tags(before).chain(tags(markup)).collect()
    }

    #[test]
    fn the_policy_has_the_hashes_of_what_is_served() {
        let served = response();
        let policy = served.headers()["content-security-policy"].to_str().unwrap();
        for (directive, name) in [("style-src", "style"), ("script-src", "script")] {
            let hash = BASE64_STANDARD.encode(Sha256::digest(element(name)));
            assert!(policy.contains(&format!("; {directive} 'sha256-{hash}';")), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
    }

    #[test]
    fn the_markup_has_nothing_that_the_policy_would_refuse() {
        let tags = tags();
        assert!(tags.len() > 100, "{}", tags.len());
        for tag in tags {
            // Words of a text in quotation marks have no equals sign.
            for (name, value) in tag.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
                let name = name.to_ascii_lowercase();
                assert!(!name.starts_with("on") && name != "style" && name != "src", "<{tag}>");
                assert!(!value.to_ascii_lowercase().contains("javascript:"), "<{tag}>");
            }
        }
        for loads in ["http://", "https://", "@import", "url("] {
            let text = document().replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(loads), "the page loads something: {loads}");
        }
    }

    #[test]
    fn the_script_is_strict_and_ends_where_it_should() {
        assert!(SCRIPT.starts_with("\"use strict\";\n"));
        assert!(!SCRIPT.contains("</script") && !SCRIPT.contains("<!--") && !STYLE.contains("</style"));
    }

    /// An element that a script looks up by its id is in the markup, once.
    #[test]
    fn the_markup_has_what_the_scripts_look_up() {
        for piece in SCRIPT.split("byId(\"").skip(1) {
            let (id, rest) = piece.split_once('"').unwrap();
            if rest.starts_with(')') {
                let attribute = format!("id=\"{id}\"");
                assert_eq!(joined!("markup.html").matches(&attribute).count(), 1, "{attribute}");
            }
        }
    }
}
