//! The configuration file as a tree of values; what they mean is read by others.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use serde_json::Value;

/// A configuration file is some lines; what is longer is another file.
const MAX_FILE: u64 = 1024 * 1024;

pub(super) fn read(path: &Path) -> anyhow::Result<Value> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("{shown} cannot be read"))?;
    let mut text = String::new();
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text);
    if length.with_context(|| format!("{shown} cannot be read"))? as u64 > MAX_FILE {
        return Err(anyhow!("{shown} is longer than 1 MiB and no configuration file"));
    }
    parse(&text).with_context(|| format!("{shown} is no valid YAML"))
}

/// Nothing is an empty tree.
pub(super) fn parse(text: &str) -> anyhow::Result<Value> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| {
        // The library's message draws the place; the first line says what is wrong and where.
        anyhow!("{}", error.to_string().lines().next().unwrap_or_default().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_read_as_a_tree() {
        let tree = parse("version: 0.1\nhttp:\n  addr: :5000\nipfs:\n  follow: [a, b]\n").unwrap();
        let expected = json!({"version": 0.1, "http": {"addr": ":5000"}, "ipfs": {"follow": ["a", "b"]}});
        assert_eq!(tree, expected);
        assert_eq!(parse("# nothing\n").unwrap(), Value::Null);
    }

    #[test]
    fn what_is_no_yaml_is_an_error_of_one_line() {
        for text in ["http: [\n", "a: 1\na: 2\n", "\t"] {
            if let Err(error) = parse(text) {
                let error = error.to_string();
                assert!(!error.is_empty() && !error.contains('\n'), "{error}");
            }
        }
        assert!(parse("http: [\n").is_err());
        assert!(parse("a: 1\na: 2\n").is_err());
    }
}
