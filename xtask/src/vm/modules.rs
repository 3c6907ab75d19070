//! The kernel modules of a machine, decompressed, and in the order in which they have to be loaded.
//!
//! Debian's packages have no `modules.dep`, which depmod writes when they are installed. The modules themselves name
//! those that they depend on.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use elf::ElfBytes;
use elf::endian::AnyEndian;
use fs_err as fs;
use lzma_rust2::XzReader;

/// A module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The modules of a kernel by their names.
struct Kernel {
    files: BTreeMap<String, PathBuf>,
    /// Those that are part of the kernel.
    builtin: Vec<String>,
}

/// Finds modules and those that they depend on in the kernel's directory.
///
/// # Errors
/// A module is neither there nor built in, or cannot be read.
pub(crate) fn resolve<'a>(dir: &Path, names: impl IntoIterator<Item = &'a &'a str>) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    list(&dir.join("kernel"), &mut files)?;
    let builtin = fs::read_to_string(dir.join("modules.builtin"))?;
    let kernel = Kernel { files, builtin: builtin.lines().map(|line| name_of(Path::new(line))).collect() };
    let mut modules = Vec::new();
    for name in names {
        kernel.add(name, &mut modules)?;
    }
    Ok(modules)
}

fn list(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.insert(name_of(&path), path);
        }
    }
    Ok(())
}

/// The kernel's name of a module, which has `_` for `-`.
fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

impl Kernel {
    fn add(&self, name: &str, modules: &mut Vec<Module>) -> Result<()> {
        let is_there = |modules: &[Module]| modules.iter().any(|module| module.name == name);
        if is_there(modules) || self.builtin.iter().any(|builtin| builtin == name) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else { bail!("the kernel has no module {name}") };
        let bytes = read(path)?;
        let info = information(&bytes).with_context(|| format!("{} is no module", path.display()))?;
        for (key, value) in &info {
            match key.as_str() {
                "depends" => {
                    for other in value.split(',').filter(|other| !other.is_empty()) {
                        self.add(&other.replace('-', "_"), modules)?;
                    }
                }
                "softdep" => {
                    for other in before(value) {
                        // One that does not exist is of another kernel, or built in.
                        if let Some(other) = self.provider(&other)? {
                            self.add(&other, modules)?;
                        }
                    }
                }
                _ => {}
            }
        }
        if !is_there(modules) {
            modules.push(Module { name: name.to_owned(), bytes });
        }
        Ok(())
    }
}

impl Kernel {
    /// The module with this name, or an algorithm's module with this alias, as `crc32c`; preferably one for all processors.
    fn provider(&self, name: &str) -> Result<Option<String>> {
        if self.files.contains_key(name) {
            return Ok(Some(name.to_owned()));
        }
        let mut found = Vec::new();
        for (module, path) in &self.files {
            let is_algorithm = path.components().any(|part| part.as_os_str() == "crypto");
            if is_algorithm && information(&read(path)?)?.contains(&("alias".to_owned(), name.to_owned())) {
                found.push(module.clone());
            }
        }
        found.sort_by_key(|module| !module.ends_with("_generic"));
        Ok(found.into_iter().next())
    }
}

/// The modules that a soft dependency wants to be loaded before, of a text such as `pre: a b post: c`.
fn before(value: &str) -> Vec<String> {
    let words = value.split_whitespace().skip_while(|word| *word != "pre:").skip(1);
    words.take_while(|word| !word.ends_with(':')).map(|word| word.replace('-', "_")).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(bytes);
    }
    let mut module = Vec::new();
    XzReader::new(&*bytes, true)
        .read_to_end(&mut module)
        .with_context(|| format!("cannot decompress {}", path.display()))?;
    Ok(module)
}

/// The keys and values of the section `.modinfo`.
fn information(module: &[u8]) -> Result<Vec<(String, String)>> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(module)?;
    let section = file.section_header_by_name(".modinfo")?.context("it has no section .modinfo")?;
    let (bytes, _) = file.section_data(&section)?;
    let entries = bytes.split(|byte| *byte == 0).filter_map(|entry| {
        let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    });
    Ok(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_soft_dependencies() {
        assert_eq!(name_of(Path::new("kernel/net/nf-tables.ko.xz")), "nf_tables");
        assert_eq!(before("pre: crc32c xxhash-mod post: other"), ["crc32c", "xxhash_mod"]);
        assert!(before("post: other").is_empty());
    }
}
