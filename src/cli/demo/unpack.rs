//! The demo's configuration and certificates, for a directory that has none.

use std::fs;
use std::io;
use std::path::Path;

const FILES: [(&str, &str); 3] = [
    ("certs/localhost.crt", include_str!("../../../certs/localhost.crt")),
    ("certs/localhost.key", include_str!("../../../certs/localhost.key")),
    ("certs/jwt.pub", include_str!("../../../certs/jwt.pub")),
];
const CONFIGURATION: &str = include_str!("../../../gateway.yaml");

/// Writes the configuration, and what it refers to beside it, when `path` isn't there. Nothing that exists
/// is written over.
pub fn where_missing(path: &Path) -> Result<(), String> {
    if path.exists() {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    let cannot = |what: &Path, error: io::Error| format!("can't write {}: {error}", what.display());
    for (name, text) in FILES {
        let file = directory.join(name);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).map_err(|error| cannot(parent, error))?;
        }
        if !file.exists() {
            fs::write(&file, text).map_err(|error| cannot(&file, error))?;
        }
    }
    fs::write(path, CONFIGURATION).map_err(|error| cannot(path, error))?;
    super::super::complain(format_args!("wrote {} and development certificates beside it", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, gateway};

    #[test]
    fn what_is_unpacked_can_be_served_and_nothing_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.yaml");
        where_missing(&path).unwrap();
        let source = config::read_source(&path).unwrap();
        let loaded = config::load(&source, &|_| None).unwrap();
        assert!(loaded.warnings.is_empty() && gateway::check(&loaded.config).is_empty());

        fs::remove_file(&path).unwrap();
        let key = directory.path().join("certs/localhost.key");
        fs::write(&key, "mine").unwrap();
        where_missing(&path).unwrap();
        assert_eq!(fs::read_to_string(&key).unwrap(), "mine");
        fs::write(&path, "mine").unwrap();
        where_missing(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
