//! Every command that help and documents show is one: pasted into a shell it comes to be arguments that parse.

use std::path::{Path, PathBuf};
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

/// What stands between back quotes in the text of a program: not in its comments, nor in what only developers read.
fn quoted(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    let joined = lines.map(|line| line.strip_suffix('\\').map_or_else(|| format!("{line}\n"), str::to_owned));
    let joined: String = joined.collect();
    joined.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests" && name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Messages name commands between back quotes; what only a person can fill in is in capitals.
#[test]
fn the_commands_that_messages_name_can_be_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let targets = std::fs::read_to_string(root.join("Makefile")).unwrap();
    let mut files = Vec::new();
    for folder in ["common", "gateway", "logic", "task", "client", "tools"] {
        sources(&root.join(folder), &mut files);
    }
    let mut count = 0;
    for file in files {
        for command in quoted(&std::fs::read_to_string(&file).unwrap()) {
            let command = command.replace("{sluice}", "sluice");
            let (program, rest) = command.split_once(' ').unwrap_or((&command, ""));
            count += match program {
                "sluice" => {
                    assert_eq!(all_parse(&command), 1, "{}: {command}", file.display());
                    1
                }
                "make" => {
                    let target = rest.split(' ').next().unwrap_or_default();
                    assert!(targets.contains(&format!("\n{target}:")), "{}: {command}", file.display());
                    1
                }
                _ => 0,
            };
        }
    }
    assert!(count >= 10, "{count}");
}

#[test]
fn the_commands_of_the_documents_can_be_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut count = 0;
    for name in [
        "README.md",
        "docs/operations.md",
        "docs/api.md",
        "docs/drill.md",
        "docs/serve.md",
        "deploy/config.md",
    ] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let joined: String = blocks.map(|block| block.replace("\\\n", " ")).collect();
        let lines = joined.lines().filter(|line| line.starts_with("sluice "));
        count += all_parse(&lines.map(|line| format!("{line}\n")).collect::<String>());
    }
    assert!(count >= 10, "{count}");
}
