//! Field names that a service may take for one another: CGI and WSGI make one variable of `x-user-id` and
//! `x_user_id`. Whoever keeps a client from saying the one keeps it from saying the other.

use http::{HeaderMap, HeaderName};

/// Whether a service may take `one` for `other`, both in lower case.
pub fn reads_alike(one: &str, other: &str) -> bool {
    let is_joint = |byte: u8| matches!(byte, b'-' | b'_');
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).all(|(a, b)| a == b || (is_joint(a) && is_joint(b)))
}

/// Removes the fields that are not one of `names` and may be taken for one. Fields with an underscore are rare
/// enough that the names are asked for only when there is one.
pub fn remove_imitations<'n, N>(headers: &mut HeaderMap, names: impl Fn() -> N)
where
    N: Iterator<Item = &'n HeaderName>,
{
    if !headers.keys().any(|field| field.as_str().contains('_')) {
        return;
    }
    let imitates = |field: &&HeaderName| {
        names().any(|name| name != *field && reads_alike(field.as_str(), name.as_str()))
    };
    let imitations: Vec<HeaderName> = headers.keys().filter(imitates).cloned().collect();
    for name in imitations {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_imitated_with_other_joints_only() {
        assert!(reads_alike("x_user-id", "x-user_id"));
        assert!(!reads_alike("x-user-id", "x-user-id2"));
        assert!(!reads_alike("xuserid", "x-user-id"));
        let names = [HeaderName::from_static("x-user-id"), HeaderName::from_static("content-length")];
        let mut headers = HeaderMap::new();
        for field in ["x-user-id", "x_user_id", "x-user_id", "content-length", "content_length", "x_other"] {
            headers.insert(HeaderName::from_static(field), http::HeaderValue::from_static("1"));
        }
        remove_imitations(&mut headers, || names.iter());
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x-user-id", "x_other"]);
    }
}
