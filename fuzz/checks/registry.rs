//! Any body that somebody sends the registry: it is an instance with a name, a host and a port that can be called, or it
//! is refused in words.

use gatehouse::discovery::registry::body::announcement;

pub fn registry(input: &[u8]) {
    match announcement(input) {
        Ok(announced) => {
            let shown = format!("{announced:?}");
            assert!(!shown.contains(['\n', '\r', '\0']), "{shown}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
