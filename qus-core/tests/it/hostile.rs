//! Files, names and directories that were made to do harm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use qus_core::elf::{ElfImage, Segment};
use serde_json::Value;

use super::commands::{FOREIGN, machine};
use super::{TestDir, qus};

fn pipe(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o777)).unwrap();
}

/// Runs a test that may hang in a thread of its own.
fn within(seconds: u64, work: impl FnOnce() + Send + 'static) {
    let begin = Instant::now();
    let thread = std::thread::spawn(work);
    while !thread.is_finished() {
        assert!(begin.elapsed() < Duration::from_secs(seconds), "it hangs");
        std::thread::sleep(Duration::from_millis(10));
    }
    thread.join().unwrap();
}

/// Opening a pipe waits for a writer.
#[test]
fn a_pipe_is_not_waited_for() {
    within(20, || {
        let files = machine();
        pipe(&files.path("pipe"));
        let handler =
            format!("enabled\ninterpreter {}\nflags: F\noffset 0\nmagic 7f454c46\n", files.arg("pipe"));
        files.write("binfmt/qemu-alpha", handler);
        let mount = files.arg("binfmt");
        let doctor = qus(&["--mount", &mount, "doctor"]);
        assert!(doctor.stdout.contains("pipe is not a regular file"), "{}", doctor.stdout);
        qus(&["explain", &files.arg("pipe")]).says(1, &["cannot be run here: "]);
        fs::remove_file(files.path("bin/qemu-alpha")).unwrap();
        pipe(&files.path("bin/qemu-alpha"));
        let install = ["--mount", &mount, "install", FOREIGN, "--dir", &files.arg("bin")];
        qus(&install).says(1, &["is not a regular file"]);
        pipe(&files.path("bin/bundle.json"));
        qus(&install).says(1, &["bundle.json is damaged: not a regular file"]);
    });
}

#[test]
fn a_program_with_many_dynamic_sections_is_explained_quickly() {
    within(5, || {
        let files = TestDir::new();
        files.write("program", many_dynamic_sections(2000, 1 << 40));
        let file = fs::File::options().write(true).open(files.path("program")).unwrap();
        // A hole is read as zeros, which end a section: these do not.
        assert!(file.metadata().unwrap().len() > 1 << 20);
        let ended = qus(&["explain", &files.arg("program")]);
        assert!(ended.stdout.contains("damaged ELF file"), "{}", ended.stdout);
    });
}

/// A 64-bit program whose segments are all `PT_DYNAMIC`, and share a megabyte that does not end them.
fn many_dynamic_sections(count: usize, size: u64) -> Vec<u8> {
    let content = vec![5; 1 << 20];
    let mut program = ElfImage { content: &content, ..ElfImage::of("x86_64".parse().unwrap()) };
    let mut segments = vec![Segment { kind: Segment::DYNAMIC, ..Segment::default() }; count];
    program.segments = &segments;
    let (offset, size) = (program.headers_size(), size.min(1 << 20));
    segments.iter_mut().for_each(|segment| (segment.offset, segment.size) = (offset, size));
    ElfImage { segments: &segments, content: &content, ..ElfImage::of("x86_64".parse().unwrap()) }.bytes()
}

/// Nothing that is printed for people moves the cursor, rings the bell, or looks like another line.
#[test]
fn control_characters_are_shown() {
    let files = machine();
    let hostile = "a\x1b[2J\x07\u{9b}1m\u{202e}\nerror: b";
    let script = files.path(hostile);
    fs::write(&script, "#!/no/such\x1b[31m/interpreter\x07\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    files.write(
        &format!("binfmt/{hostile}"),
        "enabled\ninterpreter /i\x1b[1m\nflags: F\noffset 0\nmagic 00\nodd \x07\n",
    );
    let (mount, path) = (files.arg("binfmt"), script.to_str().unwrap());
    for args in [
        &["status"][..],
        &["doctor"],
        &["explain", path],
        &["install", hostile],
        &["install", FOREIGN, "--dir", path],
        &["export", "raw", FOREIGN, "--dir", path],
        &["remove", "all", "--persist", "--host-root", path],
        &["run", FOREIGN, "--root", path, "--", "true"],
        &[hostile],
    ] {
        let ended = qus(&[&["--mount", &mount], args].concat());
        let output = ended.stdout + &ended.stderr;
        let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!output.contains(bad), "{args:?}: {output:?}");
        if args.first() != Some(&hostile) {
            assert!(!output.contains("\nerror: b"), "{args:?}: {output}");
        }
    }
    let status = qus(&["--mount", &mount, "status", "--json"]).stdout;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["handlers"][0]["name"], hostile, "JSON has it as it is");
}

#[test]
fn a_damaged_bundle_is_an_error() {
    let files = machine();
    let dir = files.arg("bin");
    for text in ["", "{", "[]", r#"{"qemu":"10"#] {
        files.write("bin/bundle.json", text);
        for args in [&["install", FOREIGN, "--no-probe", "--dry-run"][..], &["export", "raw", FOREIGN]] {
            qus(&[args, &["--dir", &dir]].concat()).says(1, &["bundle.json is damaged", "hint: "]);
        }
    }
    fs::remove_file(files.path("bin/bundle.json")).unwrap();
    qus(&["export", "raw", FOREIGN, "--dir", &dir]).says(0, &[]);
}
