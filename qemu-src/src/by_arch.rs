//! A table whose keys are targets.

use std::fmt;
use std::marker::PhantomData;

use qus_core::arch::Arch;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// A value for each of some targets, sorted by name. No target occurs twice, whichever of its names the file uses.
#[derive(Debug)]
pub struct ByArch<T>(Vec<(&'static Arch, T)>);

impl<T> ByArch<T> {
    /// The value of a target.
    pub fn get(&self, arch: &Arch) -> Option<&T> {
        self.iter().find(|(key, _)| *key == arch).map(|(_, value)| value)
    }

    /// All targets with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Arch, &T)> {
        self.0.iter().map(|(arch, value)| (*arch, value))
    }
}

impl<T: Serialize> Serialize for ByArch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.iter().try_for_each(|(arch, value)| map.serialize_entry(arch, value))?;
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByArch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = ByArch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table whose keys are targets")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ByArch<T>, M::Error> {
                let mut entries = ByArch(Vec::new());
                while let Some((arch, value)) = map.next_entry()? {
                    if entries.get(arch).is_some() {
                        return Err(de::Error::custom(format!("duplicate target {arch}")));
                    }
                    entries.0.push((arch, value));
                }
                entries.0.sort_by_key(|(arch, _)| arch.name);
                Ok(entries)
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_targets_that_occur_once() {
        let table: ByArch<u32> = toml::from_str("aarch64 = 1\narm = 2").unwrap();
        let arm: &Arch = "arm".parse().unwrap();
        assert_eq!(table.get(arm), Some(&2));
        assert_eq!(
            table.iter().map(|(arch, value)| (arch.name, *value)).collect::<Vec<_>>(),
            [("aarch64", 1), ("arm", 2)]
        );
        for (text, expected) in [
            ("aarch46 = 1", "unknown architecture `aarch46`"),
            ("aarch64 = 1\narm64 = 2", "duplicate target aarch64"),
        ] {
            let error = toml::from_str::<ByArch<u32>>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
