//! The target of a request (RFC 9112 §3.2).

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, InvalidUri, PathAndQuery};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// In origin-form, as nearly all are over HTTP/1.1.
    Path(PathAndQuery),
    /// In any other, or in the parts that HTTP/2 sends.
    Uri(Uri),
}

impl Target {
    /// What an HTTP/1.1 request line has written.
    pub fn read(written: Bytes) -> Result<Self, InvalidUri> {
        if written.first() == Some(&b'/') {
            return PathAndQuery::from_maybe_shared(written).map(Target::Path);
        }
        Uri::from_maybe_shared(written).map(Target::Uri)
    }

    pub fn path(&self) -> &str {
        match self {
            Target::Path(path) => path.path(),
            Target::Uri(uri) => uri.path(),
        }
    }

    pub fn query(&self) -> Option<&str> {
        match self {
            Target::Path(path) => path.query(),
            Target::Uri(uri) => uri.query(),
        }
    }

    pub fn scheme(&self) -> Option<&str> {
        match self {
            Target::Path(_) => None,
            Target::Uri(uri) => uri.scheme_str(),
        }
    }

    pub fn authority(&self) -> Option<&Authority> {
        match self {
            Target::Path(_) => None,
            Target::Uri(uri) => uri.authority(),
        }
    }

    /// The path and query as they were written, where they were: `http://host?q` has no path to write, and yet a
    /// path, the slash.
    pub fn into_path(self) -> Option<PathAndQuery> {
        let written = match self {
            Target::Path(path) => Some(path),
            Target::Uri(uri) => uri.into_parts().path_and_query,
        };
        written.filter(|written| written.as_str().starts_with('/'))
    }
}

impl From<Uri> for Target {
    fn from(uri: Uri) -> Self {
        Target::Uri(uri)
    }
}

/// Of text that the gateway has made, which has to begin with a slash.
pub fn path_of(text: String) -> Option<PathAndQuery> {
    PathAndQuery::from_maybe_shared(Bytes::from(text)).ok().filter(|path| path.as_str().starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &'static str) -> Option<Target> {
        Target::read(Bytes::from_static(written.as_bytes())).ok()
    }

    #[test]
    fn each_form_has_its_parts() {
        let parts = |written| {
            let target = read(written).expect(written);
            let authority = target.authority().map(ToString::to_string);
            let shown = (target.path().to_owned(), target.query().map(str::to_owned), authority);
            (shown.0, shown.1, shown.2, target.into_path().map(|path| path.to_string()))
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(parts("/a/b?c=d"), ("/a/b".into(), text("c=d"), None, text("/a/b?c=d")));
        assert_eq!(parts("//a/b"), ("//a/b".into(), None, None, text("//a/b")));
        assert_eq!(parts("http://h:1/a?b"), ("/a".into(), text("b"), text("h:1"), text("/a?b")));
        assert_eq!(parts("http://h?q"), ("/".into(), text("q"), text("h"), None));
        assert_eq!(parts("*"), ("*".into(), None, None, None));
        assert_eq!(read("http://h/").and_then(|target| target.scheme().map(str::to_owned)), text("http"));
        for bad in ["", "/a b", "/a\"<>", "http://"] {
            let ours = read(bad).map(|target| target.path().to_owned());
            let theirs = bad.parse::<Uri>().ok().map(|uri| uri.path().to_owned());
            assert_eq!(ours, theirs, "{bad:?}");
        }
        assert_eq!(path_of("a".into()), None);
        assert_eq!(path_of("/a b".into()), None);
        assert_eq!(path_of("/a?b".into()).map(|path| path.to_string()), text("/a?b"));
    }
}
