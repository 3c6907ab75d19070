//! Machines of all kinds, and what is found.

use super::*;
use crate::binfmt::{Flags, Magic, Rule};
use crate::owner::ConfiguredRules;

fn machine() -> Machine {
    Machine {
        root: "/proc/sys/fs/binfmt_misc".into(),
        kernel: Some((6, 12)),
        proc: true,
        supported: true,
        state: MountState::Writable,
        switched_on: Some(true),
        initial_user_namespace: Some(true),
        instance: None,
        mounts_on_top: 1,
        page_size: Some(4096),
        mmap_min_addr: Some(65536),
        mmap_rnd_bits: Some(28),
        handlers: Vec::new(),
        unlisted: None,
        configured: ConfiguredRules::default(),
        probes: Default::default(),
        no_probes: None,
    }
}

fn handler(name: &str, arch: &str, flags: &str) -> InspectedHandler {
    let magic = Magic::of(arch.parse().unwrap(), [0; 4]).next().unwrap();
    let rule = Rule {
        name: name.into(),
        files: Files::Magic(0, magic),
        interpreter: format!("/usr/bin/{name}").into(),
        flags: flags.parse::<Flags>().unwrap(),
    };
    InspectedHandler {
        name: name.into(),
        entry: Ok(Entry { enabled: true, rule, unknown: Vec::new() }),
        owner: Owner::Qus,
        interpreter: Interpreter::Static,
        label: None,
    }
}

/// Severity and subject of all findings.
fn found(machine: &Machine) -> Vec<(Severity, String)> {
    findings(machine, &[]).into_iter().map(|finding| (finding.severity, finding.subject)).collect()
}

#[test]
fn a_healthy_machine_has_no_findings() {
    let healthy = Machine { handlers: vec![handler("qemu-arm", "arm", "POCF")], ..machine() };
    assert_eq!(findings(&healthy, &[]), []);
}

#[test]
fn every_kind_of_trouble_is_found() {
    let one = |machine: Machine, severity, subject: &str| {
        assert_eq!(found(&machine), [(severity, subject.to_owned())]);
    };
    one(Machine { kernel: Some((4, 4)), ..machine() }, Error, "kernel");
    one(Machine { kernel: Some((5, 10)), ..machine() }, Warning, "kernel");
    one(Machine { kernel: Some((6, 1)), ..machine() }, Note, "kernel");
    one(Machine { state: MountState::Absent, supported: false, ..machine() }, Error, "binfmt_misc");
    one(Machine { state: MountState::Absent, ..machine() }, Error, "binfmt_misc");
    one(Machine { state: MountState::Absent, proc: false, ..machine() }, Error, "binfmt_misc");
    one(Machine { state: MountState::NotMounted, ..machine() }, Error, "binfmt_misc");
    one(Machine { no_probes: Some("no memory".into()), ..machine() }, Warning, "probes");
    one(Machine { state: MountState::ReadOnly(Errno::EROFS), ..machine() }, Warning, "binfmt_misc");
    one(Machine { state: MountState::ReadOnly(Errno::EACCES), ..machine() }, Note, "binfmt_misc");
    one(Machine { switched_on: Some(false), ..machine() }, Error, "binfmt_misc");
    one(Machine { initial_user_namespace: Some(false), ..machine() }, Note, "binfmt_misc");
    one(Machine { unlisted: Some("?".into()), ..machine() }, Error, "binfmt_misc");
    one(Machine { mounts_on_top: 2, ..machine() }, Warning, "binfmt_misc");
    one(Machine { page_size: Some(65536), ..machine() }, Note, "memory");
    one(Machine { mmap_min_addr: Some(1 << 20), ..machine() }, Warning, "memory");
    one(Machine { mmap_rnd_bits: Some(32), ..machine() }, Note, "memory");
}

#[test]
fn every_kind_of_bad_handler_is_found() {
    let of = |change: &dyn Fn(&mut InspectedHandler)| {
        let mut handler = handler("qemu-arm", "arm", "POCF");
        change(&mut handler);
        found(&Machine { handlers: vec![handler], ..machine() })
    };
    let name = || "qemu-arm".to_owned();
    let entry =
        |handler: &mut InspectedHandler, change: &dyn Fn(&mut Entry)| change(handler.entry.as_mut().unwrap());
    assert_eq!(of(&|handler| entry(handler, &|entry| entry.enabled = false)), [(Error, name())]);
    assert_eq!(of(&|handler| handler.interpreter = Interpreter::Missing), [(Note, name())]);
    assert_eq!(of(&|handler| handler.interpreter = Interpreter::NotAFile), [(Error, name())]);
    assert_eq!(of(&|handler| handler.interpreter = Interpreter::Dynamic("/ld".into())), [(Warning, name())]);
    assert_eq!(of(&|handler| handler.entry = Err("garbage".into())), [(Warning, name())]);
    assert_eq!(
        of(&|handler| handler.label = Some("system_u:object_r:user_home_t:s0".into())),
        [(Warning, name())]
    );
    assert_eq!(of(&|handler| handler.label = Some("system_u:object_r:bin_t:s0".into())), []);
    let bare = |handler: &mut InspectedHandler| entry(handler, &|entry| entry.rule.flags = Flags::default());
    let missing = |handler: &mut InspectedHandler| {
        bare(handler);
        handler.interpreter = Interpreter::Missing;
    };
    assert_eq!(of(&bare), [(Warning, name()), (Note, name()), (Note, name())]);
    assert_eq!(of(&missing)[0], (Error, name()));
    for interpreter in [Interpreter::NotExecutable, Interpreter::NoExec] {
        let with_f = |handler: &mut InspectedHandler| handler.interpreter = interpreter.clone();
        assert_eq!(of(&with_f), [], "the kernel holds a file open");
        let without = |handler: &mut InspectedHandler| {
            bare(handler);
            handler.interpreter = interpreter.clone();
        };
        assert_eq!(of(&without)[0], (Error, name()));
    }
    let of_other = |handler: &mut InspectedHandler| {
        bare(handler);
        handler.owner = Owner::Other;
    };
    assert_eq!(of(&of_other)[1], (Warning, name()), "sudo fails, which nobody has asked for");
}

#[test]
fn the_hint_for_a_disabled_handler_needs_no_free_name() {
    let arm: &'static Arch = "arm".parse().unwrap();
    let mut disabled = handler("qemu-arm", "arm", "POCF");
    disabled.owner = Owner::Other;
    disabled.entry.as_mut().unwrap().enabled = false;
    let mut ill = Machine { handlers: vec![disabled], ..machine() };
    ill.probes.insert("arm", Err("no handler".into()));
    let found = findings(&ill, &[arm]);
    assert!(
        found
            .iter()
            .all(|finding| finding.hint.as_deref() == Some("`echo 1 > /proc/sys/fs/binfmt_misc/qemu-arm`")),
        "{found:?}"
    );
    // Where no handler is used, no probe shows whether one works.
    let mut off =
        Machine { handlers: vec![handler("qemu-arm", "arm", "POCF")], switched_on: Some(false), ..machine() };
    off.probes.insert("arm", Err("no handler".into()));
    assert_eq!(self::found(&off), [(Error, "binfmt_misc".to_owned())]);
}

#[test]
fn the_latest_of_two_shadows_the_other() {
    let handlers = vec![handler("qemu-arm-qus", "arm", "POCF"), handler("qemu-arm", "arm", "POCF")];
    let findings = findings(&Machine { handlers, ..machine() }, &[]);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].subject, "qemu-arm");
    assert!(findings[0].what.starts_with("qemu-arm-qus shadows it"));
    let apart = vec![handler("qemu-arm", "arm", "POCF"), handler("qemu-sh4", "sh4", "POCF")];
    assert_eq!(found(&Machine { handlers: apart, ..machine() }), []);
}

#[test]
fn what_was_asked_for_has_to_run() {
    let arm: &'static Arch = "arm".parse().unwrap();
    let mut ill = machine();
    ill.probes.insert("arm", Err("no handler".into()));
    assert_eq!(findings(&ill, &[]), [], "nothing was required, nothing is registered");
    let asked = findings(&ill, &[arm]);
    assert_eq!((asked[0].severity, asked[0].hint.as_deref()), (Error, Some("`qus install arm`")));
    ill.handlers.push(handler("qemu-arm", "arm", "POCF"));
    assert_eq!(found(&ill), [(Error, "qemu-arm".to_owned())]);
}

#[test]
fn a_contradicting_file_is_reported() {
    let root = tempfile::tempdir().unwrap();
    for dir in ["usr/lib/binfmt.d", "var/lib/binfmts"] {
        std::fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    std::fs::write(root.path().join("usr/lib/binfmt.d/q.conf"), ":qemu-arm:M::x::/usr/bin/other:F\n")
        .unwrap();
    std::fs::write(root.path().join("var/lib/binfmts/qemu-arm"), "").unwrap();
    let configured = ConfiguredRules::read(root.path());
    let ill = Machine { handlers: vec![handler("qemu-arm", "arm", "POCF")], configured, ..machine() };
    let hints: Vec<_> = findings(&ill, &[]).into_iter().map(|finding| finding.hint.unwrap()).collect();
    assert_eq!(
        hints,
        ["`ln -s /dev/null /etc/binfmt.d/q.conf`", "`update-binfmts --unimport qemu-arm && qus install arm`"]
    );
}

#[test]
fn a_contradicting_file_of_the_administrator_is_not_linked_over() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc/binfmt.d")).unwrap();
    std::fs::write(root.path().join("etc/binfmt.d/q.conf"), ":qemu-arm:M::x::/usr/bin/other:F\n").unwrap();
    let configured = ConfiguredRules::read(root.path());
    let ill = Machine { handlers: vec![handler("qemu-arm", "arm", "POCF")], configured, ..machine() };
    let hints: Vec<_> = findings(&ill, &[]).into_iter().map(|finding| finding.hint.unwrap()).collect();
    assert_eq!(hints, ["`mv /etc/binfmt.d/q.conf /etc/binfmt.d/q.conf.orig`"]);
}

#[test]
fn only_handlers_that_a_probe_used_have_a_result() {
    let handlers = ["arm", "sh4", "alpha"].map(|arch| handler(&format!("qemu-{arch}"), arch, "POCF"));
    let mut machine = Machine { handlers: handlers.into(), ..machine() };
    machine.probes.insert("arm", Ok(()));
    machine.probes.insert("sh4", Err("it failed".into()));
    machine.probes.insert("x86_64", Ok(()));
    assert_eq!(machine.results(), [Some(true), Some(false), None]);
}
