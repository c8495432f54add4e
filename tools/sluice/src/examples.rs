//! Every command that help and documents show is one: pasted into a shell it comes to be arguments that parse.

use std::path::Path;
use std::process::Command;

use clap::{CommandFactory, Parser};

use super::Arguments;

/// Takes the place of the program in a shell: writes its arguments down, one beside the other.
const SHELL: &str = r#"sluice() { printf '%s\037' "$@" >> "$SEEN"; printf '\036' >> "$SEEN"; }
jq() { cat > /dev/null; }
"#;

/// The arguments of each `sluice` that a shell would start.
fn pasted(commands: &str) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let seen = dir.path().join("seen");
    let output = Command::new("bash")
        .args(["-c", &format!("{SHELL}{commands}")])
        .env("SEEN", &seen)
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stderr));
    let seen = std::fs::read_to_string(seen).unwrap_or_default();
    let one = |call: &str| call.split_terminator('\u{1f}').map(str::to_owned).collect();
    seen.split_terminator('\u{1e}').map(one).collect()
}

fn all_parse(commands: &str) -> usize {
    let calls = pasted(commands);
    for call in &calls {
        let words = ["sluice".to_owned()].into_iter().chain(call.iter().cloned());
        if let Err(error) = Arguments::try_parse_from(words) {
            let is_answer = !error.use_stderr();
            assert!(is_answer, "sluice {}: {error}", call.join(" "));
        }
    }
    calls.len()
}

/// The examples in the help of a command and of all below it.
fn examples(command: &clap::Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let own = help.split_once("Examples:\n").map(|(_, examples)| examples.to_owned());
    own.into_iter().chain(command.get_subcommands().flat_map(examples)).collect()
}

#[test]
fn the_examples_of_every_help_can_be_pasted() {
    let all = examples(&Arguments::command());
    assert!(all.len() >= 10, "{all:?}");
    for examples in all {
        let lines = examples.lines().filter(|line| line.trim_start().starts_with("sluice")).count();
        let count = all_parse(&format!("export SECRET=x TOKEN=x\n{examples}"));
        assert!(count >= lines, "{count} of {lines} are commands: {examples}");
    }
}

#[test]
fn the_commands_of_the_documents_can_be_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut count = 0;
    for name in ["README.md", "docs/operations.md", "docs/drill.md", "deploy/config.md"] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let joined: String = blocks.map(|block| block.replace("\\\n", " ")).collect();
        let lines = joined.lines().filter(|line| line.starts_with("sluice "));
        count += all_parse(&lines.map(|line| format!("{line}\n")).collect::<String>());
    }
    assert!(count >= 10, "{count}");
}
