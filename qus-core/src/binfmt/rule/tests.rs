//! Rules as lines and back, and what the kernel would misread.

use super::*;
use arbtest::arbtest;

fn rule() -> Rule {
    let arch = "mipsn32".parse().unwrap();
    Rule {
        name: "qemu-mipsn32".into(),
        files: Files::Magic(0, Magic::of(arch, [0; 4]).next().unwrap()),
        interpreter: "/usr/bin/qemu-mipsn32".into(),
        flags: Flags::DEFAULT,
    }
}

#[test]
fn the_line_is_the_kernels() {
    let rule =
        Rule { files: Files::Magic(2, Magic { magic: b"\0:".to_vec(), mask: vec![255, 254] }), ..rule() };
    let line = String::from_utf8(rule.line().unwrap()).unwrap();
    assert_eq!(line, r":qemu-mipsn32:M:2:\x00\x3a:\xff\xfe:/usr/bin/qemu-mipsn32:POCF");
}

#[test]
fn a_path_with_colons_gets_another_separator() {
    let with_path = |path: &str| Rule { interpreter: path.into(), ..rule() };
    let colons = with_path("/a:b/ c");
    assert_eq!(colons.line().unwrap()[0], b'|');
    assert_eq!(Rule::parse(&colons.line().unwrap()), Ok(colons));
    let all = with_path(&format!("/{}", String::from_utf8_lossy(SEPARATORS)));
    assert_eq!(all.line(), Err(BadRule::NoSeparator));
}

#[test]
fn names_that_would_hit_another_file_are_refused() {
    let long = "x".repeat(256);
    for bad in ["", ".", "..", "register", "status", "a/b", "a:b", "a\nb", "a\0b", &long] {
        let error = Rule { name: bad.into(), ..rule() }.line().unwrap_err();
        assert!(matches!(error, BadRule::Name(..)), "{bad:?}: {error}");
    }
    assert!(Rule { name: OsString::from_vec(b"\xff \xfe".to_vec()), ..rule() }.line().is_ok());
}

#[test]
fn what_the_kernel_would_misread_is_refused() {
    for bad in ["relative", "/new\nline", ""] {
        let error = Rule { interpreter: bad.into(), ..rule() }.line().unwrap_err();
        assert!(matches!(error, BadRule::Interpreter(..)), "{bad:?}: {error}");
    }
    let long = Rule { interpreter: format!("/{}", "x".repeat(MAX_LINE)).into(), ..rule() };
    assert!(matches!(long.line(), Err(BadRule::TooLong(_))));
    let outside = Files::Magic(250, Magic { magic: vec![1; 7], mask: vec![1; 7] });
    assert_eq!(Rule { files: outside, ..rule() }.line(), Err(BadRule::Magic));
}

#[test]
fn every_rule_of_the_table_fits_with_room_for_a_path() {
    for arch in &crate::arch::ARCHES {
        for magic in Magic::of(arch, [0; 4]) {
            let interpreter = format!("/{}", "x".repeat(1500)).into();
            let rule = Rule { files: Files::Magic(0, magic), interpreter, ..rule() };
            assert_eq!(Rule::parse(&rule.line().unwrap()), Ok(rule));
        }
    }
}

#[test]
fn differences_are_reported_field_by_field() {
    let arch = "mipsn32".parse().unwrap();
    assert_eq!(rule().differences(&rule()), []);
    let other = Rule {
        files: Files::Magic(0, Magic::of(arch, [0xab; 4]).next().unwrap()),
        flags: Flags::NO_CREDENTIALS,
        interpreter: "/old".into(),
        ..rule()
    };
    let fields: Vec<_> = rule().differences(&other).into_iter().map(|d| (d.field, d.registered)).collect();
    let expected = [("interpreter", "/old"), ("flags", "PF"), ("emulator's hash", "abababab")];
    assert_eq!(fields, expected.map(|(field, value)| (field, value.to_owned())));
}

#[test]
fn systemds_lines_are_read() {
    let line = br":DOSWin:M::MZ::/usr/bin/wine:";
    let rule = Rule::parse(line).unwrap();
    assert_eq!(rule.files, Files::Magic(0, Magic { magic: b"MZ".to_vec(), mask: vec![255; 2] }));
    assert_eq!(rule.flags, Flags::default());
    let extension = Rule::parse(b":java:E::jar::/usr/bin/java:\n").unwrap();
    assert_eq!(extension.files, Files::Extension("jar".into()));
    assert!(!extension.matches(b"jar"));
    for bad in ["", ":a", ":a:X:::b:/c:", ":a:M:z:b::/c:", ":a:M:::b:/c:P:P:", ":a:M::b:cc:/d:"] {
        assert!(Rule::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn arbitrary_rules_round_trip() {
    arbtest(|u| {
        let len = u.int_in_range(0..=40)?;
        let magic = Magic { magic: u.bytes(len)?.to_vec(), mask: u.bytes(len)?.to_vec() };
        let len = u.int_in_range(0..=20)?;
        let name = OsString::from_vec(u.bytes(len)?.to_vec());
        let len = u.int_in_range(0..=60)?;
        let interpreter = OsString::from_vec([b"/", u.bytes(len)?].concat()).into();
        let mut flags = Flags::default();
        for letter in b"POCF" {
            if u.arbitrary()? {
                flags.set(*letter);
            }
        }
        let rule = Rule { name, files: Files::Magic(u.int_in_range(0..=200)?, magic), interpreter, flags };
        if let Ok(line) = rule.line() {
            assert_eq!(Rule::parse(&line), Ok(rule));
        }
        Ok(())
    });
}

#[test]
fn arbitrary_lines_never_panic() {
    arbtest(|u| {
        let line: Vec<u8> = u.arbitrary()?;
        let _ = Rule::parse(&[b":a:M:0:", &*line].concat());
        let _ = Rule::parse(&line);
        Ok(())
    });
}
