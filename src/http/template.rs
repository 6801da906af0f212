//! Texts with `{name}` placeholders, compiled: the new path of `rewrite`, the path of an aggregate's
//! part, the target of a redirect. And `strip_prefix`, the other way to a new path.
//!
//! Whatever a client puts into a parameter, the outcome has the segments, query parameters and
//! fragment that the template has, and no others. Path parameters go in as they are, because a
//! normalised segment can't end itself; query parameters are encoded first.

use crate::config;

use super::host;
use super::path::{PathError, normalise};
use super::query::push_segment_as_value;

/// The most parameters that one route's path may have.
pub const MAX_PARAMETERS: usize = 16;

/// Where the parameters of a route stand in the path that it matched, in the order of the route's
/// own. Only meaningful beside that path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Start and end, in bytes.
    ranges: [(u32, u32); MAX_PARAMETERS],
    count: usize,
}

impl Params {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value of a parameter, as it stands in `path`: percent-encoded, never empty, without a slash.
    /// `slot` is the parameter's place among [`crate::route::parameter_names`].
    pub fn value<'p>(&self, path: &'p str, slot: usize) -> Option<&'p str> {
        let (start, end) = *self.ranges[..self.count].get(slot)?;
        path.get(start as usize..end as usize)
    }

    /// Adds the next parameter. More than [`MAX_PARAMETERS`] are not kept; routes can't have them.
    pub(crate) fn push(&mut self, start: usize, end: usize) {
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else { return };
        if let Some(range) = self.ranges.get_mut(self.count) {
            *range = (start, end);
            self.count += 1;
        }
    }
}

/// A template whose placeholders are resolved to the slots of a route's parameters.
#[derive(Clone, Debug)]
pub struct Template {
    pieces: Box<[Piece]>,
    literal_bytes: usize,
    has_query: bool,
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(Box<str>),
    /// The slot of a parameter that goes in as it is.
    Path(usize),
    /// The slot of a parameter behind the `?`.
    Query(usize),
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the route's path has no parameter {{{0}}}")]
    UnknownParameter(String),
    #[error("it must begin with one slash")]
    NotAPath,
    #[error("it must begin with one slash, http:// or https://")]
    NotALocation,
    #[error("the host is invalid")]
    Host(#[source] host::HostError),
    #[error("a parameter can't be part of the host")]
    ParameterInHost,
    #[error("a parameter can't follow a dot at the start of a segment")]
    ParameterAfterDot,
    #[error("a fragment never reaches a service")]
    Fragment,
    #[error("the path is invalid")]
    Path(#[source] PathError),
    #[error("the query has the byte {0:#04x}, which must be percent-encoded")]
    QueryByte(u8),
}

impl Template {
    /// A path, perhaps with a query, to send to an instance. `names` are those of the route's path.
    pub fn path(template: &config::Template, names: &[String]) -> Result<Self, TemplateError> {
        let shape = Shape::of(template);
        if shape.text.contains('#') {
            return Err(TemplateError::Fragment);
        }
        if !shape.is_rooted() {
            return Err(TemplateError::NotAPath);
        }
        shape.check_path_and_query(0)?;
        Self::compile(template, names)
    }

    /// The target of a redirect: a path of the same origin or an absolute URL, perhaps with a query and
    /// a fragment.
    pub fn location(template: &config::Template, names: &[String]) -> Result<Self, TemplateError> {
        let shape = Shape::of(template);
        let path_start = if shape.is_rooted() { 0 } else { shape.check_origin()? };
        shape.check_path_and_query(path_start)?;
        Self::compile(template, names)
    }

    fn compile(template: &config::Template, names: &[String]) -> Result<Self, TemplateError> {
        let slot = |name: &String| {
            let found = names.iter().position(|known| known == name);
            found.ok_or_else(|| TemplateError::UnknownParameter(name.clone()))
        };
        let mut behind_path = false;
        let mut pieces = Vec::with_capacity(template.0.len());
        for piece in &template.0 {
            pieces.push(match piece {
                config::TemplatePiece::Literal(text) => {
                    behind_path |= text.contains(['?', '#']);
                    Piece::Literal(text.as_str().into())
                }
                config::TemplatePiece::PathParameter(name) if !behind_path => Piece::Path(slot(name)?),
                config::TemplatePiece::PathParameter(name) | config::TemplatePiece::QueryParameter(name) => {
                    Piece::Query(slot(name)?)
                }
            });
        }
        let literals = || {
            pieces.iter().filter_map(|piece| if let Piece::Literal(text) = piece { Some(text) } else { None })
        };
        Ok(Template {
            literal_bytes: literals().map(|text| text.len()).sum(),
            has_query: literals().any(|text| text.contains('?')),
            pieces: pieces.into(),
        })
    }

    /// Whether a query follows the path, so that another one must be joined to it with `&`.
    pub fn has_query(&self) -> bool {
        self.has_query
    }

    /// The text for one request: `params` are what the route found in `path`.
    pub fn render(&self, path: &str, params: &Params) -> String {
        let mut out = String::with_capacity(self.literal_bytes + path.len());
        self.render_into(&mut out, path, params);
        out
    }

    /// Appends the text for one request.
    pub fn render_into(&self, out: &mut String, path: &str, params: &Params) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Path(slot) => out.push_str(params.value(path, *slot).unwrap_or_default()),
                Piece::Query(slot) => {
                    push_segment_as_value(out, params.value(path, *slot).unwrap_or_default())
                }
            }
        }
    }
}

/// A template with an `x` in place of every parameter, to check the whole as one text.
struct Shape {
    text: String,
    /// Where the parameters stand in `text`.
    parameters: Vec<usize>,
}

impl Shape {
    fn of(template: &config::Template) -> Self {
        let mut shape = Shape { text: String::new(), parameters: Vec::new() };
        for piece in &template.0 {
            if let config::TemplatePiece::Literal(text) = piece {
                shape.text.push_str(text);
            } else {
                shape.parameters.push(shape.text.len());
                shape.text.push('x');
            }
        }
        shape
    }

    /// Two slashes at the start would name a host (RFC 3986 §4.2).
    fn is_rooted(&self) -> bool {
        let parameter_first = self.parameters.first() == Some(&0);
        self.text.starts_with('/') && !self.text.starts_with("//") && !parameter_first
    }

    /// Checks the scheme and the host of an absolute URL. Returns where its path begins.
    fn check_origin(&self) -> Result<usize, TemplateError> {
        let scheme = ["https://", "http://"].into_iter().find(|scheme| self.text.starts_with(scheme));
        let start = scheme.ok_or(TemplateError::NotALocation)?.len();
        let end = self.text[start..].find(['/', '?', '#']).map_or(self.text.len(), |length| start + length);
        if self.parameters.first().is_some_and(|&at| at < end) {
            return Err(TemplateError::ParameterInHost);
        }
        host::parse(&self.text[start..end]).map_err(TemplateError::Host)?;
        Ok(end)
    }

    fn check_path_and_query(&self, start: usize) -> Result<(), TemplateError> {
        let rest = &self.text[start..];
        let path_end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (path, behind) = rest.split_at(path_end);
        if !path.is_empty() {
            normalise(path).map_err(TemplateError::Path)?;
        }
        let is_foreign =
            |byte: &u8| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'{' | b'}');
        if let Some(byte) = behind.bytes().find(is_foreign) {
            return Err(TemplateError::QueryByte(byte));
        }
        // `..{id}` would let a client write `..;x`, which a path of its own may not have.
        let follows_dots = |&at: &usize| matches!(self.text[..at].rsplit('/').next(), Some("." | ".."));
        let in_path = |at: &&usize| **at < start + path_end;
        match self.parameters.iter().filter(in_path).any(follows_dots) {
            true => Err(TemplateError::ParameterAfterDot),
            false => Ok(()),
        }
    }
}

/// Whole segments to be taken off the front of a path.
#[derive(Clone, Debug)]
pub struct StripPrefix {
    /// Normalised, without a trailing slash; empty when there is nothing to take off.
    prefix: Box<str>,
}

impl StripPrefix {
    pub fn compile(prefix: &str) -> Result<Self, PathError> {
        let normalised = normalise(prefix)?;
        Ok(StripPrefix { prefix: normalised.path.trim_end_matches('/').into() })
    }

    /// The rest of a normalised path: `/` when nothing is left, the path itself when the prefix is not
    /// its own.
    pub fn apply<'p>(&self, path: &'p str) -> &'p str {
        match path.strip_prefix(&*self.prefix) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use proptest::prelude::*;

    use super::*;

    /// `/a/{x}?b={y}` as `load` would split it.
    fn template(text: &str) -> config::Template {
        let mut pieces = Vec::new();
        let mut in_query = false;
        for part in text.split_inclusive('}') {
            let (literal, name) = part.split_once('{').unwrap_or((part, ""));
            in_query |= literal.contains('?');
            if !literal.is_empty() {
                pieces.push(config::TemplatePiece::Literal(literal.into()));
            }
            if let Some(name) = name.strip_suffix('}').map(String::from) {
                pieces.push(match in_query {
                    true => config::TemplatePiece::QueryParameter(name),
                    false => config::TemplatePiece::PathParameter(name),
                });
            }
        }
        config::Template(pieces)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    /// All segments of the path as parameters.
    fn params(path: &str) -> Params {
        let mut params = Params::default();
        let mut start = 1;
        for segment in path[1..].split('/') {
            params.push(start, start + segment.len());
            start += segment.len() + 1;
        }
        params
    }

    fn render(text: &str, path: &str) -> String {
        let names = names(&["x", "y"]);
        let compiled =
            Template::path(&template(text), &names).unwrap_or_else(|error| panic!("{text}: {error}"));
        compiled.render(path, &params(path))
    }

    #[test]
    fn parameters_go_where_their_names_stand() {
        assert_eq!(render("/api/orders?user_id={x}", "/7/z"), "/api/orders?user_id=7");
        assert_eq!(render("/{y}/{x}/{y}", "/1/2"), "/2/1/2");
        assert_eq!(render("/v1-{x}.json", "/a"), "/v1-a.json");
        assert_eq!(render("/plain", "/a"), "/plain");
    }

    #[test]
    fn a_query_parameter_is_encoded_and_a_path_parameter_is_not() {
        let path = "/a&b=c;d+e/caf%C3%A9%26%2Fx";
        assert_eq!(render("/{x}/{y}", path), path);
        assert_eq!(render("/?q={x}&r={y}", path), "/?q=a%26b%3Dc%3Bd%2Be&r=caf%C3%A9%26%2Fx");
    }

    #[test]
    fn behind_the_question_mark_every_parameter_is_encoded() {
        let literal = config::TemplatePiece::Literal("/a?b=".into());
        let mislabelled = config::Template(vec![literal, config::TemplatePiece::PathParameter("x".into())]);
        let compiled = Template::path(&mislabelled, &names(&["x"])).expect("a valid template");
        assert_eq!(compiled.render("/1&2", &params("/1&2")), "/a?b=1%262");
        let fragment = Template::location(&template("/a#{x}"), &names(&["x"])).expect("a valid template");
        assert_eq!(fragment.render("/1&2", &params("/1&2")), "/a#1%262");
    }

    #[test]
    fn a_location_may_be_absolute() {
        let compile = |text: &str| {
            Template::location(&template(text), &names(&["x"])).map(|t| t.render("/v", &params("/v")))
        };
        assert_eq!(
            compile("https://www.example.com/{x}#top").as_deref(),
            Ok("https://www.example.com/v#top")
        );
        assert_eq!(compile("http://a.example:8080").as_deref(), Ok("http://a.example:8080"));
        assert_eq!(compile("https://a.example?q={x}").as_deref(), Ok("https://a.example?q=v"));
        assert_eq!(compile("/{x}").as_deref(), Ok("/v"));
        for text in ["https://{x}.example/", "https://a.example{x}/", "https://a.example:{x}", "https://{x}"]
        {
            assert_eq!(compile(text), Err(TemplateError::ParameterInHost), "{text}");
        }
        for text in ["", "{x}", "//evil.example", "javascript:alert(1)", "ftp://a.example/", "a/b"] {
            assert_eq!(compile(text), Err(TemplateError::NotALocation), "{text}");
        }
        assert_eq!(compile("https://a@b/"), Err(TemplateError::Host(host::HostError::UserInformation)));
    }

    #[test]
    fn refuses_what_could_not_be_sent() {
        let compile = |text: &str| Template::path(&template(text), &names(&["x"])).map(|_| ());
        assert_eq!(compile("/{z}"), Err(TemplateError::UnknownParameter("z".into())));
        assert_eq!(compile("/a#b"), Err(TemplateError::Fragment));
        assert_eq!(compile("a"), Err(TemplateError::NotAPath));
        assert_eq!(compile("//a"), Err(TemplateError::NotAPath));
        assert_eq!(compile("{x}/a"), Err(TemplateError::NotAPath));
        assert_eq!(compile("/a b"), Err(TemplateError::Path(PathError::ForbiddenByte(b' '))));
        assert_eq!(compile("/a%2"), Err(TemplateError::Path(PathError::BrokenEscape)));
        assert_eq!(compile("/a?b c"), Err(TemplateError::QueryByte(b' ')));
        assert_eq!(compile("/a/..{x}"), Err(TemplateError::ParameterAfterDot));
        assert_eq!(compile("/a/b.{x}?c=..{x}"), Ok(()));
    }

    #[test]
    fn a_prefix_comes_off_in_whole_segments() {
        let table = [
            ("/gateway", "/gateway/api/users", "/api/users"),
            ("/gateway/", "/gateway/api/users", "/api/users"),
            ("/gateway", "/gateway", "/"),
            ("/gateway", "/gateway/", "/"),
            ("/gateway", "/gateways/1", "/gateways/1"),
            ("/gateway", "/other", "/other"),
            ("/", "/a/b", "/a/b"),
            ("/%7ea", "/~a/b", "/b"),
        ];
        for (prefix, path, expected) in table {
            let strip = StripPrefix::compile(prefix).expect("a valid prefix");
            assert_eq!(strip.apply(path), expected, "{prefix} {path}");
        }
        assert!(StripPrefix::compile("gateway").is_err());
    }

    #[test]
    fn a_parameter_too_many_is_left_out() {
        let path = format!("/{}", ["a"; MAX_PARAMETERS + 1].join("/"));
        let params = params(&path);
        assert_eq!((params.len(), params.value(&path, MAX_PARAMETERS)), (MAX_PARAMETERS, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn no_value_changes_the_shape(
            raw in prop::collection::vec("[a-b.;&=+#?/%@:!2-5CEFcef \\\\]{1,6}|\\PC{1,4}", 2)
        ) {
            let Ok(normalised) = normalise(&format!("/{}", raw.join("/"))).map(|n| n.path.into_owned()) else {
                return Ok(());
            };
            let params = params(&normalised);
            prop_assume!(params.len() == 2 && (0..2).all(|slot| params.value(&normalised, slot) != Some("")));
            let names = names(&["x", "y"]);
            let text = "/a/{x}/b-{y}?c={x}&d=1{y}2";
            let compiled = Template::path(&template(text), &names).expect("a valid template");
            let rendered = compiled.render(&normalised, &params);
            prop_assert!(!rendered.contains('#'), "{}", rendered);
            let uri: Uri = rendered.parse().expect("a rendered template is a valid target");
            prop_assert_eq!(uri.path().split('/').count(), 4);
            let again = normalise(uri.path()).expect("the rendered path is valid").path;
            prop_assert_eq!(again.as_ref(), uri.path());
            let keys: Vec<_> = crate::http::query::pairs(uri.query().unwrap_or_default()).map(|(key, _)| key).collect();
            prop_assert_eq!(keys, ["c", "d"]);
        }
    }
}
