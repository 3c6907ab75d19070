set -e
export CARGO_NET_OFFLINE=true
cargo new --quiet --vcs none words
cd words
cat > src/main.rs <<'R'
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::{env, fs, process, thread};

fn count(text: &str) -> BTreeMap<String, usize> {
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for line in text.lines() {
            let sender = sender.clone();
            scope.spawn(move || line.split(' ').for_each(|word| sender.send(word.to_owned()).unwrap()));
        }
    });
    drop(sender);
    let mut counts = BTreeMap::new();
    for word in receiver {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

fn main() {
    let name = env::args().nth(1).unwrap();
    let text = fs::read_to_string(&name).unwrap();
    println!("{:?}", count(&text));
    let child = process::Command::new("/bin/cat").arg(&name).output().unwrap();
    assert_eq!(child.stdout, text.as_bytes());
}

#[test]
fn words_are_counted() {
    assert_eq!(count("a b\nb a\nb")["b"], 3);
    assert!(std::panic::catch_unwind(|| count("")["b"]).is_err());
}
R
printf 'one two\ntwo\n' > text
cargo build --quiet --jobs 2
test "$(target/debug/words text)" = '{"one": 1, "two": 2}'
cargo test --quiet | grep -q '1 passed'
