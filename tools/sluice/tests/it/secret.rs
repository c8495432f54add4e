//! The token secret in a file, for every verb that needs it: the flag, the variable, and what is wrong with them.

use std::path::Path;
use std::process::Output;

use super::{sluice, text};

const SECRET: &str = "a secret of many bytes";

fn file(dir: &Path, text: &str) -> String {
    let path = dir.join("secret");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    sluice().args(arguments).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn a_token_of_a_file_is_one_of_its_trimmed_secret() {
    let dir = tempfile::tempdir().unwrap();
    for ending in ["", "\n", "\r\n"] {
        let file = file(dir.path(), &format!("{SECRET}{ending}"));
        let mint = ["token", "--user", "ann", "--sub", "*"];
        let by_flag = run(&[&mint[..], &["--token-secret-file", &file]].concat(), &[]);
        let by_variable = run(&mint, &[("SLUICE_TOKEN_SECRET_FILE", &file)]);
        for minted in [by_flag, by_variable] {
            assert!(minted.status.success() && minted.stderr.is_empty(), "{}", text(&minted.stderr));
            let token = text(&minted.stdout);
            // whoever has the value, under its former name too, agrees
            assert!(run(&["token", "check", &token, "--secret", SECRET], &[]).status.success());
            assert!(run(&["token", "check", &token, "--token-secret-file", &file], &[]).status.success());
        }
    }
}

#[test]
fn white_space_is_part_of_a_secret_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let two = file(dir.path(), &format!("{SECRET}\n\n"));
    let mint = ["token", "--user", "ann", "--sub", "*"];
    let given = [("SLUICE_TOKEN_SECRET", format!("{SECRET}\n")), ("SLUICE_TOKEN_SECRET_FILE", two)];
    for (name, value) in &given {
        let minted = run(&mint, &[(name, value)]);
        let said = text(&minted.stderr);
        assert!(minted.status.success() && said.lines().count() == 1, "{said}");
        assert!(said.contains("warning: the token secret begins or ends with white space"), "{said}");
        let checked = run(&["token", "check", &text(&minted.stdout), "--token-secret", SECRET], &[]);
        assert!(text(&checked.stderr).contains("signature"), "{}", text(&checked.stderr));
    }
}

/// What each verb needs to come to its secret, nothing being started; its exit code for wrong usage.
fn verbs() -> [(Vec<String>, i32); 5] {
    let me = std::process::id();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    [
        (words("token --user ann"), 1),
        (words("token check x"), 1),
        (words("cluster --json"), 1),
        (words("drill --gateway ws://127.0.0.1:1/ws"), 2),
        (
            words(&format!(
                "roll --prove --gateway ws://127.0.0.1:1/ws --pid gateway-1={me} --start gateway-1=x"
            )),
            2,
        ),
    ]
}

#[test]
fn a_value_and_a_file_are_one_too_many_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(dir.path(), SECRET);
    for (verb, code) in verbs() {
        let verb: Vec<&str> = verb.iter().map(String::as_str).collect();
        let flags = [&verb[..], &["--token-secret", SECRET, "--token-secret-file", &file]].concat();
        let variables = [("SLUICE_TOKEN_SECRET", SECRET), ("SLUICE_TOKEN_SECRET_FILE", &file)];
        for refused in [run(&flags, &[]), run(&verb, &variables)] {
            let said = text(&refused.stderr);
            assert_eq!((refused.status.code(), said.lines().count()), (Some(code), 1), "{verb:?}: {said}");
            assert!(said.contains("--token-secret-file") && said.contains("leave one of them"), "{said}");
        }
    }
}

#[test]
fn a_file_that_is_none_is_named_by_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let empty = file(dir.path(), "\n");
    for (verb, code) in verbs() {
        for (path, why) in [("/nowhere/secret", "cannot be read: No such file"), (&empty, "is empty")] {
            let verb: Vec<&str> = verb.iter().map(String::as_str).collect();
            let refused = run(&[&verb[..], &["--token-secret-file", path]].concat(), &[]);
            let said = text(&refused.stderr);
            assert_eq!((refused.status.code(), said.lines().count()), (Some(code), 1), "{verb:?}: {said}");
            assert!(said.contains(path) && said.contains(why), "{verb:?}: {said}");
        }
    }
}

/// With a secret from a file what is missing next is said.
#[test]
fn a_deployment_that_is_given_takes_its_secret_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(dir.path(), SECRET);
    for (verb, _) in verbs().iter().filter(|(verb, _)| ["drill", "roll"].contains(&verb[0].as_str())) {
        let verb: Vec<&str> = verb.iter().map(String::as_str).collect();
        let without = run(&verb, &[]);
        assert!(text(&without.stderr).contains("SLUICE_TOKEN_SECRET_FILE"), "{}", text(&without.stderr));
        let with = run(&verb, &[("SLUICE_TOKEN_SECRET_FILE", &file)]);
        assert!(text(&with.stderr).contains("--store postgres://"), "{}", text(&with.stderr));
    }
}
