//! Any document as a key set: it is refused, or gives keys within the bounds and a word on each that can't be used.

use gatehouse::policy::authenticate::jwks::{MAX_KEYS, Origin, parse};

pub fn jwks(input: &[u8]) {
    let from_url = parse(input, Origin::Url);
    let from_file = parse(input, Origin::File);
    for set in [&from_url, &from_file] {
        match set {
            Ok(set) => {
                assert!(set.keys.len() <= MAX_KEYS);
                // Foreign text is told escaped, and not at any length.
                assert!(
                    set.notes
                        .iter()
                        .all(|note| note.len() < 1024 && !note.contains(['\n', '\r', '\0', '\x1b']))
                );
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // Whoever can be asked by everybody keeps no secrets.
    if let (Ok(url), Ok(file)) = (&from_url, &from_file) {
        assert!(url.keys.len() <= file.keys.len());
    }
}
