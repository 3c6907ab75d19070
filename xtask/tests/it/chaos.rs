//! Invalid arguments of `chaos`.

use super::Xtask;

#[test]
fn invalid_arguments_are_refused() {
    let failed = |args: &[&str], words: &[&str]| {
        Xtask::new().run(&[&["chaos"], args].concat()).failed(2, words);
    };
    failed(&["--only", "tarballs,bench"], &["no command contains `bench`", "tarballs; release"]);
    failed(&["--kills", "0"], &["--kills"]);
}
