//! `gatehouse schema`: the JSON Schema of the configuration, for editors.

use std::io::Write;

/// Writes the schema, indented.
///
/// # Errors
///
/// When `out` can't be written to.
pub fn run(out: &mut dyn Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &crate::config::schema())?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn writes_the_schema() {
        let mut out = Vec::new();
        super::run(&mut out).unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }
}
