//! A host is refused or comes to its one form, which is a fixed point and holds nothing that an instance, or the table
//! of routes, could read otherwise.

use gatehouse::http::host;

pub fn host(input: &[u8]) {
    let Some(text) = super::text(input) else { return };
    let Ok(host) = host::parse(text) else { return };
    let again = host::parse(&host.name).expect("what was parsed is a host");
    assert_eq!((again.name, again.port), (host.name.clone(), None));
    assert!(!host.name.is_empty() && host.name.len() <= 253 + 2);
    assert!(!host.name.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic()));
    assert!(!host.name.contains(['@', '/', '\\', ',', '%', '?', '#', '*']));
    assert!(!host.name.contains(':') || host.name.starts_with('['));
    assert!(!host.name.starts_with('.') && !host.name.ends_with('.') && !host.name.contains(".."));
}
