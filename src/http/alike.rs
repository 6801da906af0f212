//! Field names that a service may take for one another: CGI and WSGI make one variable of `x-user-id` and
//! `x_user_id`. Whoever keeps a client from saying the one keeps it from saying the other.

use http::HeaderName;

use super::fields::Fields;

/// Whether a service may take `one` for `other`, both in lower case.
pub fn reads_alike(one: &[u8], other: &[u8]) -> bool {
    let is_joint = |byte: u8| matches!(byte, b'-' | b'_');
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a == b || (is_joint(*a) && is_joint(*b)))
}

/// Removes the fields that are not one of `names` and may be taken for one. Fields with an underscore are rare
/// enough that the names are asked for only when there is one.
pub fn remove_imitations<'n, N>(fields: &mut Fields, names: impl Fn() -> N)
where
    N: Iterator<Item = &'n HeaderName>,
{
    if !fields.names().any(|field| field.contains(&b'_')) {
        return;
    }
    let imitates = |field: &[u8]| {
        let mut names = names().map(|name| name.as_str().as_bytes());
        names.any(|name| name != field && reads_alike(field, name))
    };
    fields.retain(|field, _| !imitates(field));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_imitated_with_other_joints_only() {
        assert!(reads_alike(b"x_user-id", b"x-user_id"));
        assert!(!reads_alike(b"x-user-id", b"x-user-id2"));
        assert!(!reads_alike(b"xuserid", b"x-user-id"));
        let names = [HeaderName::from_static("x-user-id"), HeaderName::from_static("content-length")];
        let mut headers = Fields::new();
        for field in ["x-user-id", "x_user_id", "x-user_id", "content-length", "content_length", "x_other"] {
            headers.insert(HeaderName::from_static(field), http::HeaderValue::from_static("1"));
        }
        remove_imitations(&mut headers, || names.iter());
        let left: Vec<_> = headers.names().collect();
        assert_eq!(left, [&b"x-user-id"[..], b"content-length", b"x_other"]);
    }
}
