//! `sluice api-key`: a key is shown once, and the file is one that logic takes.

use std::os::unix::fs::PermissionsExt as _;

use super::{run, text};

#[test]
fn a_key_is_shown_once_and_its_hash_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let path = file.to_str().unwrap();
    let make = |arguments: &[&str]| run(&[&["api-key", "new"], arguments].concat());
    let first = make(&["billing", "--pub", "news.*", "--expires", "2027-01-31T00:00:00Z", "--file", path]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let key = text(&first.stdout);
    let key = key.trim();
    assert!(key.starts_with("sluice_") && !key.contains(char::is_whitespace), "{key}");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("name = \"billing\"") && kept.contains("sha256:") && !kept.contains(key), "{kept}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        make(&["other", "--sub", "*", "--disconnect", "*", "--calls-per-s", "7", "--file", path])
            .status
            .success()
    );
    let both = std::fs::read_to_string(&file).unwrap();
    assert!(both.starts_with(&kept) && both.contains("calls_per_s = 7"), "{both}");
    assert!(both.contains("disconnect = [\"*\"]"), "{both}");
    for (wrong, says) in [
        (&["billing", "--sub", "*", "--file", path][..], "two keys have the name billing"),
        (&["a b", "--sub", "*"], "no name of a key"),
        (&["c", "--expires", "tomorrow"], "2027-01-31T00:00:00Z"),
    ] {
        let refused = make(wrong);
        assert!(
            !refused.status.success() && text(&refused.stderr).contains(says),
            "{}",
            text(&refused.stderr)
        );
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), both, "nothing was changed");
    let shown = text(&make(&["c", "--pub", "x"]).stdout);
    assert!(shown.contains("[[keys]]") && shown.contains("api.keys_file"), "{shown}");
}
