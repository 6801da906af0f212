//! What README and docs/ show works as shown.
//!
//! - A block marked `yaml` is a configuration. What a fragment leaves out is added: a listener, `user-service` and
//!   `order-service`, the authenticators `shop` and `partners`, the rate limits `per-client` and `per-user`. A
//!   block that is a list is a file of instances. `gatehouse check` must find no fault. Those of
//!   docs/configuration.md are one configuration together, which the tidy tests hold to more.
//! - A block marked `console` is run: lines that begin with `$ ` by `sh`, in this repository, and what stands
//!   below a command must be in its output, line by line, in that order; `…` stands for any text. The
//!   first command of a page is `$ gatehouse run -c examples/NAME.yaml`: its listener takes the place of
//!   127.0.0.1:8000 in the commands, its registry that of 127.0.0.1:8500, and an origin that answers with the request that of
//!   127.0.0.1:8001.
//! - The clients of docs/registry.md are run by the tests of `registry_clients`.
//! - The table of reasons is that of the code.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use gatehouse::reason::Reason;
use http::Response;
use http_body_util::Full;

use crate::support::{Gateway, Origin};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[derive(Debug)]
pub struct Block {
    page: PathBuf,
    line: usize,
    pub kind: String,
    pub text: String,
}

/// README and every page in docs/.
fn pages() -> Vec<PathBuf> {
    let in_docs = std::fs::read_dir(Path::new(ROOT).join("docs")).expect("there are docs");
    let mut pages: Vec<PathBuf> = in_docs.map(|entry| entry.expect("readable").path()).collect();
    pages.push(Path::new(ROOT).join("README.md"));
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md") && page.exists());
    pages.sort();
    pages
}

pub fn blocks(page: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(page).expect("a page is text");
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                open = Some(Block {
                    page: page.into(),
                    line: number + 1,
                    kind: kind.trim().into(),
                    text: String::new(),
                });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block has no end", page.display());
    blocks
}

fn gatehouse() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    command.current_dir(ROOT).env("NO_COLOR", "1");
    command
}

/// Adds what a fragment leaves out.
fn completed(fragment: &str) -> String {
    const USUAL: [(&str, &str); 4] = [
        ("listeners:", "listeners: [{ name: http, bind: \"127.0.0.1:8000\" }]\n"),
        (
            "services:",
            "services:\n  user-service: { instances: [\"http://127.0.0.1:8001\"] }\n  \
             order-service: { instances: [\"http://127.0.0.1:8002\"] }\n",
        ),
        (
            "authenticators:",
            "authenticators:\n  shop: { jwt: { algorithms: [HS256], keys: [{ secret: \"0123456789abcdef0123456789abcdef\" }] } }\n  \
             partners: { jwt: { algorithms: [HS256], keys: [{ secret: \"abcdef0123456789abcdef0123456789\" }] } }\n",
        ),
        (
            "rate_limits:",
            "rate_limits:\n  per-client: { key: ip, rate: 1/s }\n  per-user: { key: \"claim:sub\", rate: 1/s }\n",
        ),
    ];
    let has = |key: &str| fragment.lines().any(|line| line.starts_with(key));
    let missing: String = USUAL.iter().filter(|(key, _)| !has(key)).map(|(_, block)| *block).collect();
    fragment.to_owned() + &missing
}

/// Names in `${NAME}`, which the reader has to set.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| rest.split('}').next()).filter(|name| !name.contains(":-"))
}

#[test]
fn every_configuration_in_the_documents_is_right() {
    // Beside what the pages name: certificates, and what the examples have.
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    for named in ["certs", "examples"] {
        std::os::unix::fs::symlink(Path::new(ROOT).join(named), directory.path().join(named))
            .expect("a link");
    }
    let mut wrong = Vec::new();
    let mut checked = 0;
    for block in pages().iter().flat_map(|page| blocks(page)).filter(|block| block.kind == "yaml") {
        if block.page.ends_with("configuration.md") {
            continue;
        }
        checked += 1;
        let place = format!("{}:{}", block.page.display(), block.line);
        if block.text.starts_with("- ") {
            gatehouse::config::parse_instance_file(&block.text)
                .unwrap_or_else(|_| panic!("{place}: instances"));
            continue;
        }
        let file = directory.path().join("gateway.yaml");
        std::fs::write(&file, completed(&block.text)).expect("writable");
        let mut command = gatehouse();
        command.arg("check").arg("-c").arg(&file);
        for name in variables(&block.text) {
            command.env(name, "0123456789abcdef0123456789abcdef");
        }
        let output = command.output().expect("the binary was built with the tests");
        if !output.status.success() {
            wrong.push(format!("{place}\n{}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 10, "the pages have examples, but {checked} were found");
}

#[tokio::test]
async fn every_command_in_the_documents_answers_as_shown() {
    let mut ran = 0;
    for page in pages() {
        let session: Vec<Block> = blocks(&page).into_iter().filter(|block| block.kind == "console").collect();
        let Some(first) = session.first() else { continue };
        let example = first
            .text
            .lines()
            .find_map(|line| line.strip_prefix("$ gatehouse run -c ")?.split(' ').next())
            .unwrap_or_else(|| panic!("{}: no command starts the gateway", page.display()));
        let origin = Origin::start(|seen| {
            let told: String = seen
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
                .collect();
            Response::new(Full::new(Bytes::from(format!("{} {}\n{told}", seen.method, seen.target))))
        })
        .await;
        let text = std::fs::read_to_string(Path::new(ROOT).join(example)).expect("an example is text");
        let text = text
            .replace("127.0.0.1:8000", "127.0.0.1:0")
            .replace("127.0.0.1:8500", "127.0.0.1:0")
            .replace("127.0.0.1:8001", &origin.address.to_string())
            .replace("../", &format!("{ROOT}/"))
            .replace("file: lists/", &format!("file: {ROOT}/examples/lists/"));
        let gateway = Gateway::start(&text);
        for block in &session {
            run(block, &gateway, &origin).await;
            ran += 1;
        }
    }
    assert!(ran > 3, "the pages have sessions, but {ran} were found");
}

/// Runs the commands of a block, each with the lines below it.
async fn run(block: &Block, gateway: &Gateway, origin: &Origin) {
    let mut lines = block.text.lines().peekable();
    while let Some(line) = lines.next() {
        let command = line.strip_prefix("$ ").unwrap_or_else(|| panic!("{block:?}: a command comes first"));
        let mut command = command.to_owned();
        while command.ends_with('\\') {
            command += "\n";
            command += lines.next().expect("a line that goes on has a next one");
        }
        let mut expected = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
            expected.push(line.to_owned());
        }
        if command.starts_with("gatehouse run ") {
            continue;
        }
        let mut command = command.replace("127.0.0.1:8000", &gateway.http().to_string());
        if command.contains("127.0.0.1:8500") {
            let port = format!("\"port\":{}", origin.address.port());
            command = command.replace("127.0.0.1:8500", &gateway.address("registry").to_string());
            command = command.replace("\"port\":8001", &port);
        }
        let bin = Path::new(env!("CARGO_BIN_EXE_gatehouse")).parent().expect("a binary is in a directory");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(ROOT).env("PATH", path);
        let output = tokio::task::spawn_blocking(move || shell.output()).await.expect("no panic");
        let output = output.expect("sh is everywhere");
        let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let mut rest = said.lines();
        for line in expected.iter().filter(|line| !line.trim().is_empty()) {
            assert!(
                rest.any(|said| is_like(line, said)),
                "{}:{}\n{command}\ndid not say (or not in this place)\n{line}\nbut\n{said}{}",
                block.page.display(),
                block.line,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// Whether `said` is what is `shown`, where `…` stands for any text.
fn is_like(shown: &str, said: &str) -> bool {
    let mut pieces = shown.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = said.strip_prefix(first) else { return false };
    let mut open_end = false;
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
        open_end = piece.is_empty();
    }
    rest.is_empty() || open_end
}

#[test]
fn the_table_of_reasons_is_that_of_the_code() {
    let row = |reason: &Reason| {
        let description = reason.description().trim();
        format!("| `{}` | {} | {description} |\n", reason.code(), reason.status().as_u16())
    };
    let expected: String = Reason::ALL.iter().map(row).collect();
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/policies.md")).expect("the page is there");
    let table: String = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter(|line| ["` | 200 |", "` | 4", "` | 5"].iter().any(|status| line.contains(status)))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(table == expected, "the table in docs/policies.md should be\n\n{expected}");
}
