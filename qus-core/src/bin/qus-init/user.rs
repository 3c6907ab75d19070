//! The user that a program runs as, by the image's `/etc/passwd` and `/etc/group`.

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid};

/// A user of the image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Supplementary groups.
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: String,
}

/// Finds a user as engines do: `USER[:GROUP]`, names or numbers. A number needs no entry. A given group replaces the
/// user's own and all supplementary ones.
pub(crate) fn find(name: &str, passwd: &str, group: &str) -> Result<User> {
    let (name, given) = match name.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (name, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let entry = entry(passwd, name, 2);
    let field = |index: usize| entry.as_ref().and_then(|fields| fields.get(index).copied());
    let number = |text: &str| text.parse::<u32>().ok();
    let uid = field(2).and_then(number).or_else(|| number(name));
    let uid = uid.with_context(|| format!("the image has no user {name}"))?;
    let gid = match given {
        Some(given) => {
            let entry = self::entry(group, given, 2);
            let found = entry.and_then(|fields| number(fields.get(2)?)).or_else(|| number(given));
            found.with_context(|| format!("the image has no group {given}"))?
        }
        None => field(3).and_then(number).unwrap_or(0),
    };
    let supplementary = || {
        let user = field(0)?;
        let is_member = |fields: &Vec<&str>| {
            fields.get(3).is_some_and(|members| members.split(',').any(|member| member == user))
        };
        let ids = fields(group).filter(is_member).filter_map(|fields| number(fields.get(2)?));
        Some(ids.map(Gid::from_raw).collect())
    };
    Ok(User {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups: if given.is_none() { supplementary().unwrap_or_default() } else { Vec::new() },
        home: field(5).filter(|home| !home.is_empty()).unwrap_or("/").to_owned(),
    })
}

fn fields(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().map(|line| line.split(':').collect())
}

/// The entry with this name, or with this number, which is in the field `id`.
fn entry<'a>(file: &'a str, name: &str, id: usize) -> Option<Vec<&'a str>> {
    let by = |index: usize| fields(file).find(|fields| fields.get(index) == Some(&name));
    by(0).or_else(|| by(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n\
        build:x:1000:100::/home/build:\nshort\n";
    const GROUP: &str =
        "root:x:0:\nusers:x:100:\nkvm:x:104:other,build\nvideo:x:44:build\nbuilders:x:200:builder\n";

    fn ids(name: &str) -> (u32, u32, Vec<u32>, String) {
        let user = find(name, PASSWD, GROUP).unwrap();
        let groups = user.groups.into_iter().map(Gid::as_raw).collect();
        (user.uid.as_raw(), user.gid.as_raw(), groups, user.home)
    }

    #[test]
    fn users_are_found_as_by_engines() {
        let build = |gid, groups: &[u32]| (1000, gid, groups.to_vec(), "/home/build".to_owned());
        assert_eq!(ids(""), (0, 0, vec![], "/root".to_owned()));
        assert_eq!(ids("build"), build(100, &[104, 44]));
        assert_eq!(ids("1000"), build(100, &[104, 44]));
        assert_eq!(ids("build:kvm"), build(104, &[]));
        assert_eq!(ids("build:7"), build(7, &[]));
        assert_eq!(ids("4711"), (4711, 0, vec![], "/".to_owned()));
        assert_eq!(ids("4711:4712"), (4711, 4712, vec![], "/".to_owned()));
    }

    #[test]
    fn names_without_entry_are_errors() {
        let error = |name| find(name, PASSWD, GROUP).unwrap_err().to_string();
        assert_eq!(error("gone"), "the image has no user gone");
        assert_eq!(error("build:gone"), "the image has no group gone");
        assert_eq!(error("-1"), "the image has no user -1");
        assert!(find("root", "", "").is_err());
        assert_eq!(find("", "", "").unwrap().uid, Uid::from_raw(0), "an image without users");
    }
}
